package sydent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// bindings brings over the newest entry for each address. It remembers 32 bytes
// for each address that Sydent has.
func (i *importer) bindings(ctx context.Context) error {
	j := judge{now: i.now.UnixMilli(), seen: make(map[identity.Digest]bool)}
	bound, removed := Part{Name: "bindings"}, Part{Name: "removals"}
	var bindings, removals []identity.Binding
	flush := func() error {
		if i.store == nil {
			bound.Done += len(bindings)
			bindings, removals = bindings[:0], removals[:0]
			return nil
		}
		r, err := i.store.ImportBindings(ctx, bindings)
		if err != nil {
			return err
		}
		bound.imported(len(bindings), r)
		n, err := i.store.ImportRemovals(ctx, removals)
		removed.Done += n
		bindings, removals = bindings[:0], removals[:0]
		return err
	}
	for a, err := range i.db.associations(ctx, i.since) {
		if err != nil {
			return fmt.Errorf("read bindings: %w", err)
		}
		part, to := &bound, &bindings
		if a.removed {
			part, to = &removed, &removals
		}
		i.count(part)
		b, reason := j.judge(a)
		if reason != "" {
			part.skip(reason, a.example())
			continue
		}
		if *to = append(*to, b); len(*to) == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	err := flush()
	i.bound = j.seen
	i.report.Parts = append(i.report.Parts, bound, removed)
	return err
}

// judge decides about associations that come with the newest first.
type judge struct {
	now  int64                    // in milliseconds
	seen map[identity.Digest]bool // whether it is bound
}

// judge returns the binding to make, or to remove, or the reason for which the
// row is left out.
func (j *judge) judge(a association) (b identity.Binding, reason string) {
	id, err := threepid.ParseAddress(a.medium, a.address)
	switch {
	case errors.Is(err, threepid.ErrUnsupportedMedium):
		return b, reasonMedium
	case err != nil && a.medium == string(threepid.MediumMSISDN):
		return b, reasonPhone
	case err != nil:
		return b, reasonEmail
	case id.Medium == threepid.MediumEmail && foldedDomain(a.address):
		return b, reasonDomain
	case a.ts <= 0:
		return b, reasonTime
	case !a.removed && (a.notBefore > j.now || a.notAfter <= j.now):
		return b, reasonInvalid
	}
	address := threepid.LookupDigest(id.Address, id.Medium, "")
	if _, ok := j.seen[address]; ok {
		return b, reasonSuperseded
	}
	// What follows says whose the address is now, even if that is nobody.
	j.seen[address] = false
	b = identity.Binding{ID: id, TS: time.UnixMilli(a.ts)}
	if a.removed {
		return b, ""
	}
	if !validUserID(a.userID) {
		return b, reasonUserID
	}
	j.seen[address] = true
	b.UserID, b.OriginalSpelling = a.userID, given(id, a.address)
	return b, ""
}

// foldedDomain reports whether the domain of an address may have been another
// one before Sydent folded the whole address. Folding and IDNA disagree on ß and
// ς only, and no domain in ASCII comes of a domain beyond it that Sydent could
// have sent mail to.
func foldedDomain(address string) bool {
	_, domain, _ := strings.Cut(address, "@")
	return strings.ContainsFunc(domain, func(r rune) bool { return r >= utf8.RuneSelf }) &&
		(strings.Contains(domain, "ss") || strings.Contains(domain, "σ"))
}

// given returns the spelling of an address that clients may hash and that its
// canonical form does not tell, "" if there is none.
func given(id threepid.ID, address string) string {
	known, err := threepid.Spellings(string(id.Medium), id.Address)
	if err != nil {
		return ""
	}
	all, err := threepid.Spellings(string(id.Medium), address)
	if err != nil {
		return ""
	}
	for _, s := range all {
		if !slices.Contains(known, s) {
			return s
		}
	}
	return ""
}
