package homeserver

import (
	"fmt"
	"testing"
	"time"
)

// Internal because filling the cache through requests would take thousands.
func TestTheCacheIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	c := newCache[int](maxCached)
	for i := range 2 * maxCached {
		c.put(fmt.Sprint(i), i, now.Add(time.Hour), now)
		c.get("0", now) // used all the time, so it stays
	}
	if c.Len() != maxCached {
		t.Errorf("%d entries, want %d", c.Len(), maxCached)
	}
	for key, want := range map[string]bool{"0": true, "1": false, fmt.Sprint(maxCached): false, fmt.Sprint(2*maxCached - 1): true} {
		if _, ok := c.get(key, now); ok != want {
			t.Errorf("entry %s: kept %v, want %v", key, ok, want)
		}
	}
}

func TestTheCacheDropsWhatHasExpired(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	c := newCache[int](2)
	c.put("a", 1, now.Add(time.Second), now)
	c.put("b", 1, now, now) // never kept
	if _, ok := c.get("b", now); ok || c.Len() != 1 {
		t.Errorf("an entry that is stale on arrival was kept")
	}
	if _, ok := c.get("a", now); !ok {
		t.Error("a fresh entry was not found")
	}
	if _, ok := c.get("a", now.Add(time.Second)); ok || c.Len() != 0 {
		t.Error("an expired entry was not dropped")
	}
}

func TestTheKeysOfAThousandServersAreRemembered(t *testing.T) {
	t.Parallel()
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	for i := range 2 * maxKeyServers {
		c.keys.put(fmt.Sprint(i), serverKeys{}, now.Add(time.Hour), now)
	}
	if n := c.keys.Len(); n != maxKeyServers {
		t.Errorf("the keys of %d servers, want %d", n, maxKeyServers)
	}
}
