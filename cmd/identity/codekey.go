package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/matrix-herald/herald/threepid/validation"
)

// codeKeyFile is the name of the code key in the data folder.
const codeKeyFile = "code.key"

// codeKey returns the key under which codes are stored: the configured one, or
// the one in the data folder, which the first call makes.
func (c *Config) codeKey() ([]byte, error) {
	if c.CodeKey != "" {
		return []byte(c.CodeKey.Reveal()), nil
	}
	name := filepath.Join(c.DataDir, codeKeyFile)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeCodeKey(name); err != nil {
			return nil, fmt.Errorf("make the code key: %w", err)
		}
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, fmt.Errorf("read the code key: %w", err)
	}
	key := strings.TrimSpace(string(text))
	if len(key) < validation.MinCodeKey {
		return nil, fmt.Errorf("code key: %s holds fewer than %d characters; restore it from a backup, or remove it to begin all validation sessions anew",
			name, validation.MinCodeKey)
	}
	return []byte(key), nil
}

// makeCodeKey writes a new key to the file name, unless another process does so
// first. The file appears complete or not at all, also after a crash.
func makeCodeKey(name string) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(name), codeKeyFile+".*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.WriteString(rand.Text() + rand.Text() + "\n")
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err != nil {
		return err
	}
	// Unlike a rename, a link replaces nothing.
	if err := os.Link(tmp.Name(), name); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
