package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
)

// devPepper is that of the specification's examples, so that the hash in ours
// can be written down.
const devPepper = "matrixrocks"

// dev turns the configuration into one for development: only this machine
// reaches the service, nothing is kept and stopping takes no time.
func (c *Config) dev(p *conf.Problems) {
	const remedy = "with -dev, use an address of the loopback such as 127.0.0.1:8090, because everybody's codes are shown there"
	for i, address := range c.HTTP.Listen {
		chosen, err := loopbackAddress(address)
		if err != nil {
			p.Add(fmt.Sprintf("http.listen[%d]", i), address, remedy)
			chosen = defaultConfig().HTTP.Listen[0] // so that nothing else is wrong because of it
		}
		c.HTTP.Listen[i] = chosen
	}
	if c.HTTP.AdminListen != "" && !isLoopback(c.HTTP.AdminListen) {
		p.Add("http.admin_listen", c.HTTP.AdminListen, remedy)
	}
	c.HTTP.DrainDelay = 0
	c.PublicBaseURL = ""
	c.Database, c.CodeKey = DatabaseConfig{}, ""
}

// loopbackAddress returns address with a free port in place of port 0, because
// links hold the port. It refuses what is not a TCP address of the loopback.
func loopbackAddress(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !isLoopbackHost(host) {
		return "", errors.New("not a TCP address of the loopback")
	}
	if port != "0" {
		return address, nil
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return "", err
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// surroundings are what development puts around the service.
type surroundings struct {
	prepare  func(context.Context, *store) error // the data, before the service uses it
	wrap     func(http.Handler) http.Handler     // the API
	workers  []func(context.Context) error
	announce func() // once the API answers
}

// serveDev serves with a temporary folder for the data, an outbox instead of a
// relay and a provider, and a homeserver of its own.
func (p *program) serveDev(ctx context.Context, cfg *Config, env environment) (err error) {
	dir, err := os.MkdirTemp("", "identity-dev-")
	if err != nil {
		return fmt.Errorf("folder for development: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg.DataDir, cfg.Database.Path = dir, filepath.Join(dir, "identity.db")

	box, err := newOutbox(p.stdout)
	if err != nil {
		return err
	}
	made, err := newParts(cfg, env, box.messengers)
	if err != nil {
		return err
	}
	hs, err := openDevHomeserver(cfg.HTTP.Listen[0])
	if err != nil {
		return err
	}
	defer hs.close()
	made.homeservers.AllowNets = append(made.homeservers.AllowNets, netip.MustParsePrefix("127.0.0.1/32"))
	made.homeservers.RootCAs = hs.trust(made.homeservers.RootCAs)
	return p.serveWith(ctx, cfg, env, made, surroundings{
		prepare: fixPepper,
		wrap: func(api http.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.HandleFunc("GET /dev/outbox", box.show)
			mux.HandleFunc("GET /dev/outbox.json", box.list)
			mux.HandleFunc(issueToken, hs.issue)
			mux.Handle("/", api)
			return loopbackOnly(mux)
		},
		workers:  []func(context.Context) error{hs.run},
		announce: func() { p.printExample(cfg.PublicBaseURL, hs.name) },
	})
}

// fixPepper begins a database with the pepper of development.
func fixPepper(ctx context.Context, db *store) error {
	if err := db.BeginPepper(ctx, devPepper, 0); err != nil {
		return err
	}
	now := time.Now()
	_, err := db.FillPepper(ctx, 1, now, now)
	return err
}

// loopbackOnly refuses requests for any other host name than this machine's own: a
// web page can make a browser ask for a name that resolves to the loopback, and read
// the answer.
func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil { // no port
			host = strings.Trim(r.Host, "[]")
		}
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !from.Addr().IsLoopback() || !isLoopbackHost(host) {
			http.Error(w, "Development mode answers this machine only.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// example takes one address from its owner's registration to a lookup.
// docs/start-identity.md shows the same lines.
const example = `
token=$(curl -s IS/_matrix/client/v3/user/@alice:HS/openid/request_token -d '{}' | curl -s IS/_matrix/identity/v2/account/register -d @- | cut -d'"' -f4)
sid=$(curl -s IS/_matrix/identity/v2/validate/email/requestToken -H "Authorization: Bearer $token" -d '{"email":"alice@example.com","client_secret":"monkeys","send_attempt":1}' | cut -d'"' -f4)
code=$(curl -s IS/dev/outbox.json | cut -d'"' -f4)
curl IS/_matrix/identity/v2/validate/email/submitToken -H "Authorization: Bearer $token" -d '{"sid":"'$sid'","client_secret":"monkeys","token":"'$code'"}'
curl IS/_matrix/identity/v2/3pid/bind -H "Authorization: Bearer $token" -d '{"sid":"'$sid'","client_secret":"monkeys","mxid":"@alice:HS"}'
curl IS/_matrix/identity/v2/lookup -H "Authorization: Bearer $token" -d '{"algorithm":"sha256","pepper":"matrixrocks","addresses":["4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc"]}'
`

// printExample prints lines that a reader pastes into a shell.
func (p *program) printExample(baseURL, homeserver string) {
	lines := strings.NewReplacer("IS/", baseURL+"/", ":HS", ":"+homeserver).Replace(example)
	fmt.Fprintf(p.stdout, `
identity shows here, and at %s/dev/outbox, the messages it would send. Its
homeserver %s vouches for anybody there. From a registration to a lookup:
%s
`, baseURL, homeserver, strings.ReplaceAll(strings.TrimSuffix(lines, "\n"), "\n", "\n  "))
}
