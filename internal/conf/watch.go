package conf

import (
	"context"
	"crypto/sha256"
	"io"
	"maps"
	"time"
)

// digest identifies a file's content; the zero digest means that the file has
// not been read yet.
type digest [sha256.Size]byte

// Watch calls changed when the content of a file has changed and then stayed
// the same for one interval, so that a file being written is left alone. It
// runs, and calls changed, in the caller's goroutine and returns when ctx ends.
// The interval must be positive.
//
// files lists the paths to watch and is asked at each interval, because a
// reload may change the list; what a path holds when it first appears is not a
// change, unless there was no file. Files are read in full, because editors and
// Kubernetes' swapped symbolic links keep size and time as they like. A file
// that is missing or unreadable is a change only when it is back with other
// content.
func Watch(ctx context.Context, interval time.Duration, files func() []string, changed func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	reported := readAll(files(), nil)
	previous := maps.Clone(reported)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		current := readAll(files(), reported)
		for path := range current {
			if _, listed := reported[path]; !listed {
				reported[path] = current[path]
			}
		}
		maps.DeleteFunc(reported, func(path string, _ digest) bool { _, listed := current[path]; return !listed })
		if maps.Equal(current, previous) && !maps.Equal(current, reported) {
			reported = maps.Clone(current)
			changed()
		}
		previous = current
	}
}

// readAll returns the digest of each file, or the one it had if it cannot be
// read now.
func readAll(paths []string, before map[string]digest) map[string]digest {
	digests := make(map[string]digest, len(paths))
	for _, path := range paths {
		sum, err := read(path)
		if err != nil {
			sum = before[path]
		}
		digests[path] = sum
	}
	return digests
}

// WatchLoss calls lost once when a file could not be opened for an interval, with
// the error, which names it. Otherwise it is like [Watch].
func WatchLoss(ctx context.Context, interval time.Duration, files func() []string, lost func(err error)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	away := make(map[string]int)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, path := range files() {
			file, err := openRegular(path)
			if err == nil {
				_ = file.Close() // nothing was written
				delete(away, path)
			} else if away[path]++; away[path] == 2 {
				lost(err)
			}
		}
	}
}

func read(path string) (digest, error) {
	file, err := openRegular(path)
	if err != nil {
		return digest{}, err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return digest{}, err
	}
	return digest(hash.Sum(nil)), nil
}
