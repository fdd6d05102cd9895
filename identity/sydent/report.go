package sydent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// maxExamples is how many rows a report names for each reason.
const maxExamples = 3

// Report says what came of an import. It holds no address, user ID, token or
// key; rows are named by their table, their ID there and a fingerprint.
type Report struct {
	Since time.Time // when the import before this one was begun; zero for the first one
	KeyID string    // of the signing key
	Parts []Part
}

// Part is what came of one kind of rows.
type Part struct {
	Name    string
	Read    int
	Done    int // brought over
	Known   int // that were there already, or something newer was
	Skipped []Skip
	Note    string // what becomes of rows that are neither; "" if there are none
}

// Skip says how many rows were left out for one reason, and names some.
type Skip struct {
	Reason   string
	Count    int
	Examples []string
}

// imported counts what came of rows that were handed to a store.
func (p *Part) imported(rows int, r identity.Imported) {
	p.Done += r.New
	p.Known += rows - r.New - r.Removed - r.Bound
	p.skipMany(reasonRemoved, r.Removed)
	p.skipMany(reasonBound, r.Bound)
}

// skipMany counts rows that are left out, of which none is named.
func (p *Part) skipMany(reason string, n int) {
	for range n {
		p.skip(reason, "")
	}
}

// skip counts a row that is left out. An example is "" where none is named.
func (p *Part) skip(reason, example string) {
	i := slices.IndexFunc(p.Skipped, func(s Skip) bool { return s.Reason == reason })
	if i < 0 {
		i = len(p.Skipped)
		p.Skipped = append(p.Skipped, Skip{Reason: reason})
	}
	s := &p.Skipped[i]
	s.Count++
	if example != "" && len(s.Examples) < maxExamples {
		s.Examples = append(s.Examples, example)
	}
}

// example names a row without showing what is in it. A medium is any text in
// Sydent's database, so only the known ones are shown.
func (a association) example() string {
	id := threepid.ID{Medium: threepid.Medium(a.medium), Address: a.address}
	if id.Medium != threepid.MediumEmail && id.Medium != threepid.MediumMSISDN {
		return fmt.Sprintf("%s %d", a.table, a.id)
	}
	return fmt.Sprintf("%s %d (%v)", a.table, a.id, id)
}

// String returns the report as lines for an operator.
func (r Report) String() string {
	var b strings.Builder
	if !r.Since.IsZero() {
		fmt.Fprintf(&b, "An import begun at %s came to its end before: only what is newer was looked at.\n",
			r.Since.UTC().Format(time.RFC3339))
	}
	fmt.Fprintf(&b, "%-24s %s\n", "signing key", r.KeyID)
	for _, p := range r.Parts {
		fmt.Fprintf(&b, "%-24s %d read", p.Name, p.Read)
		switch {
		case p.Note == "":
			fmt.Fprintf(&b, ", %d brought over", p.Done)
		case p.Read > 0:
			fmt.Fprintf(&b, ", %s", p.Note)
		}
		if p.Known > 0 {
			fmt.Fprintf(&b, ", %d there already", p.Known)
		}
		b.WriteByte('\n')
		for _, s := range p.Skipped {
			fmt.Fprintf(&b, "    %d skipped: %s\n", s.Count, s.Reason)
			for _, e := range s.Examples {
				fmt.Fprintf(&b, "        %s\n", e)
			}
		}
	}
	return b.String()
}
