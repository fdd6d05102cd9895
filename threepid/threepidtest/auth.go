package threepidtest

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

const cramMD5 = "CRAM-MD5"

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
	case cramMD5:
		challenge := "<" + rand.Text() + "@relay>"
		return &steps{prompts: []string{challenge}, done: func(answers []string) error {
			username, sum, _ := strings.Cut(answers[0], " ")
			mac := hmac.New(md5.New, []byte(s.relay.opts.Password))
			mac.Write([]byte(challenge))
			if sum != hex.EncodeToString(mac.Sum(nil)) {
				return smtp.ErrAuthFailed
			}
			return s.check(username, s.relay.opts.Password)
		}}, nil
	default:
		return nil, smtp.ErrAuthUnknownMechanism
	}
}

func (s *session) check(username, password string) error {
	if username != s.relay.opts.Username || password != s.relay.opts.Password {
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
