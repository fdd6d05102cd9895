package main

import (
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
)

// TroubleConfig says what is done when a push service asks for patience or does
// not work.
type TroubleConfig struct {
	// MaxPause bounds how long a project or team leaves the push service alone
	// that asks for patience.
	MaxPause conf.Duration `yaml:"max_pause"`
	Outage   OutageConfig  `yaml:"outage"`
}

// OutageConfig says when a push service does not work.
type OutageConfig struct {
	// Window is the time of which an app's pushes are counted.
	Window conf.Duration `yaml:"window"`
	// Pushes is how many have to be counted to judge.
	Pushes int `yaml:"pushes"`
	// Share is the share of failed ones, in percent, from which on the push
	// service is left alone.
	Share int `yaml:"share"`
	// Wait is how long it is left alone before a few pushes try again.
	Wait conf.Duration `yaml:"wait"`
}

func defaultTrouble() TroubleConfig {
	t := push.DefaultTrouble()
	return TroubleConfig{
		MaxPause: conf.Duration(t.MaxPause),
		Outage:   OutageConfig{Window: conf.Duration(t.Window), Pushes: t.Pushes, Share: t.Share, Wait: conf.Duration(t.Wait)},
	}
}

// Beyond these a push service that works again would be noticed too late.
const (
	maxMaxPause     = time.Hour
	maxOutageWindow = 10 * time.Minute
	maxOutageWait   = 5 * time.Minute
)

func (c TroubleConfig) validate(path string, p *conf.Problems) {
	if d := c.MaxPause.Std(); d < time.Second || d > maxMaxPause {
		p.Add(path+".max_pause", c.MaxPause, "use a duration from 1s to 1h")
	}
	o := c.Outage
	path += ".outage"
	if d := o.Window.Std(); d < time.Second || d > maxOutageWindow {
		p.Add(path+".window", o.Window, "use a duration from 1s to 10m")
	}
	if o.Pushes < 1 || o.Pushes > 100 {
		p.Add(path+".pushes", o.Pushes, "use a number from 1 to 100")
	}
	if o.Share < 1 || o.Share > 100 {
		p.Add(path+".share", o.Share, "use a percentage from 1 to 100")
	}
	if d := o.Wait.Std(); d < 100*time.Millisecond || d > maxOutageWait {
		p.Add(path+".wait", o.Wait, "use a duration from 100ms to 5m")
	}
}

func (c TroubleConfig) trouble() push.Trouble {
	o := c.Outage
	return push.Trouble{MaxPause: c.MaxPause.Std(), Window: o.Window.Std(), Pushes: o.Pushes, Share: o.Share, Wait: o.Wait.Std()}
}
