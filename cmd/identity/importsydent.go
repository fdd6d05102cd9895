package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/matrix-herald/herald/identity/sydent"
	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/telemetry"
)

const importUsage = `usage: identity -config FILE import-sydent -db sydent.db -conf sydent.conf [-dry-run]
       identity import-sydent -conf sydent.conf > identity.yaml
`

// importSydent brings over what a Sydent knows, and prints what came of it
// without anybody's address. It makes the database if need be. Without Sydent's
// database it prints the configuration that takes the place of Sydent's.
func (p *program) importSydent(ctx context.Context, f cmdline.Line, args []string) (err error) {
	set := flag.NewFlagSet("import-sydent", flag.ContinueOnError)
	set.SetOutput(p.stderr)
	path := set.String("db", "", "Sydent's database `file`, such as sydent.db; without it the new configuration is printed")
	settings := set.String("conf", "", "Sydent's configuration `file`, such as sydent.conf")
	dryRun := set.Bool("dry-run", false, "change nothing: report what a first import would bring over")
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil || set.NArg() > 0 || *settings == "" || *dryRun && *path == "":
		fmt.Fprint(p.stderr, importUsage)
		return cmdline.ErrUsage
	}
	text, err := os.ReadFile(*settings)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if *path == "" {
		return p.convertSydent(*settings, text)
	}
	cfg, err := loadConfig(f.Config, p.environ, false)
	if err != nil {
		return err
	}
	key, err := sydent.SigningKey(text, cfg.ServerName)
	if err != nil {
		return fmt.Errorf("import: %s: %w", *settings, err)
	}
	from, err := sydent.Open(ctx, *path)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	log, err := telemetry.NewLogger(p.stderr, cfg.Log)
	if err != nil {
		return err
	}
	o := sydent.Options{Database: from, Key: key, Now: time.Now, Progress: newProgress(p.stderr, log)}
	var report sydent.Report
	if *dryRun {
		fmt.Fprintln(p.stdout, "Nothing is changed. A first import would bring over:")
		report, err = sydent.DryRun(ctx, o)
	} else {
		report, err = importInto(ctx, cfg, o)
	}
	if err != nil {
		return stopped(ctx, err)
	}
	_, err = fmt.Fprint(p.stdout, report)
	return err
}

// convertSydent prints the configuration that takes the place of a sydent.conf, and
// on standard error what could not be carried over and what keeps the result from
// being loaded as it is.
func (p *program) convertSydent(name string, text []byte) error {
	made, err := sydent.Convert(text)
	if err != nil {
		return fmt.Errorf("import: %s: %w", name, err)
	}
	for _, w := range made.Warnings {
		fmt.Fprintln(p.stderr, "warning:", w)
	}
	if err := checkImported(made.Config); err != nil {
		fmt.Fprintf(p.stderr, "\nThe result needs to be corrected before identity starts with it:\n%v\n", err)
	}
	_, err = p.stdout.Write(made.Config)
	return err
}

// checkImported finds what -check would find in a configuration, whatever the
// environment says.
func checkImported(data []byte) error {
	c := defaultConfig()
	loading := conf.Load(conf.LoadOptions{Name: "result", Data: data}, c)
	var p conf.Problems
	c.resolve("")
	c.validate(&p)
	return errors.Join(loading, p.Err())
}

// importInto imports into the database of the configuration.
func importInto(ctx context.Context, cfg *Config, o sydent.Options) (r sydent.Report, err error) {
	db, err := openStore(ctx, cfg, nil)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	o.Store, o.Keys = db, db.keys
	return sydent.Import(ctx, o)
}
