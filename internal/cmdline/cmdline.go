// Package cmdline holds what the command lines of both programs share: flags,
// exit statuses and signals. The subcommands are each program's own.
package cmdline

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"syscall"
)

// ErrUsage ends a program with the status of a wrong command line. Whoever
// returns it has said on standard error what is wrong.
var ErrUsage = errors.New("wrong command line")

// ErrUnknown ends a program that knows no such subcommand.
var ErrUnknown = errors.New("unknown command")

// Line is a command line.
type Line struct {
	Config  string   // the name of the configuration file, "" for none
	Check   bool     // the configuration, and do nothing else
	Dev     bool     // development
	Version bool     // print it, and do nothing else
	Args    []string // a subcommand and what belongs to it; none to serve
}

func (l Line) serves() bool { return len(l.Args) == 0 && !l.Check && !l.Version }

// wantsHelp says whether a subcommand is asked how it is used.
func (l Line) wantsHelp() bool {
	return len(l.Args) == 2 && slices.Contains([]string{"-h", "-help", "--help"}, l.Args[1])
}

// Program is a program with a command line.
type Program struct {
	Name   string
	Usage  string // what stands before the flags
	Dev    string // what the flag -dev does
	Stderr io.Writer
}

// Run has do carry out the command line in args and returns the exit status: 0,
// 1 for an error, which it prints, or 2 for ErrUsage.
func (p Program) Run(args []string, do func(Line) error) int {
	l, err := p.parse(args)
	if err == nil {
		if l.serves() {
			signal.Ignore(syscall.SIGPIPE) // a service outlives whoever reads its log
		}
		err = do(l)
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp), errors.Is(err, ErrUsage) && l.wantsHelp():
		return 0
	case errors.Is(err, ErrUnknown):
		fmt.Fprintf(p.Stderr, "%s: unknown command %q\n\n%s", p.Name, l.Args[0], p.Usage)
		return 2
	case errors.Is(err, ErrUsage):
		return 2
	default:
		fmt.Fprintf(p.Stderr, "%s: %v\n", p.Name, err)
		return 1
	}
}

func (p Program) parse(args []string) (l Line, err error) {
	set := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	set.SetOutput(p.Stderr)
	set.Usage = func() {
		fmt.Fprint(p.Stderr, p.Usage)
		set.PrintDefaults()
	}
	set.StringVar(&l.Config, "config", "", "configuration `file`")
	set.BoolVar(&l.Check, "check", false, "check the configuration and exit")
	set.BoolVar(&l.Dev, "dev", false, p.Dev)
	set.BoolVar(&l.Version, "version", false, "print the version and exit")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return l, err
		}
		return l, ErrUsage
	}
	l.Args = set.Args()
	if len(l.Args) == 0 {
		return l, nil
	}
	switch l.Args[0] {
	case "version":
		l.Version, l.Args = true, nil
	case "help":
		if len(l.Args) == 1 {
			set.Usage()
			return l, flag.ErrHelp
		}
		l.Args = []string{l.Args[1], "-help"}
	}
	return l, nil
}
