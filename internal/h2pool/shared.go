package h2pool

import "sync"

// Shared keeps for each key, a host with a credential, one Pool and what goes with
// it, for as long as somebody uses them: so all apps of a credential share its
// connections, across reloads, and the last one closes them. The zero value is
// ready for use.
type Shared[T Sharable] struct {
	mu     sync.Mutex
	closed bool
	uses   map[string]*Use[T]
	past   Stats // the counters of what is closed
}

// Sharable is a Pool, or one with something around it.
type Sharable interface {
	Stats() Stats
	Close()
}

// Use is what is shared under one key. It counts its users.
type Use[T Sharable] struct {
	Of T

	shared *Shared[T]
	key    string
	users  int
}

// Open returns what is shared under key with one user more, who has to Release it.
// What nobody uses yet is connected.
func (s *Shared[T]) Open(key string, connect func() (T, error)) (*Use[T], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	u := s.uses[key]
	if u == nil {
		of, err := connect()
		if err != nil {
			return nil, err
		}
		u = &Use[T]{Of: of, shared: s, key: key}
		if s.uses == nil {
			s.uses = map[string]*Use[T]{}
		}
		s.uses[key] = u
	}
	u.users++
	return u, nil
}

// Hold counts one user more, for one request. It fails once the last one has gone.
func (u *Use[T]) Hold() error {
	u.shared.mu.Lock()
	defer u.shared.mu.Unlock()
	if u.users == 0 {
		return &UnprocessedError{"request", ErrClosed}
	}
	u.users++
	return nil
}

// Release counts one user less. The last one closes what is shared.
func (u *Use[T]) Release() {
	u.shared.mu.Lock()
	u.users--
	last := u.users == 0 && u.shared.uses[u.key] == u
	if last {
		delete(u.shared.uses, u.key)
		stats := u.Of.Stats()
		u.shared.past = u.shared.past.plus(Stats{Dials: stats.Dials, DialFailures: stats.DialFailures}) // what never goes back
	}
	u.shared.mu.Unlock()
	if last {
		u.Of.Close()
	}
}

// Stats returns the numbers of all together.
func (s *Shared[T]) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := s.past
	for _, u := range s.uses {
		sum = sum.plus(u.Of.Stats())
	}
	return sum
}

// Close closes everything, whoever uses it.
func (s *Shared[T]) Close() {
	s.mu.Lock()
	uses := s.uses
	s.closed, s.uses = true, nil
	s.mu.Unlock()
	for _, u := range uses {
		u.Of.Close()
	}
}

func (s Stats) plus(t Stats) Stats {
	return Stats{
		Open: s.Open + t.Open, Draining: s.Draining + t.Draining, InFlight: s.InFlight + t.InFlight, Waiting: s.Waiting + t.Waiting,
		Dials: s.Dials + t.Dials, DialFailures: s.DialFailures + t.DialFailures,
	}
}
