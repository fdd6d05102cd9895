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
// content; lost is called once when it has been so for an interval.
func Watch(ctx context.Context, interval time.Duration, files func() []string, changed func(), lost func(path string, err error)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	w := watcher{lost: lost, away: make(map[string]int)}
	reported := w.readAll(files(), nil)
	previous := maps.Clone(reported)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		current := w.readAll(files(), reported)
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

// watcher knows how often in a row files could not be read.
type watcher struct {
	lost func(path string, err error)
	away map[string]int
}

// readAll returns the digest of each file, or the one it had if it cannot be
// read now.
func (w watcher) readAll(paths []string, before map[string]digest) map[string]digest {
	digests := make(map[string]digest, len(paths))
	for _, path := range paths {
		sum, err := read(path)
		if err != nil {
			sum = before[path]
			if w.away[path]++; w.away[path] == 2 {
				w.lost(path, err)
			}
		} else {
			delete(w.away, path)
		}
		digests[path] = sum
	}
	return digests
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
