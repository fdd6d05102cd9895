package push

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Each step is what happens, and who has a place by that or is told that there is
// none: "+a" asks for source a, "-a" gives one of its places back, "=3" is a reload, "5s"
// and "end" are the wait for a share and the end of all requests. A capital is a source
// whose pushkey never had an accepted push.
func TestInFlight(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		places int
		steps  [][2]string
	}{
		"a source that is alone may have everything": {2, [][2]string{{"+a", "a"}, {"+a", "a"}, {"+a", "a busy"}, {"-a", ""}, {"+a", "a"}}},
		"who has less than its share waits, and who has it does not": {4, [][2]string{
			{"+a", "a"}, {"+a", "a"}, {"+a", "a"}, {"+a", "a"}, {"+b", ""}, {"+b", ""}, {"+b", "b busy"}, {"+a", "a busy"}, {"-a", "b"}, {"-a", "b"}, {"-a", ""},
		}},
		"who waits longest is next": {2, [][2]string{{"+a", "a"}, {"+a", "a"}, {"+b", ""}, {"+c", ""}, {"-a", "b"}, {"-b", "c"}}},
		"the queue has an end":      {2, [][2]string{{"+a", "a"}, {"+a", "a"}, {"+b", ""}, {"+c", ""}, {"+d", "d busy"}}},
		"nobody makes room in time": {1, [][2]string{{"+a", "a"}, {"+b", ""}, {"5s", "b busy"}, {"-a", ""}, {"+c", "c"}}},
		"a request ends before":     {1, [][2]string{{"+a", "a"}, {"+b", ""}, {"end", "b busy"}, {"-a", ""}}},
		"made-up pushkeys have half, and share it": {4, [][2]string{
			{"+A", "A"}, {"+A", "A"}, {"+A", "A busy"}, {"+B", ""}, {"+a", "a"}, {"+a", "a"}, {"+b", ""}, {"-A", "B"}, {"-A", "b"}, {"-a", ""},
		}},
		"others leave made-up pushkeys none": {2, [][2]string{{"+a", "a"}, {"+a", "a"}, {"+A", ""}, {"+b", ""}, {"-a", "A"}, {"-A", "b"}}},
		"half of one place is one":           {1, [][2]string{{"+A", "A"}, {"+A", "A busy"}, {"-A", ""}, {"+a", "a"}}},
		"a reload makes room":                {1, [][2]string{{"+a", "a"}, {"+b", ""}, {"=2", "b"}, {"+b", "b busy"}}},
		"a reload leaves fewer than are taken": {3, [][2]string{
			{"+a", "a"}, {"+a", "a"}, {"+a", "a"}, {"=2", ""}, {"+b", ""}, {"-a", ""}, {"-a", "b"}, {"-a", ""}, {"+b", "b"}, {"+b", "b busy"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { playInFlight(t, tt.places, tt.steps) })
		})
	}
}

func playInFlight(t *testing.T, places int, steps [][2]string) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	defer end()
	f := newInFlight()
	f.resize(places)
	var mu sync.Mutex
	var heard []string
	for i, step := range steps {
		source := step[0][1:]
		accepted := strings.ToLower(source) == source
		switch step[0][0] {
		case '+':
			go func() {
				if !f.acquire(ctx, source, accepted) {
					source += " busy"
				}
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, source)
			}()
		case '-':
			f.release(source, accepted)
		case '=':
			f.resize(int(source[0] - '0'))
		case '5':
			<-time.After(shareWait)
		case 'e':
			end()
		}
		synctest.Wait()
		mu.Lock()
		slices.Sort(heard)
		if got := strings.Join(heard, ", "); got != step[1] {
			t.Errorf("step %d, %s: %q, want %q", i, step[0], got, step[1])
		}
		heard = nil
		mu.Unlock()
	}
}
