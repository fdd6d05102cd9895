package threepidtest

import (
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

const xoauth2 = "XOAUTH2"

func (s *session) AuthMechanisms() []string {
	switch opts := s.relay.opts; {
	case opts.Username == "":
		return nil
	case opts.Mechanism == "":
		return []string{sasl.Plain}
	default:
		return []string{opts.Mechanism}
	}
}

func (s *session) Auth(mechanism string) (sasl.Server, error) {
	switch mechanism {
	case sasl.Plain:
		return sasl.NewPlainServer(func(_, username, password string) error { return s.check(username, password) }), nil
	case sasl.Login:
		return &steps{prompts: []string{"Username:", "Password:"}, done: func(answers []string) error {
			return s.check(answers[0], answers[1])
		}}, nil
	case xoauth2:
		return &token{done: func(answer string) error {
			username, password, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(answer, "user="), "\x01\x01"), "\x01auth=Bearer ")
			return s.check(username, password)
		}}, nil
	default:
		return nil, smtp.ErrAuthUnknownMechanism
	}
}

func (s *session) check(username, password string) error {
	right := s.relay.opts.Password
	if s.relay.opts.Current != nil {
		right = s.relay.opts.Current()
	}
	if username != s.relay.opts.Username || password != right {
		return smtp.ErrAuthFailed
	}
	s.username = username
	return nil
}

// steps is the relay's half of a login in which it asks and the client answers.
type steps struct {
	prompts []string
	answers []string
	done    func(answers []string) error
}

// Next implements sasl.Server.
func (s *steps) Next(response []byte) (challenge []byte, done bool, err error) {
	if response != nil {
		s.answers = append(s.answers, string(response))
	}
	if n := len(s.answers); n < len(s.prompts) {
		return []byte(s.prompts[n]), false, nil
	}
	return nil, true, s.done(s.answers)
}

// token is the relay's half of XOAUTH2: it explains a refusal, which the client has to
// acknowledge.
type token struct {
	done    func(answer string) error
	refused error
}

// Next implements sasl.Server.
func (t *token) Next(response []byte) (challenge []byte, done bool, err error) {
	if t.refused != nil {
		return nil, false, t.refused
	}
	t.refused = t.done(string(response))
	if t.refused == nil {
		return nil, true, nil
	}
	return []byte(`{"status":"401","schemes":"bearer"}`), false, nil
}
