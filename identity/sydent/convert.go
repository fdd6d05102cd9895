package sydent

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

// Converted is what takes the place of a sydent.conf.
type Converted struct {
	// Config is the configuration of identity, in YAML. It holds the password of the
	// mail relay if the file did, and no other secret.
	Config []byte
	// Warnings tell the operator, one line each and without secrets, what could not be
	// carried over as it was. They begin with an option of Sydent's.
	Warnings []string
}

// Convert turns conf, the text of a sydent.conf, into a configuration of identity.
// It opens no files. The error says why conf is not one of Sydent's, without
// quoting it.
func Convert(conf []byte) (Converted, error) {
	file, err := parseINI(string(conf))
	if err != nil {
		return Converted{}, err
	}
	c := converter{file: file, known: make(map[string]bool)}
	name := c.get("general", "server.name")
	if c.get("crypto", "ed25519.signingkey") == "" && name == "" {
		return Converted{}, errors.New("it has neither a server.name nor a signing key: is it Sydent's configuration?")
	}
	c.names(name)
	c.http()
	c.homeservers()
	c.email()
	c.invites()
	c.leftBehind()
	text, err := yaml.Marshal(c.out)
	if err != nil {
		return Converted{}, err
	}
	const head = "# Made from a sydent.conf. \"identity -config FILE -check\" checks it; identity.example.yaml\n# shows all options.\n"
	return Converted{Config: append([]byte(head), text...), Warnings: c.warnings}, nil
}

// converter carries one Convert through its steps.
type converter struct {
	file     ini
	known    map[string]bool // options that were asked for
	out      yaml.MapSlice
	warnings []string
}

func (c *converter) warn(option, text string) {
	c.warnings = append(c.warnings, option+": "+text)
}

// get returns an option, "" if it is not set or refers to another.
func (c *converter) get(section, option string) string {
	c.known[option] = true
	value, err := c.file.get(section, option)
	if err != nil {
		c.warn(option, "refers to another option with % and is left out")
	}
	return value
}

// number returns an option that is a number, 0 if it is not set or is not one.
func (c *converter) number(section, option string) int {
	value := c.get(section, option)
	n, err := strconv.Atoi(value)
	if value != "" && (err != nil || n < 0) {
		c.warn(option, "is not a number and is left out")
		return 0
	}
	return n
}

// on reports whether a switch is on.
func (c *converter) on(section, option string) bool {
	return slices.Contains([]string{"1", "true", "yes", "on"}, strings.ToLower(c.get(section, option)))
}

// list returns an option of several values with commas between them.
func (c *converter) list(section, option string) (all []string) {
	for one := range strings.SplitSeq(c.get(section, option), ",") {
		if one = strings.TrimSpace(one); one != "" {
			all = append(all, one)
		}
	}
	return all
}

// set adds an option, or a section of them, unless it is empty.
func (c *converter) set(name string, value any) {
	if section, ok := value.(yaml.MapSlice); ok && len(section) == 0 || value == "" {
		return
	}
	c.out = append(c.out, yaml.MapItem{Key: name, Value: value})
}

func (c *converter) names(name string) {
	if name == "" {
		c.warn("server.name", "is not set, so that Sydent uses SYDENT_SERVER_NAME or the name of its machine: write that name into server_name")
	}
	c.set("server_name", name)
	base := strings.TrimRight(c.get("http", "client_http_base"), "/")
	if base == "" && name != "" {
		base = "https://" + name
		c.warn("client_http_base", "is not set; public_base_url is a guess")
	}
	c.set("public_base_url", base)
	c.set("data_dir", "identity-data")
	level := map[string]string{
		"critical": "error", "error": "error", "warning": "warn", "warn": "warn", "info": "info", "debug": "debug",
	}[strings.ToLower(c.get("general", "log.level"))]
	if level != "" {
		c.set("log", yaml.MapSlice{{Key: "level", Value: level}})
	}
}

func (c *converter) http() {
	const defaultPort = 8090
	port := c.number("http", "clientapi.http.port")
	if port == 0 {
		port = defaultPort
	}
	address := strings.Trim(c.get("http", "clientapi.http.bind_address"), "[]")
	if address == "::" || address == "0.0.0.0" {
		address = "" // one listener takes both
	}
	section := yaml.MapSlice{{Key: "listen", Value: []string{net.JoinHostPort(address, strconv.Itoa(port))}}}
	if port := c.number("general", "prometheus_port"); port != 0 {
		address := c.get("general", "prometheus_addr")
		section = append(section, yaml.MapItem{Key: "admin_listen", Value: net.JoinHostPort(address, strconv.Itoa(port))})
		c.warn("prometheus_port", "http.admin_listen also serves profiles, from which the keys can be read: let only your monitoring reach it")
	}
	c.set("http", section)
	if c.on("http", "obey_x_forwarded_for") {
		c.warn("obey_x_forwarded_for", "identity has to know whose X-Forwarded-For to believe: set http.trusted_proxies to your proxies' addresses")
	}
}

func (c *converter) homeservers() {
	var section yaml.MapSlice
	if allow := c.list("general", "homeserver_allow_list"); len(allow) > 0 {
		section = append(section, yaml.MapItem{Key: "allow", Value: allow})
	}
	c.set("homeservers", section)
	if networks := c.list("general", "ip.whitelist"); len(networks) > 0 {
		c.set("allow_networks", networks)
	}
	if v1 := c.get("general", "enable_v1_access"); v1 == "" || c.on("general", "enable_v1_access") {
		c.warn("enable_v1_access", "version 1 is answered for old links and keys, and to homeservers that need it (Dendrite, and "+
			"Synapse's account_threepid_delegates.msisdn) once trusted_homeservers names them")
	}
	if verify := c.get("http", "federation.verifycerts"); verify != "" && !c.on("http", "federation.verifycerts") {
		c.warn("federation.verifycerts", "certificates of homeservers are always verified; ca_file names further authorities")
	}
}

func (c *converter) email() {
	var section yaml.MapSlice
	add := func(name string, value any) {
		if value != "" && value != 0 {
			section = append(section, yaml.MapItem{Key: name, Value: value})
		}
	}
	port := c.number("email", "email.smtpport")
	mode := map[string]string{"tls": "tls", "ssl": "tls", "starttls": "starttls"}[strings.ToLower(c.get("email", "email.tlsmode"))]
	if mode == "" {
		mode = "none"
		c.warn("email.tlsmode", "mails go to the relay without TLS, as they did; set email.tls to starttls if it can")
	}
	if port == 0 {
		port = map[string]int{"tls": 465, "starttls": 25, "none": 25}[mode]
	}
	add("host", net.JoinHostPort(cmp.Or(strings.Trim(c.get("email", "email.smtphost"), "[]"), "localhost"), strconv.Itoa(port)))
	add("tls", mode)
	c.known["email.hostname"] = true // the host of public_base_url greets the relay
	add("username", c.get("email", "email.smtpusername"))
	if password := c.get("email", "email.smtppassword"); password != "" {
		add("password", password)
		c.warn("email.smtppassword", "stands in the new configuration: keep the file private, or put it into a file named by email.password_file")
	}
	add("from", c.get("email", "email.from"))
	c.set("email", section)
	for _, option := range []string{
		"email.template", "email.subject", "email.invite_template", "email.invite.subject", "email.invite.subject_space", "templates.path",
	} {
		c.known[option] = true
	}
	c.warn("templates.path", "templates and their subjects are not carried over: see templates")
}

func (c *converter) invites() {
	var section yaml.MapSlice
	// One number is for both halves: the smaller one shows no more than before.
	local := c.number("email", "email.third_party_invite_username_obfuscate_characters")
	domain := c.number("email", "email.third_party_invite_domain_obfuscate_characters")
	if shown := min(cmp.Or(local, domain), cmp.Or(domain, local)); shown != 0 {
		section = append(section, yaml.MapItem{Key: "shown", Value: shown})
	}
	if location := c.get("email", "email.default_web_client_location"); location != "" {
		u, err := url.Parse(location)
		if err != nil || u.Host == "" {
			c.warn("email.default_web_client_location", "is not a URL and is left out")
		} else {
			section = append(section, yaml.MapItem{Key: "clients", Value: []string{u.Hostname() + " <" + location + ">"}})
		}
	}
	c.set("invites", section)
}

// leftBehind warns of what is set and has no place, or one that has to be filled
// by hand.
func (c *converter) leftBehind() {
	c.known["ed25519.signingkey"] = true // the import takes it over
	remedies := []struct{ prefix, text string }{
		{"terms.path", "write the policies into terms"},
		{"log.path", "the log goes to standard error"},
		{"brand.default", "homeservers.settings gives homeservers brands"},
		{"sentry", "nothing is reported to Sentry: watch the log and the metrics"},
		{"ip.blacklist", "only homeservers on the public internet are asked"},
		{"address_lookup_limit", "a lookup takes up to 10,000 addresses"},
		{"enable_v1_associations", "trusted_homeservers bind for their own users"},
		{"delete_tokens_on_bind", "an invite's keys stay valid for a day after the homeserver was told"},
		{"db.file", "import-sydent -db reads it; the new database is in data_dir, or in database.url"},
		{"pidfile.path", "there is no such file"},
		{"internalapi.", "there is no internal API"},
		{"replication.", "nothing is exchanged with other identity servers"},
		{"email.ratelimit_sender.", "see limits.invites_per_account"},
		{"msisdn.ratelimit.", "see limits.mail_per_address"},
		{"country.ratelimit.", "see limits.sms_per_country"},
		{"email.third_party_invite_", "there is nothing like it"},
		{"smsrule.", "name the countries in sms.countries"},
		{"originators.", "see sms.from"},
		{"", "is not known here"},
	}
	for _, section := range []string{"general", "http", "email", "sms", "db", "crypto"} {
		c.leave(section, remedies)
	}
	for name := range c.file {
		if strings.HasPrefix(name, "peer.") {
			c.warn("["+name+"]", "nothing is exchanged with other identity servers")
		}
	}
	slices.Sort(c.warnings)
	c.warnings = slices.Compact(c.warnings)
}

// leave warns of the options of a section that nobody asked for.
func (c *converter) leave(section string, remedies []struct{ prefix, text string }) {
	set := make(map[string]string)
	for _, options := range []map[string]string{c.file[defaultSection], c.file[section]} {
		for option, value := range options {
			set[option] = value
		}
	}
	for option, value := range set {
		_, own := c.file[section][option]
		if value == "" || c.known[option] || !own && section != "general" {
			continue
		}
		if section == "sms" && (option == "username" || option == "password" || option == "bodytemplate") {
			c.warn("["+section+"] "+option, "OpenMarket is not supported: set sms.provider to twilio, or to webhook for any gateway, and sms.countries")
			continue
		}
		for _, r := range remedies {
			if strings.HasPrefix(option, r.prefix) {
				c.warn(option, fmt.Sprintf("is not carried over: %s", r.text))
				break
			}
		}
	}
}
