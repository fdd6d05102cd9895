package webpush

import "sync"

// maxRemembered bounds each of a provider's memories: origins and pushkeys are of
// strangers' choice.
const maxRemembered = 4096

// bounded is a map that forgets something when it is full. The zero value is
// empty.
type bounded[V any] struct {
	mu      sync.Mutex
	entries map[string]V
}

func (b *bounded[V]) get(key string) (V, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, ok := b.entries[key]
	return v, ok
}

func (b *bounded[V]) put(key string, v V) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.entries == nil {
		b.entries = make(map[string]V)
	}
	for old := range b.entries {
		if len(b.entries) < maxRemembered {
			break
		}
		delete(b.entries, old)
	}
	b.entries[key] = v
}
