package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push/sygnal"
)

// importSygnal prints the configuration that takes the place of a Sygnal's, and
// on standard error what could not be carried over and what keeps the result
// from being loaded as it is.
func (p *program) importSygnal(args []string) error {
	set := flag.NewFlagSet("import-sygnal", flag.ContinueOnError)
	set.SetOutput(p.stderr)
	dir := set.String("dir", "", "Sygnal's working `directory`, where its relative paths begin; by default the current one")
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil || set.NArg() != 1:
		fmt.Fprintln(p.stderr, "usage: pushgw import-sygnal [-dir DIRECTORY] sygnal.yaml > pushgw.yaml")
		return cmdline.ErrUsage
	}
	data, err := os.ReadFile(set.Arg(0))
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	base, err := filepath.Abs(*dir)
	if err != nil {
		return fmt.Errorf("import: find the working directory: %w", err)
	}
	res, err := sygnal.Convert(data, base)
	if err != nil {
		return fmt.Errorf("import %s: %w", set.Arg(0), err)
	}
	for _, w := range res.Warnings {
		fmt.Fprintln(p.stderr, "warning:", w)
	}
	if err := checkImported(res.Config); err != nil {
		fmt.Fprintf(p.stderr, "\nThe result needs to be corrected before pushgw starts with it:\n%v\n", err)
	}
	_, err = p.stdout.Write(res.Config)
	return err
}

// checkImported finds what -check would find in a configuration, whatever the
// environment says.
func checkImported(data []byte) error {
	c := defaultConfig()
	loading := conf.Load(conf.LoadOptions{Name: "result", Data: data}, c)
	var p conf.Problems
	c.validate(&p)
	return errors.Join(loading, p.Err())
}
