package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/matrix-herald/herald/identity"
)

// copyEvery is how often a copy that is being made is looked at.
const copyEvery = 200 * time.Millisecond

// BackUp copies a SQLite database as it is at one moment to the file at path, which
// must not exist, while others use it. The copy keeps files in a table of its own,
// which the service does not read.
func (db *DB) BackUp(ctx context.Context, path string, files map[string][]byte, progress identity.Progress) (err error) {
	// SQLite would make it readable for everybody.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(fmt.Errorf("back up: %w", err), os.Remove(path))
		}
	}()
	var pages, size int
	if err := db.read.QueryRowContext(ctx, `SELECT page_count - freelist_count, page_size
		FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).Scan(&pages, &size); err != nil {
		return err
	}
	copied := make(chan error, 1)
	go func() {
		_, err := db.write.DB.ExecContext(ctx, `VACUUM INTO $1`, path) // takes its time
		copied <- unavailable(err)
	}()
	look := time.NewTicker(copyEvery)
	defer look.Stop()
	for done := false; !done; {
		select {
		case err := <-copied:
			if err != nil {
				return err
			}
			done = true
			progress("pages copied", pages, pages)
		case <-look.C:
			if info, err := f.Stat(); err == nil {
				progress("pages copied", min(int(info.Size())/size, pages), pages)
			}
		}
	}
	if err := keepFiles(ctx, path, files); err != nil {
		return err
	}
	return f.Sync()
}

// keepFiles puts files into a copy.
func keepFiles(ctx context.Context, path string, files map[string][]byte) (err error) {
	made, err := openCopy(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, made.Close()) }()
	if _, err := made.ExecContext(ctx, `CREATE TABLE backup_files (name TEXT PRIMARY KEY, content BLOB NOT NULL)`); err != nil {
		return err
	}
	for name, content := range files {
		if _, err := made.ExecContext(ctx, `INSERT INTO backup_files (name, content) VALUES ($1, $2)`, name, content); err != nil {
			return err
		}
	}
	return nil
}

// openCopy opens a copy that nobody else uses, in one file.
func openCopy(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", sqliteURL(path, "immediate", "journal_mode(DELETE)", "secure_delete(ON)", inMemory))
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

// Restore makes the database at path of a copy of BackUp's, and returns the files
// in it and the server name. There must be nothing at path. It checks the whole
// copy first, and if it fails it leaves nothing behind.
func Restore(ctx context.Context, copyPath, path string) (files map[string][]byte, serverName string, err error) {
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			return nil, "", fmt.Errorf("%s is there already: move it away first", name)
		}
	}
	part := path + ".part"
	if err := copyFile(part, copyPath); err != nil {
		return nil, "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	if files, serverName, err = takeFiles(ctx, part); err != nil {
		return nil, "", fmt.Errorf("%s: %w", copyPath, err)
	}
	return files, serverName, os.Rename(part, path)
}

func copyFile(to, from string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, source)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// takeFiles takes the files out of a copy.
func takeFiles(ctx context.Context, path string) (files map[string][]byte, serverName string, err error) {
	db, err := openCopy(path)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	found, err := collect(ctx, db, scanOne[string], `PRAGMA quick_check(1)`)
	if err != nil || strings.Join(found, "") != "ok" {
		return nil, "", errors.Join(errors.New("it is damaged, or not a backup"), err)
	}
	type file struct {
		name    string
		content []byte
	}
	kept, err := collect(ctx, db, func(r *sql.Rows) (f file, err error) {
		err = r.Scan(&f.name, &f.content)
		return f, err
	}, `SELECT name, content FROM backup_files`)
	if err != nil {
		return nil, "", fmt.Errorf("it is not a copy that `identity backup` made: %w", err)
	}
	files = make(map[string][]byte)
	for _, f := range kept {
		files[f.name] = f.content
	}
	if err := db.QueryRowContext(ctx, `SELECT server_name FROM service WHERE id = 1`).Scan(&serverName); err != nil {
		return nil, "", err
	}
	_, err = db.ExecContext(ctx, `DROP TABLE backup_files`)
	return files, serverName, err
}
