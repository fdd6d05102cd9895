package main

import (
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/harness"
)

// BenchmarkRotation looks up 1,000 hashes at a time before, during and after a
// rotation of the pepper over a million bindings, by the command beside the
// running service; it ends after a minute, whether the rotation has or not. Its
// metrics, from medians: quiet-us before, busy-us meanwhile, and slowdown, the one
// by the other.
func BenchmarkRotation(b *testing.B) {
	const quietTurns, turnTime, most = 50, 100 * time.Millisecond, time.Minute
	storetest.EachBench(b, func(b *testing.B, newDatabase func(testing.TB) string) {
		a := newArena(b, newDatabase(b), bigDirectory)
		for range b.N {
			a.connect(b)
			lookups := &asker{questions: a.questions(b, 1000), ask: a.askService}
			lookups.turn(b, 10*turnTime)
			var quiet, busy []float64
			for range quietTurns {
				quiet = append(quiet, lookups.turn(b, turnTime))
			}
			ended, begin := startRotation(b, a.site), time.Now()
			for rotating := true; rotating && time.Since(begin) < most; {
				busy = append(busy, lookups.turn(b, turnTime))
				select {
				case err := <-ended:
					if err != nil {
						b.Fatal(err)
					}
					rotating = false
				default:
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(quiet), "quiet-us")
			b.ReportMetric(median(busy), "busy-us")
			b.ReportMetric(median(busy)/median(quiet), "slowdown")
		}
	})
}

// startRotation runs the command and returns how it ends.
func startRotation(b *testing.B, s *site) <-chan error {
	b.Helper()
	name := harness.Binary(b)
	command := exec.Command(name, "-config", s.config, "rotate-pepper")
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	var waiting sync.WaitGroup
	waiting.Go(func() { ended <- command.Wait() })
	b.Cleanup(func() {
		_ = command.Process.Kill()
		waiting.Wait()
	})
	return ended
}

// BenchmarkRates tells how many of each request the service answers a second,
// 16 at once, beside a relay and a homeserver that take no time to speak of.
func BenchmarkRates(b *testing.B) {
	const requests = 500
	storetest.EachBench(b, func(b *testing.B, newDatabase func(testing.TB) string) {
		for range b.N {
			s := newSite(b, newDatabase(b), "")
			n := s.start(b)
			tokens, sids := make([]string, requests), make([]string, requests)
			user := func(i int) string { return fmt.Sprintf("@user%d:%s", i, s.homeserver) }
			rate := func(name string, do func(i int) error) {
				b.Helper()
				begin := time.Now()
				errs := make([]error, requests)
				inParallel(requests, func(i int) bool {
					errs[i] = do(i)
					return errs[i] == nil
				})
				b.ReportMetric(requests/time.Since(begin).Seconds(), name+"/s")
				if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
					b.Fatal(errs[i])
				}
			}
			rate("register", func(i int) (err error) {
				tokens[i], err = n.register(b.Context(), s.homeserver, user(i))
				return err
			})
			rate("requestToken", func(i int) (err error) {
				sids[i], err = n.session(b.Context(), tokens[i], filledAddress(i))
				return err
			})
			mailed := s.mailedTokens(b)
			rate("submitToken", func(i int) error {
				return n.submit(b.Context(), tokens[i], sids[i], mailed[filledAddress(i)])
			})
			rate("bind", func(i int) error { return n.bind(b.Context(), tokens[i], sids[i], user(i)) })
			b.ReportMetric(0, "ns/op")
		}
	})
}
