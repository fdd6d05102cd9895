package sydent

import (
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/signing"
)

const (
	// batch is how many rows are written in one transaction.
	batch = 1000
	// overlap is by how much a later import looks back before the one before it:
	// Sydent may have set the time of a row before it wrote the row.
	overlap = time.Minute
)

// Store is where an import goes. What it adds it adds in one transaction for
// each call, and it leaves alone what is there already and what was removed here.
type Store interface {
	identity.PepperStore
	// LastImport returns when the last import that came to its end was begun, the
	// zero time if none has.
	LastImport(ctx context.Context) (begun time.Time, err error)
	// FinishImport notes that an import has come to its end.
	FinishImport(ctx context.Context, begun time.Time) error
	// ImportBindings makes bindings, each of another identifier, unless there is
	// one that is as new.
	ImportBindings(ctx context.Context, bindings []identity.Binding) (identity.Imported, error)
	// ImportRemovals removes the bindings of identifiers that are not newer than
	// TS, whoever's they are. It returns how many there were.
	ImportRemovals(ctx context.Context, removals []identity.Binding) (removed int, err error)
	// ImportTokens adds access tokens of users, used at now.
	ImportTokens(ctx context.Context, users map[identity.Digest]string, now time.Time) (identity.Imported, error)
	// ImportTerms adds the URLs that users accepted at now.
	ImportTerms(ctx context.Context, users map[string][]string, now time.Time) (identity.Imported, error)
	// ImportInvites adds invites of addresses that nobody has bound.
	ImportInvites(ctx context.Context, invites []identity.Invite) (identity.Imported, error)
	// ImportKeys adds keys of invites.
	ImportKeys(ctx context.Context, keys []identity.InviteKey) (identity.Imported, error)
}

// Options configure Import. All fields are required.
type Options struct {
	Database *Database
	Key      signing.Key // Sydent's
	Store    Store
	Keys     identity.KeyStore
	Now      func() time.Time
	Progress identity.Progress
}

// Import brings over everything, and at a later time what is new since: bindings
// that were made or removed, and new accounts. What was removed from the service
// in between stays removed. All of it is read before anything is written, so that
// a database that cannot be read changes nothing. An import that was interrupted
// goes on when it is started again; until one comes to its end the service should
// not run.
//
// It returns identity.ErrConflict, before anything is changed, if the service has
// another key under the ID of Sydent's.
func Import(ctx context.Context, o Options) (Report, error) {
	i := importer{db: o.Database, store: o.Store, now: o.Now(), progress: o.Progress}
	err := i.everything(ctx, o)
	if err == nil {
		err = o.Store.FinishImport(ctx, i.now)
	}
	if err != nil {
		return Report{}, fmt.Errorf("import from Sydent: %w", explain(err))
	}
	return i.report, nil
}

// DryRun reports what a first import into an empty store would bring over. Of
// the options it reads Database, Key, Now and Progress.
func DryRun(ctx context.Context, o Options) (Report, error) {
	i := importer{db: o.Database, now: o.Now(), progress: o.Progress}
	i.report.KeyID = o.Key.ID()
	err := i.pepper(ctx, func(string) (bool, error) { return true, nil })
	if err == nil {
		err = i.many(ctx, "rows read")
	}
	if err != nil {
		return Report{}, fmt.Errorf("import from Sydent: %w", explain(err))
	}
	return i.report, nil
}

// importer carries one import through its steps.
type importer struct {
	db     *Database
	store  Store // nil for a trial
	now    time.Time
	since  time.Time // rows from before are not looked at
	report Report
	// bound are the addresses that a trial would bind, as nobody is invited to those.
	bound map[identity.Digest]bool

	progress   identity.Progress
	doing      string // for progress
	read, size int    // rows
}

func (i *importer) everything(ctx context.Context, o Options) error {
	i.report.KeyID = o.Key.ID()
	last, err := o.Store.LastImport(ctx)
	if err != nil {
		return err
	}
	if i.report.Since = last; !last.IsZero() {
		i.since = last.Add(-overlap)
	}
	trial := importer{db: i.db, now: i.now, since: i.since, progress: i.progress}
	if err := trial.many(ctx, "rows checked"); err != nil {
		return err
	}
	if last.IsZero() {
		// The key first: with a wrong one nothing else is brought over.
		if err := activate(ctx, o.Keys, o.Key); err != nil {
			return err
		}
		err = i.pepper(ctx, func(value string) (bool, error) { return announce(ctx, o.Store, value, i.now) })
	} else { // key and pepper may have been replaced on purpose since
		err = i.pepper(ctx, func(string) (bool, error) { return false, nil })
	}
	if err != nil {
		return err
	}
	return i.many(ctx, "rows imported")
}

// count counts a row that was read.
func (i *importer) count(p *Part) {
	p.Read++
	if i.read++; i.read%batch == 0 {
		i.progress(i.doing, i.read, max(i.size, i.read))
	}
}

// pepper hands the lookup pepper, if there is one, to put, which reports whether
// it is new.
func (i *importer) pepper(ctx context.Context, put func(value string) (bool, error)) error {
	value, err := i.db.pepper(ctx)
	if err != nil {
		return fmt.Errorf("read the lookup pepper: %w", err)
	}
	part := Part{Name: "lookup pepper"}
	switch {
	case value == "":
	case !storable(value):
		part.Read = 1
		part.skip(reasonText, "")
	default:
		part.Read = 1
		done, err := put(value)
		if err != nil {
			return err
		}
		if done {
			part.Done = 1
		} else {
			part.Known = 1
		}
	}
	i.report.Parts = append(i.report.Parts, part)
	return nil
}

// many brings over what there are many of, and counts what is left.
func (i *importer) many(ctx context.Context, doing string) (err error) {
	if i.size, err = i.db.size(ctx); err != nil {
		return fmt.Errorf("count rows: %w", err)
	}
	i.doing = doing
	for _, step := range []func(context.Context) error{i.bindings, i.tokens, i.terms, i.invites, i.inviteKeys} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	parts, err := i.db.leftovers(ctx)
	if err != nil {
		return fmt.Errorf("count what is left: %w", err)
	}
	i.report.Parts = append(i.report.Parts, parts...)
	return nil
}

// bring hands the rows of a part to the store, in batches, as take makes them of
// Sydent's. Those that take has a reason against are left out. A trial has no store
// and takes all for new.
func bring[R, T any](ctx context.Context, i *importer, name string, rows iter.Seq2[R, error],
	take func(R) (row T, reason, example string), put func(context.Context, []T) (identity.Imported, error),
) error {
	part := Part{Name: name}
	var taken []T
	flush := func() (err error) {
		r := identity.Imported{New: len(taken)}
		if i.store != nil {
			r, err = put(ctx, taken)
		}
		part.imported(len(taken), r)
		taken = taken[:0]
		return err
	}
	for raw, err := range rows {
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		i.count(&part)
		row, reason, example := take(raw)
		if reason != "" {
			part.skip(reason, example)
			continue
		}
		if taken = append(taken, row); len(taken) == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	err := flush()
	i.report.Parts = append(i.report.Parts, part)
	return err
}

func (i *importer) tokens(ctx context.Context) error {
	return bring(ctx, i, "access tokens", i.db.tokens(ctx, i.since), func(t token) (_ token, reason, example string) {
		switch {
		case !t.account:
			reason = reasonAccount
		case !validUserID(t.userID):
			reason = reasonUserID
		case t.token == "":
			reason = reasonText
		}
		return t, reason, ""
	}, func(ctx context.Context, tokens []token) (identity.Imported, error) {
		users := make(map[identity.Digest]string, len(tokens))
		for _, t := range tokens {
			users[sha256.Sum256([]byte(t.token))] = t.userID
		}
		return i.store.ImportTokens(ctx, users, i.now)
	})
}

func (i *importer) terms(ctx context.Context) error {
	return bring(ctx, i, "accepted terms", i.db.acceptances(ctx, i.since), func(a acceptance) (_ acceptance, reason, example string) {
		switch {
		case !validUserID(a.userID):
			reason = reasonUserID
		case !storable(a.url):
			reason = reasonText
		}
		return a, reason, ""
	}, func(ctx context.Context, all []acceptance) (identity.Imported, error) {
		users := make(map[string][]string)
		for _, a := range all {
			users[a.userID] = append(users[a.userID], a.url)
		}
		return i.store.ImportTerms(ctx, users, i.now)
	})
}
