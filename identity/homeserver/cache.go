package homeserver

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// cache keeps the most recently used values, each until it expires.
type cache[V any] struct{ *lru.Cache[string, kept[V]] }

type kept[V any] struct {
	value   V
	expires time.Time
}

func newCache[V any](size int) cache[V] {
	c, err := lru.New[string, kept[V]](size)
	if err != nil {
		panic(err) // the size is not a positive constant
	}
	return cache[V]{c}
}

// get returns the value of key, and the zero value once it has expired.
func (c cache[V]) get(key string, now time.Time) (value V, ok bool) {
	if k, _ := c.Get(key); now.Before(k.expires) {
		return k.value, true
	}
	c.Remove(key)
	return value, false
}

// put remembers value until expires.
func (c cache[V]) put(key string, value V, expires, now time.Time) {
	if c.Remove(key); now.Before(expires) {
		c.Add(key, kept[V]{value, expires})
	}
}
