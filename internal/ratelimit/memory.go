package ratelimit

import (
	"container/heap"
	"slices"
	"sync"
	"time"
)

// shards is how many tables share the keys of rates, so that requests seldom
// wait for each other.
const shards = 64

// memory counts in the process's own memory. Its first table has the budgets of
// distinct members, the others share the rates.
type memory struct {
	now    func() time.Time
	tables [1 + shards]table
}

func newMemory(now func() time.Time, maxKeys, maxMembers int) *memory {
	m := &memory{now: now}
	for i := range m.tables {
		t := &m.tables[i]
		t.entries = make(map[fingerprint]*entry)
		t.maxKeys, t.maxMembers = max(maxKeys/shards, 1), maxMembers
	}
	m.tables[0].maxKeys = maxKeys
	return m
}

func tableOf(c *cell) int {
	if c.distinct {
		return 0
	}
	return 1 + int(c.id[0])%shards
}

// take takes from all cells or from none. It returns how long to wait for each,
// in microseconds; all are 0 if it took.
func (m *memory) take(cells []cell, request uint64) []int64 {
	defer m.lock(cells)()
	now := m.now().UnixMicro()
	waits := make([]int64, len(cells))
	refused := false
	for i := range cells {
		t := &m.tables[tableOf(&cells[i])]
		t.clean(now)
		waits[i] = t.wait(&cells[i], now)
		refused = refused || waits[i] > 0
	}
	if !refused {
		for i := range cells {
			m.tables[tableOf(&cells[i])].take(&cells[i], now, request)
		}
	}
	return waits
}

// give gives back what a request took.
func (m *memory) give(cells []cell, request uint64) {
	defer m.lock(cells)()
	now := m.now().UnixMicro()
	for i := range cells {
		m.tables[tableOf(&cells[i])].give(&cells[i], now, request)
	}
}

// forget returns how many of the keys there were.
func (m *memory) forget(ids []fingerprint) int {
	n := 0
	for _, id := range ids {
		for _, distinct := range []bool{false, true} {
			t := &m.tables[tableOf(&cell{id: id, distinct: distinct})]
			t.mu.Lock()
			if e := t.entries[id]; e != nil {
				t.remove(e)
				n++
			}
			t.mu.Unlock()
		}
	}
	return n
}

// keys returns how many there are.
func (m *memory) keys() int {
	n := 0
	for i := range m.tables {
		t := &m.tables[i]
		t.mu.Lock()
		n += len(t.entries)
		t.mu.Unlock()
	}
	return n
}

// lock locks the tables of the cells, always in the same order, and returns what
// unlocks them.
func (m *memory) lock(cells []cell) (unlock func()) {
	places := make([]int, len(cells))
	for i := range cells {
		places[i] = tableOf(&cells[i])
	}
	slices.Sort(places)
	places = slices.Compact(places)
	for _, p := range places {
		m.tables[p].mu.Lock()
	}
	return func() {
		for _, p := range places {
			m.tables[p].mu.Unlock()
		}
	}
}

// table holds keys that are in debt, in the order in which they will be free of
// it.
type table struct {
	mu         sync.Mutex
	entries    map[fingerprint]*entry
	order      queue
	members    int // of all entries
	maxKeys    int
	maxMembers int
}

// entry is a key in debt.
type entry struct {
	id   fingerprint
	full int64 // when all of the limit is there again, in Unix microseconds
	// members have the request that each was new to, as long as that request is
	// the only one, and else 0.
	members map[uint64]uint64
	place   int // in the queue
}

// clean removes some entries that are as if they were not there. It removes more
// than one request adds.
func (t *table) clean(now int64) {
	for range 2 {
		if len(t.order) == 0 || t.order[0].full > now {
			return
		}
		t.remove(t.order[0])
	}
}

func (t *table) remove(e *entry) {
	heap.Remove(&t.order, e.place)
	delete(t.entries, e.id)
	t.members -= len(e.members)
}

// current returns the key's entry, nil if it is in no debt.
func (t *table) current(c *cell, now int64) *entry {
	if e := t.entries[c.id]; e != nil && e.full > now {
		return e
	}
	return nil
}

// wait returns how long it is until the cell can be taken from, in microseconds.
func (t *table) wait(c *cell, now int64) int64 {
	e := t.current(c, now)
	switch {
	case c.distinct && tooMany(e, c.members, c.limit.Count-known(e)):
		return windowEnd(c.limit, now) - now
	case c.distinct || e == nil:
		return 0
	}
	return max(debt(e, c.limit, now)+c.limit.step()-c.limit.room(), 0)
}

// debt returns when the key will be out of debt, from now. Not later than a limit
// allows that was higher before.
func debt(e *entry, l Limit, now int64) int64 {
	if e == nil {
		return 0
	}
	return min(e.full-now, l.room())
}

// known returns how many members a key has had.
func known(e *entry) int {
	if e == nil {
		return 0
	}
	return len(e.members)
}

// tooMany reports whether there is no room for those of members that the key has
// not had. They are counted only where it matters.
func tooMany(e *entry, members []uint64, room int) bool {
	return len(members) > room && unknown(e, members) > max(room, 0)
}

// unknown returns how many of members the key has not had.
func unknown(e *entry, members []uint64) int {
	if e == nil {
		return len(members)
	}
	n := 0
	for _, m := range members {
		if _, ok := e.members[m]; !ok {
			n++
		}
	}
	return n
}

// windowEnd returns the end of the window that now lies in.
func windowEnd(l Limit, now int64) int64 {
	window := l.Per.Microseconds()
	return now - now%window + window
}

func (t *table) take(c *cell, now int64, request uint64) {
	e := t.current(c, now)
	if c.distinct && len(c.members) == 0 {
		return
	}
	next := &entry{id: c.id, full: now + debt(e, c.limit, now) + c.limit.step()}
	if c.distinct {
		next.full, next.members = windowEnd(c.limit, now), make(map[uint64]uint64)
		if e != nil {
			next.members = e.members
		}
	}
	if old := t.entries[c.id]; old != nil {
		t.remove(old)
	}
	for _, m := range c.members {
		if _, there := next.members[m]; there {
			next.members[m] = 0
		} else {
			next.members[m] = request
		}
	}
	t.put(next)
}

func (t *table) give(c *cell, now int64, request uint64) {
	e := t.current(c, now)
	if e == nil {
		return
	}
	t.remove(e)
	for _, m := range c.members {
		if by, there := e.members[m]; there && by == request {
			delete(e.members, m)
		}
	}
	if !c.distinct {
		e.full -= c.limit.step()
	}
	if e.full > now && (!c.distinct || len(e.members) > 0) {
		t.put(e)
	}
}

// put adds an entry, and removes others if there is no room for it.
func (t *table) put(e *entry) {
	t.makeRoom(len(e.members))
	t.entries[e.id] = e
	t.members += len(e.members)
	heap.Push(&t.order, e)
}

// makeRoom removes entries until one more with so many members fits: those that
// would soonest be free of debt anyway.
func (t *table) makeRoom(members int) {
	for len(t.order) > 0 && (len(t.order) >= t.maxKeys || t.members+members > t.maxMembers) {
		t.remove(t.order[0])
	}
}

// queue is a heap of entries: the first is out of debt the soonest or, of those
// with the same window, has the fewest members.
type queue []*entry

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	if q[i].full != q[j].full {
		return q[i].full < q[j].full
	}
	return len(q[i].members) < len(q[j].members)
}

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *queue) Push(x any) {
	e := x.(*entry) //nolint:forcetypeassert // what heap.Push was given
	e.place = len(*q)
	*q = append(*q, e)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return e
}
