// Package sending owns what mails and text messages share on their way out: the
// options about it, how many are sent at once and for how long, and what is
// counted and logged when one is not sent. It does not know what a message says
// or how it travels.
package sending

import (
	"cmp"
	"fmt"
	"time"

	"golang.org/x/text/language"

	"github.com/matrix-herald/herald/internal/conf"
)

const (
	defaultMaxSending = 32
	maxMaxSending     = 1000
	defaultMaxWait    = 5 * time.Second
	defaultTimeout    = 20 * time.Second
	maxTimeout        = 50 * time.Second
)

// Config are the options that mails and text messages share. One that is absent
// has its default.
type Config struct {
	// Templates is a folder of templates that replace the built-in ones: see the
	// package threepid/templates for the names of its files.
	Templates string
	// DefaultLanguage is the BCP 47 tag of templates without one and the language
	// of people whose own there is no template in; default en.
	DefaultLanguage string

	// MaxSending is how many messages are sent at once, 1 to 1000; default 32.
	MaxSending int
	// MaxWait is how long a message waits for its turn before the client is told
	// to come back, 1ms to 5s; default 5s.
	MaxWait conf.Duration
	// Timeout is how long sending one message may take, 1ms to 50s; default 20s.
	Timeout conf.Duration
}

// WithDefaults returns c with its defaults in place.
func (c Config) WithDefaults() Config {
	c.DefaultLanguage = cmp.Or(c.DefaultLanguage, "en")
	c.MaxSending = cmp.Or(c.MaxSending, defaultMaxSending)
	c.MaxWait = cmp.Or(c.MaxWait, conf.Duration(defaultMaxWait))
	c.Timeout = cmp.Or(c.Timeout, conf.Duration(defaultTimeout))
	return c
}

// Validate adds every fault of c, which has its defaults, to p, under path.
func (c Config) Validate(path string, p *conf.Problems) {
	if _, err := language.Parse(c.DefaultLanguage); err != nil {
		p.Add(path+".default_language", c.DefaultLanguage, "must be a BCP 47 tag, such as en or pt-BR")
	}
	if c.MaxSending < 1 || c.MaxSending > maxMaxSending {
		p.Add(path+".max_sending", c.MaxSending, fmt.Sprintf("must be from 1 to %d", maxMaxSending))
	}
	// Waiting and sending together stay below the minute for which a request
	// holds its session.
	span := func(name string, d conf.Duration, most time.Duration) {
		if d.Std() < time.Millisecond || d.Std() > most {
			p.Add(path+name, d, fmt.Sprintf("must be from 1ms to %v", conf.Duration(most)))
		}
	}
	span(".max_wait", c.MaxWait, defaultMaxWait)
	span(".timeout", c.Timeout, maxTimeout)
}
