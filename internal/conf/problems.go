package conf

import (
	"errors"
	"fmt"
)

// Problems collects the faults of a configuration, so that an operator sees
// all of them at once. The zero value is ready for use; it is not safe for
// concurrent use.
type Problems struct {
	errs []error
}

// Add records one fault: the option's path ("http.listen"), the offending
// value and what to do about it. A nil value is left out, for faults such as a
// missing option; a Secret shows as [redacted].
func (p *Problems) Add(path string, value any, remedy string) {
	if value == nil {
		p.errs = append(p.errs, fmt.Errorf("%s: %s", path, remedy))
		return
	}
	p.errs = append(p.errs, fmt.Errorf("%s: value %q: %s", path, fmt.Sprint(value), remedy))
}

// Len returns the number of faults recorded.
func (p *Problems) Len() int { return len(p.errs) }

// Err returns nil when there are no faults, else one error that lists them in
// the order they were added, one per line. Like errors.Join's it unwraps to
// the single faults.
func (p *Problems) Err() error { return errors.Join(p.errs...) }
