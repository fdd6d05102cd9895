package telemetry

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/matrix-herald/herald/internal/conf"
)

// LogConfig says what is logged and how it looks.
type LogConfig struct {
	// Level is the lowest level that is logged: debug, info, warn or error.
	Level string `yaml:"level"`
	// Format is text or json.
	Format string `yaml:"format"`
}

// Validate adds the faults of c to p; path is where c stands in the file.
func (c LogConfig) Validate(path string, p *conf.Problems) {
	if _, ok := level(c.Level); !ok {
		p.Add(path+".level", c.Level, "write debug, info, warn or error")
	}
	switch c.Format {
	case "", "json", "text":
	default:
		p.Add(path+".format", c.Format, "write json or text")
	}
}

// NewLogger returns a logger that writes to w. It fails when c would not pass
// Validate.
func NewLogger(w io.Writer, c LogConfig) (*slog.Logger, error) {
	var p conf.Problems
	c.Validate("log", &p)
	if err := p.Err(); err != nil {
		return nil, fmt.Errorf("make the logger: %w", err)
	}
	least, _ := level(c.Level)
	o := &slog.HandlerOptions{Level: least}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, o)), nil
	}
	return slog.New(slog.NewJSONHandler(w, o)), nil
}

func level(name string) (slog.Level, bool) {
	switch name {
	case "debug":
		return slog.LevelDebug, true
	case "", "info":
		return slog.LevelInfo, true
	case "warn":
		return slog.LevelWarn, true
	case "error":
		return slog.LevelError, true
	default:
		return 0, false
	}
}
