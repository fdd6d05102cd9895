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
)

// importSydent brings over what a Sydent knows, and prints what came of it
// without anybody's address. It makes the database if need be.
func (p *program) importSydent(ctx context.Context, f cmdline.Line, args []string) (err error) {
	set := flag.NewFlagSet("import-sydent", flag.ContinueOnError)
	set.SetOutput(p.stderr)
	path := set.String("db", "", "Sydent's database `file`, such as sydent.db")
	conf := set.String("conf", "", "Sydent's configuration `file`, such as sydent.conf")
	dryRun := set.Bool("dry-run", false, "change nothing: report what a first import would bring over")
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil || set.NArg() > 0 || *path == "" || *conf == "":
		fmt.Fprintln(p.stderr, "usage: identity -config FILE import-sydent -db sydent.db -conf sydent.conf [-dry-run]")
		return cmdline.ErrUsage
	}
	cfg, err := loadConfig(f.Config, p.environ, false)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(*conf)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	key, err := sydent.SigningKey(text, cfg.ServerName)
	if err != nil {
		return fmt.Errorf("import: %s: %w", *conf, err)
	}
	from, err := sydent.Open(ctx, *path)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	o := sydent.Options{Database: from, Key: key, Now: time.Now}
	var report sydent.Report
	if *dryRun {
		fmt.Fprintln(p.stdout, "Nothing is changed. A first import would bring over:")
		report, err = sydent.DryRun(ctx, o)
	} else {
		report, err = importInto(ctx, cfg, o)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(p.stdout, report)
	return err
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
