package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/matrix-herald/herald/identity/sqlstore"
	"github.com/matrix-herald/herald/internal/cmdline"
)

// kept are the files of the data folder that a copy of the database holds.
func (c *Config) kept() map[string]string {
	files := map[string]string{filepath.Base(c.keyFile()): c.keyFile()}
	if c.CodeKey == "" { // else it is a file that the operator keeps
		files[codeKeyFile] = filepath.Join(c.DataDir, codeKeyFile)
	}
	return files
}

// fileArgument returns the only argument of a command.
func (p *program) fileArgument(name string, args []string) (string, error) {
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		fmt.Fprintf(p.stderr, "usage: identity -config FILE %s FILE\n", name)
		return "", cmdline.ErrUsage
	}
	return args[0], nil
}

// backup copies the database with its keys, beside running servers.
func (p *program) backup(ctx context.Context, f cmdline.Line, args []string) error {
	to, err := p.fileArgument("backup", args)
	if err != nil {
		return err
	}
	return p.withStore(ctx, f, func(cfg *Config, db *store, env environment) error {
		if cfg.usesPostgres() {
			return errors.New("PostgreSQL makes its own copies, beside running servers: run\n" +
				"  pg_dump --format=custom --file=" + to + " '" + cfg.databaseAddress() + "'\n" +
				"and keep the file in secret_key_file apart from it. The copy holds the signing keys")
		}
		files := make(map[string][]byte)
		for name, path := range cfg.kept() {
			content, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // nothing was signed yet, or no code sent
			}
			if err != nil {
				return err
			}
			files[name] = content
		}
		if err := db.BackUp(ctx, to, files, newProgress(p.stderr, env.log)); err != nil {
			if ctx.Err() != nil {
				return errors.New("stopped: there is no copy; run the command again")
			}
			return err
		}
		// Whoever has it can sign in the service's name.
		_, err := fmt.Fprintf(p.stdout, "%s holds the database and its keys: keep it secret. `identity restore` puts it back.\n", to)
		return err
	})
}

// databaseAddress is the URL of the database without the password.
func (c *Config) databaseAddress() string {
	u, err := url.Parse(c.Database.URL.Reveal())
	if err != nil {
		return "postgres://…"
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	u.RawQuery = "" // it may hold one, too
	return u.String()
}

// restore makes the data folder from a copy of backup's. Nothing is replaced.
func (p *program) restore(ctx context.Context, f cmdline.Line, args []string) error {
	from, err := p.fileArgument("restore", args)
	if err != nil {
		return err
	}
	cfg, err := loadConfig(f.Config, p.environ, false)
	if err != nil {
		return err
	}
	if cfg.usesPostgres() {
		return errors.New("PostgreSQL puts back its own copies: stop every server, make an empty database, and run\n" +
			"  pg_restore --no-owner --dbname='" + cfg.databaseAddress() + "' " + from)
	}
	for _, path := range cfg.kept() {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("restore: %s is there already: stop the server, and move its data away first", path)
		}
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	if err := p.putBack(ctx, cfg, from); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	db, err := openStore(ctx, cfg, nil)
	if err != nil {
		return err
	}
	bindings, err := db.Bindings(ctx)
	if err == nil {
		_, err = db.keys.Keys(ctx)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%d addresses are bound. The server can be started; what happened since the copy was made is lost.\n", bindings)
	return err
}

// putBack makes the database, and then the files that belong to it.
func (p *program) putBack(ctx context.Context, cfg *Config, from string) error {
	files, name, err := sqlstore.Restore(ctx, from, cfg.Database.Path)
	if err != nil {
		return err
	}
	if name != cfg.ServerName {
		return errors.Join(fmt.Errorf("%s is of %q, and server_name is %q", from, name, cfg.ServerName), os.Remove(cfg.Database.Path))
	}
	for name, path := range cfg.kept() {
		if content, ok := files[name]; ok {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}
