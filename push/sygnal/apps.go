package sygnal

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
)

// maxAppID bounds an app's name in bytes, as pushgw does.
const maxAppID = 64

// defaultTTL is Sygnal's for Web Push, and maxTTL the longest that services
// keep, in seconds.
const (
	defaultTTL = 900
	maxTTL     = 28 * 24 * 3600
)

// option is one option of an app of pushgw.
type option struct {
	name  string
	value any
}

// options are those of one app, in the order in which they are written.
type options []option

func (o *options) add(name string, value any) { *o = append(*o, option{name, value}) }

// apps writes the apps and reports whether there are any.
func (c *converter) apps(s *section) bool {
	c.out.section(0, "apps")
	written := 0
	for _, name := range s.obj.keys {
		if name == "" || len(name) > maxAppID {
			c.warn("apps", "holds a name that is not an app_id, which has 1 to 64 characters; left out")
			continue
		}
		if written++; written > 1 {
			c.out.buf.WriteByte('\n')
		}
		c.app(s, name)
	}
	if c.relative {
		c.warn("apps", "relative paths begin in Sygnal's working directory, taken to be "+c.dir)
	}
	return written > 0
}

func (c *converter) app(apps *section, name string) {
	app := apps.section(name)
	app.path = fmt.Sprintf("apps[%q]", name)
	var opts options
	err := c.read(app, &opts)
	c.out.section(1, name)
	if err != nil {
		c.warn(app.path, err.Error()+`. It became "type: hold": homeservers get 502 and keep its pushers`)
		c.out.comment(2, "Answered 502: "+err.Error()+".")
		opts = options{{"type", "hold"}}
	} else {
		app.done()
	}
	for _, o := range opts {
		c.out.set(2, o.name, o.value)
	}
}

// read turns an app of Sygnal's into options. The error says why it cannot be
// carried over, for a comment in the result and for a warning.
func (c *converter) read(app *section, opts *options) error {
	switch kind := app.text("type"); {
	case kind == "apns":
		return c.apns(app, opts)
	case kind == "gcm":
		return c.gcm(app, opts)
	case kind == "webpush":
		return c.webpush(app, opts)
	case strings.Contains(kind, "."):
		return fmt.Errorf("its type is the Python class %s, which only Sygnal can run", shown(kind))
	default:
		return errors.New("its type is none of apns, gcm and webpush")
	}
}

func (c *converter) apns(app *section, opts *options) error {
	opts.add("type", "apns")
	switch platform := app.text("platform"); platform {
	case "":
	case "production", "prod":
		opts.add("platform", "production")
	case "sandbox":
		opts.add("platform", "sandbox")
	default: // the wrong one would cost pushers
		return errors.New("its platform is neither production nor sandbox")
	}
	if err := c.appleCredentials(app, opts); err != nil {
		return err
	}
	if kind := app.text("push_type"); kind != "" {
		opts.add("push_type", literal(kind))
	}
	app.ignore("convert_device_token_to_hex") // every form is read
	c.common(app, opts)
	return nil
}

// appleCredentials adds the certificate or the token, and the topic. Of both
// Sygnal takes the certificate.
func (c *converter) appleCredentials(app *section, opts *options) error {
	cert, key := app.text("certfile"), app.text("keyfile")
	keyID, team, topic := app.text("key_id"), app.text("team_id"), app.text("topic")
	switch {
	case cert != "":
		if key != "" {
			c.warn(app.path+".keyfile", "left out, with key_id and team_id: Sygnal uses certfile where both are set")
		}
		opts.add("cert_file", c.absolute(cert))
	case key == "":
		return errors.New("it has neither certfile nor keyfile")
	case keyID == "" || team == "" || topic == "":
		return errors.New("keyfile needs key_id, team_id and topic")
	default:
		opts.add("key_file", c.absolute(key))
		opts.add("key_id", literal(keyID))
		opts.add("team_id", literal(team))
	}
	if topic != "" {
		opts.add("topic", literal(topic))
	}
	if strings.HasSuffix(topic, ".voip") {
		c.warn(app.path+".topic", "is for VoIP: pushgw sends calls that ring and event_id_only there, where Sygnal sends everything, "+
			"because iOS kills an app that gets anything else")
	}
	return nil
}

func (c *converter) gcm(app *section, opts *options) error {
	const remedy = "write type: fcm with project_id and service_account_file here (Firebase console, Project settings, " +
		"Service accounts), as Sygnal has them with api_version: v1"
	switch app.text("api_version") {
	case "v1":
	case "", "legacy":
		return errors.New("it uses FCM's legacy API, which Google has shut down: " + remedy)
	default:
		return errors.New("its api_version is not v1: " + remedy)
	}
	project, account := app.text("project_id"), app.text("service_account_file")
	if project == "" || account == "" {
		return errors.New("api_version: v1 needs project_id and service_account_file")
	}
	if app.has("api_key") {
		c.warn(app.path+".api_key", "left out: only the legacy API had such keys")
	}
	opts.add("type", "fcm")
	opts.add("service_account_file", c.absolute(account))
	opts.add("project_id", literal(project))
	if base := app.section("fcm_options"); len(base.obj.keys) > 0 {
		c.fcmOptions(base, opts)
	}
	app.ignore("max_connections") // there are as many as are needed
	c.common(app, opts)
	return nil
}

// webpush adds what Sygnal leaves to its defaults, where ours are others.
func (c *converter) webpush(app *section, opts *options) error {
	key, contact := app.text("vapid_private_key"), app.text("vapid_contact_email")
	if key == "" || contact == "" {
		return errors.New("type: webpush needs vapid_private_key and vapid_contact_email")
	}
	opts.add("type", "webpush")
	opts.add("vapid_key_file", c.absolute(key))
	opts.add("vapid_contact", literal("mailto:"+contact))
	if app.has("allowed_endpoints") {
		list, ok := withoutNulls(app.obj.values["allowed_endpoints"]).([]any)
		if !ok { // to allow all would be more than was meant
			return errors.New("its allowed_endpoints are not a list")
		}
		if len(list) > 0 {
			opts.add("allowed_endpoints", list)
		}
	}
	ttl, there := app.integer("ttl", 1, maxTTL)
	if !there {
		ttl = defaultTTL
	}
	opts.add("keep_for", fmt.Sprintf("%ds", ttl))
	app.ignore("max_connections") // there are as many as are needed
	c.places(app, opts)
	return nil
}

// fcmOptions carries over what every message starts from. Sygnal replaces two
// of its members in each push, which pushgw does not take to begin with.
func (c *converter) fcmOptions(base *section, opts *options) {
	kept := &object{values: make(map[string]any)}
	for _, name := range base.obj.keys {
		switch value := withoutNulls(base.obj.values[name]); {
		case name == "data" || name == "token":
			c.warn(join(base.path, name), "left out: each push brings its own")
		case value != nil:
			kept.set(name, value)
		}
	}
	if len(kept.keys) > 0 {
		opts.add("fcm_options", kept)
	}
}

// withoutNulls leaves out the members that are null, which FCM takes for
// absent, and makes every text literal.
func withoutNulls(value any) any {
	switch v := value.(type) {
	case string:
		return literal(v)
	case []any:
		list := make([]any, 0, len(v))
		for _, item := range v {
			if item = withoutNulls(item); item != nil {
				list = append(list, item)
			}
		}
		return list
	case *object:
		kept := &object{values: make(map[string]any)}
		for _, name := range v.keys {
			if member := withoutNulls(v.values[name]); member != nil {
				kept.set(name, member)
			}
		}
		return kept
	default:
		return value
	}
}

// common adds what all types of apps have.
func (c *converter) common(app *section, opts *options) {
	if counts, there := app.bool("send_badge_counts"); there && !counts {
		opts.add("badge", "off")
	}
	c.places(app, opts)
}

func (c *converter) places(app *section, opts *options) {
	if limit, there := app.integer("inflight_request_limit", 1, math.MaxInt32); there {
		opts.add("concurrency", limit)
	}
}

// absolute returns a path of Sygnal's as an absolute one.
func (c *converter) absolute(name string) string {
	if !filepath.IsAbs(name) {
		name = filepath.Join(c.dir, name)
		c.relative = true
	}
	return literal(name)
}

// literal writes a text of an app so that pushgw does not take ${NAME} in it
// for an environment variable.
func literal(s string) string { return strings.ReplaceAll(s, "${", "$${") }
