package email

import (
	"cmp"
	"crypto/x509"
	"net"
	"net/mail"
	"slices"
	"strconv"
	"strings"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/sending"
)

// Values of Config.TLS.
const (
	TLSStart    = "starttls" // TLS after STARTTLS, never without it
	TLSImplicit = "tls"      // TLS from the first byte
	TLSNone     = "none"     // no TLS
)

// Values of Config.Auth.
const (
	AuthAuto    = "auto" // AuthXOAUTH2 with OAuth2, else the first of the others that the relay offers
	AuthPlain   = "plain"
	AuthLogin   = "login"
	AuthXOAUTH2 = "xoauth2"
)

// Config says which relay takes the mail and what it looks like. An option that
// is absent has its default. Without a host no mail is sent.
type Config struct {
	// Host is the mail relay, as host or host:port. Default of the port: 587, 465
	// with tls: tls, 25 with tls: none. Without a relay no mail is sent.
	Host string `yaml:"host"`
	// TLS is "starttls" (the default), "tls" or "none".
	TLS string `yaml:"tls"`
	// RootCAs are the authorities that certificates may be signed by; nil is the
	// system's. It is no option.
	RootCAs *x509.CertPool

	// Username is the name to log in with; with access tokens it is the mailbox.
	Username string `yaml:"username"`
	// Password is its password.
	Password     conf.Secret `yaml:"password"`
	PasswordFile string      `yaml:"password_file"`
	// Auth is "auto" (the default), "plain", "login" or "xoauth2". Without TLS a
	// password goes only to this machine, and only if Auth says how.
	Auth string `yaml:"auth"`
	// OAuth2 is how access tokens are fetched, which then take the place of Password.
	OAuth2 OAuth2Config `yaml:"oauth2"`
	// EHLO is the name to greet the relay with; default: the host of the public
	// base URL.
	EHLO string

	// From is the sender, such as "Example <noreply@example.org>".
	From string `yaml:"from"`
	// ReplyTo is where answers go. Default: From.
	ReplyTo string `yaml:"reply_to"`
	// Brands are those with another sender, by the name that clients ask for. They
	// stand at the top of the configuration, under brands.
	Brands map[string]Brand

	// AtOnce is how many mails are sent at once, 1 to 1000. Microsoft 365 takes 3.
	AtOnce int `yaml:"max_sending"`

	sending.Config `yaml:",inline"`
}

// Brand is what differs in the mails of a brand. An option that is absent is
// that of the Config.
type Brand struct {
	// From is the sender of the mails of a brand.
	From string `yaml:"from"`
	// ReplyTo is where answers to them go.
	ReplyTo string `yaml:"reply_to"`
}

// Validate adds every fault of c to p, under path. Templates are checked by New.
func (c Config) Validate(path string, p *conf.Problems) { c.resolve(path, p) }

// Warnings names what works but is probably not meant.
func (c Config) Warnings() []string {
	if c.Host == "" {
		return []string{"no mail relay is configured (host): requests to validate an email address are refused"}
	}
	if host, _ := c.address(); c.TLS == TLSNone && !isLoopback(host) {
		return []string{"mail goes to the relay without encryption (tls: none): whoever can read along can take over accounts"}
	}
	return nil
}

func (b Brand) resolve(path string, p *conf.Problems) sender {
	return sender{parseSender(path+".from", b.From, p), parseSender(path+".reply_to", b.ReplyTo, p)}
}

// sender is who a mail is from.
type sender struct {
	from    *mail.Address
	replyTo *mail.Address // nil for from
}

// or returns s with what it lacks from another one.
func (s sender) or(other sender) sender {
	return sender{cmp.Or(s.from, other.from), cmp.Or(s.replyTo, other.replyTo)}
}

// settings are a Config that has been checked, with the defaults in place.
type settings struct {
	Config
	host, port string
	senders    map[string]sender // by brand, the default one under ""
}

// address returns the host and the port of the relay, "" without one.
func (c Config) address() (host, port string) {
	if host, port, err := net.SplitHostPort(c.Host); err == nil {
		return host, port
	}
	return strings.Trim(c.Host, "[]"), "" // an address of IPv6 may come without brackets
}

// resolve checks c and adds its faults to p; without any the settings work.
func (c Config) resolve(path string, p *conf.Problems) settings {
	s := settings{Config: c, senders: make(map[string]sender)}
	if c.Host == "" {
		if c.Username != "" || c.From != "" {
			p.Add(path+".host", nil, "is missing: name the mail relay, or remove the other options to send no mail")
		}
	} else {
		s.checkRelay(path, p)
		s.checkSenders(path, p)
	}
	c.MaxSending = cmp.Or(c.AtOnce, c.MaxSending)
	s.Config.Config = c.WithDefaults()
	s.Config.Config.Validate(path, p)
	return s
}

func (s *settings) checkRelay(path string, p *conf.Problems) {
	s.TLS = cmp.Or(s.TLS, TLSStart)
	ports := map[string]string{TLSStart: "587", TLSImplicit: "465", TLSNone: "25"}
	host, port := s.address()
	s.host, s.port = host, cmp.Or(port, ports[s.TLS])
	n, err := strconv.ParseUint(cmp.Or(port, "25"), 10, 16)
	if host == "" || strings.ContainsAny(host, " /\r\n\t@[]") || strings.Contains(host, ":") && net.ParseIP(host) == nil ||
		strings.HasSuffix(s.Host, ":") || err != nil || n == 0 {
		p.Add(path+".host", s.Host, "must be a host name or an IP address, with a port of 1 to 65535 if need be, as in smtp.example.org:587")
	}
	if ports[s.TLS] == "" {
		p.Add(path+".tls", s.TLS, `must be "starttls", "tls" (from the first byte) or "none"`)
	}
	if strings.ContainsFunc(s.EHLO, func(r rune) bool { return r <= ' ' || r > '~' }) {
		p.Add(path+".ehlo", s.EHLO, "must be a host name in ASCII")
	}
	s.Auth = cmp.Or(s.Auth, AuthAuto)
	if s.Auth == AuthAuto && s.OAuth2.configured() {
		s.Auth = AuthXOAUTH2
	}
	if s.Auth == AuthXOAUTH2 {
		s.OAuth2.validate(path+".oauth2", p)
	} else if s.OAuth2.configured() {
		p.Add(path+".oauth2", nil, "is not for this auth: say xoauth2")
	}
	switch known := []string{AuthAuto, AuthPlain, AuthLogin, AuthXOAUTH2}; {
	case !slices.Contains(known, s.Auth):
		p.Add(path+".auth", s.Auth, "must be one of "+strings.Join(known, ", "))
	case s.Auth == AuthXOAUTH2 && s.Username == "":
		p.Add(path+".username", nil, "is missing: the mailbox to send from")
	case s.Auth == AuthXOAUTH2 && s.Password != "":
		p.Add(path+".password", nil, "is not for this auth: there is oauth2 instead")
	case s.Auth == AuthXOAUTH2 && s.TLS == TLSNone:
		p.Add(path+".tls", s.TLS, "would send the access token in clear text: use TLS")
	case s.Auth == AuthXOAUTH2:
	case s.Username == "" && s.Password != "":
		p.Add(path+".username", nil, "is missing, and there is a password")
	case s.Username != "" && s.Password == "":
		p.Add(path+".password", nil, "is missing: write it here or its file's name in password_file")
	case s.Username != "" && s.TLS == TLSNone && !isLoopback(s.host):
		p.Add(path+".tls", s.TLS, "would send the password in clear text: use TLS")
	case s.Username != "" && s.TLS == TLSNone && s.Auth == AuthAuto:
		p.Add(path+".auth", s.Auth, "sends no password in clear text: use TLS, or say plain or login if that is what you want on this machine")
	}
}

func (s *settings) checkSenders(path string, p *conf.Problems) {
	if s.From == "" {
		p.Add(path+".from", nil, `is missing: the sender of all mail, such as "Example <noreply@example.org>"`)
	}
	for name, b := range s.Brands {
		s.senders[name] = b.resolve("brands."+strconv.Quote(name), p)
	}
	if _, ok := s.Brands[""]; ok {
		p.Add("brands", nil, "has a brand without a name")
	}
	s.senders[""] = Brand{s.From, s.ReplyTo}.resolve(path, p)
}

// parseSender reads a name and an address that every relay can take. It returns
// nil for "" and after a fault.
func parseSender(path, s string, p *conf.Problems) *mail.Address {
	if s == "" {
		return nil
	}
	a, err := mail.ParseAddress(s)
	if err != nil || strings.ContainsAny(a.Name, "\r\n") {
		p.Add(path, s, `must be an address, or a name and an address as in "Example <noreply@example.org>"`)
		return nil
	}
	parsed, err := threepid.ParseEmail(a.Address)
	local, _, _ := strings.Cut(a.Address, "@")
	if err != nil || strings.ContainsFunc(local, func(r rune) bool { return r > '~' }) {
		p.Add(path, s, "must have an address with a full domain name, in ASCII before the @")
		return nil
	}
	_, domain, _ := strings.Cut(parsed.MailAddress(), "@")
	return &mail.Address{Name: a.Name, Address: local + "@" + domain}
}

// isLoopback reports whether host is this machine in the eyes of the mail
// client, which then shows a password without TLS.
func isLoopback(host string) bool {
	return slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, host)
}
