package sqlstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

//go:embed migrations
var migrations embed.FS

// ErrNewer means that a later release has changed the database.
var ErrNewer = errors.New("database was changed by a later release; run that one")

// migrate brings the schema up to date.
func (db *DB) migrate(ctx context.Context) error {
	folder, err := fs.Sub(migrations, "migrations/"+db.dialect.migrations)
	if err != nil {
		return err
	}
	options, err := db.dialect.migrationLock()
	if err != nil {
		return err
	}
	options = append(options, goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	p, err := goose.NewProvider(db.dialect.goose, db.write.DB, folder, options...)
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	for {
		before, err := p.GetDBVersion(ctx)
		if err != nil {
			return fmt.Errorf("read the schema version: %w", err)
		}
		sources := p.ListSources()
		if latest := sources[len(sources)-1].Version; before > latest {
			return fmt.Errorf("%w: its schema has version %d, this release knows %d", ErrNewer, before, latest)
		}
		_, err = p.Up(ctx)
		if err == nil {
			return nil
		}
		// Without a lock several processes may start on one migration; one of them
		// completes it and the others' attempts are rolled back.
		after, e := p.GetDBVersion(ctx)
		if e != nil || after <= before {
			return fmt.Errorf("bring the schema up to date: %w", err)
		}
	}
}
