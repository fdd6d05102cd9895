package cmdline_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/matrix-herald/herald/internal/cmdline"
)

// Conformance (pushgw): `help`, `version`, `-h` of every command (also TestCommandLine)
func TestRun(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args   []string
		err    error // what carrying it out returns
		want   *cmdline.Line
		status int
		stderr string
	}{
		"nothing":            {nil, nil, &cmdline.Line{}, 0, ""},
		"all flags":          {[]string{"-config", "x.yaml", "-check", "-dev", "-version"}, nil, &cmdline.Line{Config: "x.yaml", Check: true, Dev: true, Version: true}, 0, ""},
		"a subcommand":       {[]string{"-config=x", "rotate", "-now", "y"}, nil, &cmdline.Line{Config: "x", Args: []string{"rotate", "-now", "y"}}, 0, ""},
		"help":               {[]string{"-h"}, nil, nil, 0, "name is a program.\n"},
		"what -dev does":     {[]string{"-help"}, nil, nil, 0, "for development"},
		"an unknown flag":    {[]string{"-typo"}, nil, nil, 2, "not defined: -typo"},
		"help in a word":     {[]string{"help"}, nil, nil, 0, "name is a program.\n"},
		"help on a command":  {[]string{"help", "rotate"}, cmdline.ErrUsage, &cmdline.Line{Args: []string{"rotate", "-help"}}, 0, ""},
		"a command's -h":     {[]string{"rotate", "-h"}, cmdline.ErrUsage, &cmdline.Line{Args: []string{"rotate", "-h"}}, 0, ""},
		"version in a word":  {[]string{"version"}, nil, &cmdline.Line{Version: true}, 0, ""},
		"an unknown command": {[]string{"typo", "-h"}, cmdline.ErrUnknown, &cmdline.Line{Args: []string{"typo", "-h"}}, 2, "name: unknown command \"typo\"\n\nname is a program.\n"},
		"a wrong argument":   {[]string{"rotate", "x"}, fmt.Errorf("rotate: %w", cmdline.ErrUsage), &cmdline.Line{Args: []string{"rotate", "x"}}, 2, ""},
		"what does not work": {[]string{}, errors.New("no luck"), &cmdline.Line{}, 1, "name: no luck\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stderr strings.Builder
			var got *cmdline.Line
			p := cmdline.Program{Name: "name", Usage: "name is a program.\n", Dev: "for development", Stderr: &stderr}
			status := p.Run(tc.args, func(l cmdline.Line) error { got = &l; return tc.err })
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" || status != tc.status {
				t.Errorf("status %d, want %d; line (-want +got):\n%s", status, tc.status, diff)
			}
			if !strings.Contains(stderr.String(), tc.stderr) || tc.stderr == "" && stderr.Len() > 0 {
				t.Errorf("stderr %q, want %q", stderr.String(), tc.stderr)
			}
		})
	}
}
