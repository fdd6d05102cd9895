package homeserver

import (
	"container/list"
	"sync"
	"time"
)

// maxCached is the number of hosts whose .well-known answer is remembered.
const maxCached = 4096

// entry is what is known of a host's .well-known file.
type entry struct {
	delegated ServerName // zero: there is no valid file
	expires   time.Time
	answered  bool // an HTTP answer came, whatever it said
}

// cache keeps the most recently used entries.
type cache struct {
	max int

	mu      sync.Mutex
	order   *list.List // of *cached, the most recently used in front
	entries map[string]*list.Element
}

type cached struct {
	key string
	entry
}

func newCache(size int) *cache {
	return &cache{max: size, order: list.New(), entries: make(map[string]*list.Element)}
}

// get returns the entry of key unless it has expired.
func (c *cache) get(key string, now time.Time) (entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return entry{}, false
	}
	if found := value(e); now.Before(found.expires) {
		c.order.MoveToFront(e)
		return found.entry, true
	}
	c.drop(e)
	return entry{}, false
}

// put remembers found, in place of the least recently used entry when full.
func (c *cache) put(key string, found entry, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[key]; ok {
		c.drop(e)
	}
	if !now.Before(found.expires) {
		return
	}
	if c.order.Len() >= c.max {
		c.drop(c.order.Back())
	}
	c.entries[key] = c.order.PushFront(&cached{key: key, entry: found})
}

// dropUnanswered forgets the entry of key if no HTTP answer came.
func (c *cache) dropUnanswered(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[key]; ok && !value(e).answered {
		c.drop(e)
	}
}

func (c *cache) drop(e *list.Element) {
	c.order.Remove(e)
	delete(c.entries, value(e).key)
}

func value(e *list.Element) *cached {
	found, _ := e.Value.(*cached) // nothing else is ever put in
	return found
}
