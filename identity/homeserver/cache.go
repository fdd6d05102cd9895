package homeserver

import (
	"container/list"
	"sync"
	"time"
)

// cache keeps the most recently used values until they expire.
type cache[V any] struct {
	max int

	mu      sync.Mutex
	order   *list.List // of *cached[V], the most recently used in front
	entries map[string]*list.Element
}

type cached[V any] struct {
	key     string
	value   V
	expires time.Time
}

func newCache[V any](size int) *cache[V] {
	return &cache[V]{max: size, order: list.New(), entries: make(map[string]*list.Element)}
}

// get returns the value of key, and the zero value once it has expired.
func (c *cache[V]) get(key string, now time.Time) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return value, false
	}
	if found := content[V](e); now.Before(found.expires) {
		c.order.MoveToFront(e)
		return found.value, true
	}
	c.drop(e)
	return value, false
}

// put remembers value until expires, in place of the least recently used one
// when full.
func (c *cache[V]) put(key string, value V, expires, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[key]; ok {
		c.drop(e)
	}
	if !now.Before(expires) {
		return
	}
	if c.order.Len() >= c.max {
		c.drop(c.order.Back())
	}
	c.entries[key] = c.order.PushFront(&cached[V]{key: key, value: value, expires: expires})
}

// dropIf forgets the value of key if useless says so.
func (c *cache[V]) dropIf(key string, useless func(V) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[key]; ok && useless(content[V](e).value) {
		c.drop(e)
	}
}

func (c *cache[V]) drop(e *list.Element) {
	c.order.Remove(e)
	delete(c.entries, content[V](e).key)
}

func content[V any](e *list.Element) *cached[V] {
	found, _ := e.Value.(*cached[V]) // nothing else is ever put in
	return found
}
