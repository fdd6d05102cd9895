package conf

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// Problems collects the faults of a configuration, so that an operator sees
// all of them at once. The zero value is ready for use; it is not safe for
// concurrent use.
type Problems struct {
	errs []error
	// where says for the paths that [Problems.Load] has read where each was set: a
	// file's line, or an environment variable.
	where map[string]string
	// unread are the secrets whose file could not be read: what else is wrong with
	// them follows from that.
	unread map[string]bool
}

// Add records one fault: the option's path ("http.listen"), the offending
// value and what to do about it. A nil value is left out, for faults such as a
// missing option; a Secret shows as [redacted].
func (p *Problems) Add(path string, value any, remedy string) {
	if option, _, _ := strings.Cut(path, ": "); p.unread[option] {
		return
	}
	place := path
	if where := p.placeOf(path); where != "" {
		place = where + ": " + path
	}
	if value == nil {
		p.errs = append(p.errs, fmt.Errorf("%s: %s", place, remedy))
		return
	}
	p.errs = append(p.errs, fmt.Errorf("%s: value %q: %s", place, fmt.Sprint(value), remedy))
}

// OneOf records a fault unless value is one of those that are allowed.
func (p *Problems) OneOf(path string, value any, remedy string, allowed ...any) {
	if !slices.Contains(allowed, value) {
		p.Add(path, value, remedy)
	}
}

// KeyPair records a fault unless the files of cert_file and key_file below path, if
// any, are a certificate and its key.
func (p *Problems) KeyPair(path, certFile, keyFile string) {
	if certFile == "" && keyFile == "" {
		return
	}
	if certFile == "" || keyFile == "" {
		p.Add(path+".cert_file", nil, "set both cert_file and key_file, or neither")
		return
	}
	_, err := tls.LoadX509KeyPair(certFile, keyFile)
	option := ".cert_file"
	if lost, ok := errors.AsType[*fs.PathError](err); ok {
		if lost.Path != certFile {
			option = ".key_file"
		}
		err = lost.Err
	}
	if err != nil {
		p.Add(path+option, nil, err.Error()+": cert_file and key_file must be a certificate with its chain and its key in PEM form")
	}
}

// quotedName matches a name of a map in one of the two ways that paths show it.
var quotedName = regexp.MustCompile(`\.("[^"]*")`)

// placeOf returns where path was set, or else the section that it belongs to.
func (p *Problems) placeOf(path string) string {
	path, _, _ = strings.Cut(path, " and ") // two options that exclude each other
	path, _, _ = strings.Cut(path, ": ")    // a member of a file
	path = quotedName.ReplaceAllString(path, "[$1]")
	for path != "" {
		for _, option := range []string{path, path + fileSuffix} {
			if where := p.where[option]; where != "" {
				return where
			}
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return ""
}

// Len returns the number of faults recorded.
func (p *Problems) Len() int { return len(p.errs) }

// Err returns nil when there are no faults, else one error that lists them in
// the order they were added, one per line. Like errors.Join's it unwraps to
// the single faults.
func (p *Problems) Err() error { return errors.Join(p.errs...) }
