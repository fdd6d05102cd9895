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
}

func defaultTrouble() TroubleConfig {
	t := push.DefaultTrouble()
	return TroubleConfig{MaxPause: conf.Duration(t.MaxPause)}
}

const maxMaxPause = time.Hour

func (c TroubleConfig) validate(path string, p *conf.Problems) {
	if d := c.MaxPause.Std(); d < time.Second || d > maxMaxPause {
		p.Add(path+".max_pause", c.MaxPause, "use a duration from 1s to 1h")
	}
}

func (c TroubleConfig) trouble() push.Trouble {
	return push.Trouble{MaxPause: c.MaxPause.Std()}
}
