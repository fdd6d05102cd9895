package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// DefaultPepperGrace is how long a pepper is honoured after its successor is
	// announced.
	DefaultPepperGrace = time.Hour
	// pepperAge is how old the peppers in memory may be. A pepper that was
	// replaced meanwhile is still honoured, and one that is not in memory is
	// looked for in the store, so answers do not depend on it. Where Run runs,
	// it keeps them younger than this.
	pepperAge = 2 * workInterval
	// drainDelay lies between the moment from which a pepper is refused and the
	// removal of its digests: longer than pepperAge, a lookup and the difference
	// of two replicas' clocks together.
	drainDelay = time.Minute
	// pepperLength is in characters of 5 bits.
	pepperLength = 32
	fillBatch    = 1000
	// fillPause lets other writers in between two batches. A batch that took long
	// is followed by restFactor times as long a pause: two processes that rotate
	// then leave lookups half of the database even where that is one core.
	fillPause  = 20 * time.Millisecond
	restFactor = 3
	// workInterval is how often the worker looks for what is due, a rotation
	// begun by another process included.
	workInterval = time.Second
)

// errPepper is the refusal of a pepper inside this package.
type errPepper struct{ current string }

func (e *errPepper) Error() string { return ErrBadPepper.Error() }

// badPepper makes a *BadPepperError of an errPepper.
func badPepper(err error, algorithm string) error {
	if e, ok := errors.AsType[*errPepper](err); ok {
		return &BadPepperError{Algorithm: algorithm, Pepper: e.current}
	}
	return err
}

// PeppersOptions configure Peppers. Store, Directory, Now, Log and Metrics are
// required.
type PeppersOptions struct {
	Store     PepperStore
	Directory DirectoryStore // counted for the metrics
	Interval  time.Duration  // between rotations; 0 is never
	Grace     time.Duration  // 0 is DefaultPepperGrace
	Batch     int            // bindings in one step of a rotation; 0 is 1000
	Now       func() time.Time
	Log       *slog.Logger
	Metrics   *Metrics
}

// Peppers announces the lookup pepper and replaces it without a lookup waiting
// or missing a binding: the digests under the next pepper are computed first,
// and those under the previous one kept for a while. All replicas may run it.
type Peppers struct {
	opts  PeppersOptions
	cache atomic.Pointer[pepperCache]
}

type pepperCache struct {
	peppers []Pepper
	loaded  time.Time
}

// OpenPeppers returns Peppers, and makes the first pepper where there is none.
func OpenPeppers(ctx context.Context, o PeppersOptions) (*Peppers, error) {
	if o.Store == nil || o.Directory == nil || o.Now == nil || o.Log == nil || o.Metrics == nil ||
		o.Interval < 0 || o.Grace < 0 || o.Batch < 0 {
		return nil, errors.New("identity: peppers: an option is missing or negative")
	}
	if o.Grace == 0 {
		o.Grace = DefaultPepperGrace
	}
	if o.Batch == 0 {
		o.Batch = fillBatch
	}
	p := &Peppers{opts: o}
	c, err := p.load(ctx)
	if err != nil {
		return nil, err
	}
	if _, ok := c.current(); !ok {
		// What c shows and not what is there by now: of several replicas that find
		// no pepper, one makes it.
		if err := p.replace(ctx, c, func(string, int, int) {}); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Current returns the pepper to announce.
func (p *Peppers) Current(ctx context.Context) (Pepper, error) {
	c := p.cache.Load()
	if p.opts.Now().Sub(c.loaded).Abs() >= pepperAge {
		var err error
		if c, err = p.load(ctx); err != nil {
			return Pepper{}, err
		}
	}
	current, ok := c.current()
	if !ok {
		return Pepper{}, errors.New("there is no current pepper")
	}
	return current, nil
}

// honoured returns the generation with the given value, or *errPepper. A value
// that is not in memory may have been announced by another replica just now.
func (p *Peppers) honoured(ctx context.Context, value string) (Pepper, error) {
	current, err := p.Current(ctx)
	if err != nil {
		return Pepper{}, err
	}
	now := p.opts.Now()
	if found, ok := p.cache.Load().honoured(value, now); ok {
		return found, nil
	}
	c, err := p.load(ctx)
	if err != nil {
		return Pepper{}, err
	}
	if found, ok := c.honoured(value, now); ok {
		return found, nil
	}
	if fresh, ok := c.current(); ok {
		current = fresh
	}
	return Pepper{}, &errPepper{current: current.Value}
}

func (p *Peppers) load(ctx context.Context) (*pepperCache, error) {
	loaded := p.opts.Now() // before the query: what it answers may be older
	peppers, err := p.opts.Store.Peppers(ctx)
	if err != nil {
		return nil, fmt.Errorf("load peppers: %w", err)
	}
	c := &pepperCache{peppers: peppers, loaded: loaded}
	p.cache.Store(c)
	return c, nil
}

func (c *pepperCache) current() (Pepper, bool) {
	for _, p := range c.peppers {
		if p.State == PepperCurrent {
			return p, true
		}
	}
	return Pepper{}, false
}

func (c *pepperCache) any(is func(Pepper) bool) bool { return slices.ContainsFunc(c.peppers, is) }

func (c *pepperCache) honoured(value string, now time.Time) (Pepper, bool) {
	for _, p := range c.peppers {
		if p.Value == value && (p.State == PepperCurrent || p.State == PepperPrevious && now.Before(p.Until)) {
			return p, true
		}
	}
	return Pepper{}, false
}

// Rotate replaces the pepper now, or completes the replacement that is under
// way, and returns when the new one is announced. It works beside running
// servers; they announce the new pepper within two seconds.
func (p *Peppers) Rotate(ctx context.Context, progress Progress) error {
	c, err := p.load(ctx)
	if err != nil {
		return err
	}
	return p.replace(ctx, c, progress)
}

// replace makes a new pepper current, unless c's current one has been replaced
// already.
func (p *Peppers) replace(ctx context.Context, c *pepperCache, progress Progress) error {
	if err := p.begin(ctx, c); err != nil {
		return err
	}
	total, err := p.opts.Directory.Bindings(ctx)
	if err != nil {
		return fmt.Errorf("number of bindings: %w", err)
	}
	for filled := p.opts.Batch; ; filled += p.opts.Batch {
		start := time.Now()
		done, err := p.fill(ctx)
		if done || err != nil {
			return err
		}
		progress("bindings hashed", min(filled, int(total)), int(total))
		if !wait(ctx, rest(start)) {
			return fmt.Errorf("rotate the pepper: %w", context.Cause(ctx))
		}
	}
}

// rest returns the pause after a step that began at start, at most workInterval.
func rest(start time.Time) time.Duration {
	return min(max(fillPause, restFactor*time.Since(start)), workInterval)
}

// begin begins a next generation in place of c's current one.
func (p *Peppers) begin(ctx context.Context, c *pepperCache) error {
	current, _ := c.current()
	value := (rand.Text() + rand.Text())[:pepperLength]
	if err := p.opts.Store.BeginPepper(ctx, value, current.ID); err != nil {
		return fmt.Errorf("begin a pepper: %w", err)
	}
	return nil
}

// fill does one step towards the next pepper and reports whether there is none.
func (p *Peppers) fill(ctx context.Context) (done bool, err error) {
	now := p.opts.Now()
	done, err = p.opts.Store.FillPepper(ctx, p.opts.Batch, now, now.Add(p.opts.Grace))
	if err != nil {
		return false, fmt.Errorf("compute digests of the next pepper: %w", err)
	}
	if done {
		if _, err := p.load(ctx); err != nil {
			return false, err
		}
	}
	return done, nil
}

// Work does one step of what is due, however many replicas do the same: it
// begins a rotation, computes a batch of digests under the next pepper, or
// removes a batch of those that nobody may use any more. It reports whether
// there is more to do at once.
func (p *Peppers) Work(ctx context.Context) (more bool, err error) {
	defer func() {
		if err != nil && ctx.Err() == nil {
			p.opts.Metrics.pepperErrors.Inc()
		}
	}()
	c, err := p.load(ctx)
	if err != nil {
		return false, err
	}
	now := p.opts.Now()
	if err := p.observe(ctx, now); err != nil { // first: what follows may fail for long
		return false, err
	}
	current, ok := c.current()
	if !ok || p.opts.Interval > 0 && now.Sub(current.Since) >= p.opts.Interval {
		if err := p.begin(ctx, c); err != nil {
			return false, err
		}
		if c, err = p.load(ctx); err != nil {
			return false, err
		}
	}
	filled, drained := true, true
	if c.any(func(g Pepper) bool { return g.State == PepperNext }) {
		if filled, err = p.fill(ctx); err != nil {
			return false, err
		}
	}
	before := now.Add(-drainDelay)
	if c.any(func(g Pepper) bool {
		return g.State == PepperRetired || g.State == PepperPrevious && !g.Until.After(before)
	}) {
		if drained, err = p.opts.Store.DrainPeppers(ctx, before, p.opts.Batch); err != nil {
			return false, fmt.Errorf("remove digests of old peppers: %w", err)
		}
	}
	return !filled || !drained, nil
}

// observe sets the gauges.
func (p *Peppers) observe(ctx context.Context, now time.Time) error {
	n, err := p.opts.Directory.Bindings(ctx)
	if err != nil {
		return fmt.Errorf("number of bindings: %w", err)
	}
	p.opts.Metrics.observe(n, p.cache.Load().peppers, now)
	return nil
}

// Run does what is due until ctx is done, and then returns nil. A step that
// fails is logged and tried again.
func (p *Peppers) Run(ctx context.Context) error {
	failing := false
	for {
		start := time.Now()
		more, err := p.Work(ctx)
		if err != nil && !failing && ctx.Err() == nil { // once, not every second of an outage
			p.opts.Log.ErrorContext(ctx, "pepper rotation pauses", "err", err)
		}
		failing = err != nil
		pause := workInterval
		if more {
			pause = rest(start)
		}
		if !wait(ctx, pause) {
			return nil
		}
	}
}
