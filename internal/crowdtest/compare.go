package crowdtest

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Compare measures, for each of the manners, how long questions take while a
// crowd is there beside how long they took just before. It reports the medians
// in microseconds, calm and crowded, and the one by the other as ratio; the
// names of the questions come before theirs. ask sends one request of a
// well-behaved client and returns an error for any answer but the right one.
func Compare(b *testing.B, o Options, turn time.Duration, ask map[string]func() error) {
	b.Helper()
	for _, o.Manners = range []Manners{Silent, Idle, SlowHeaders, SlowBody, Deaf} {
		b.Run(strings.ReplaceAll(string(o.Manners), " ", "-"), func(b *testing.B) {
			for range b.N {
				calm := medians(b, turn, ask)
				crowd := Start(b, o)
				crowded := medians(b, turn, ask)
				report := crowd.Stop(b)
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(crowd.Count()), "clients")
				b.ReportMetric(float64(report.Open), "connected")
				for name := range ask {
					b.ReportMetric(calm[name], name+"-calm-us")
					b.ReportMetric(crowded[name], name+"-crowded-us")
					b.ReportMetric(crowded[name]/calm[name], name+"-ratio")
				}
			}
		})
	}
}

// medians asks each question for a turn, all of them in rotation.
func medians(b *testing.B, turn time.Duration, ask map[string]func() error) map[string]float64 {
	b.Helper()
	took := make(map[string][]time.Duration)
	for start := time.Now(); time.Since(start) < turn; {
		for name, question := range ask {
			begin := time.Now()
			if err := question(); err != nil {
				b.Fatalf("%s: %v", name, err)
			}
			took[name] = append(took[name], time.Since(begin))
		}
	}
	of := make(map[string]float64)
	for name, times := range took {
		slices.Sort(times)
		of[name] = float64(times[len(times)/2].Nanoseconds()) / 1000
	}
	return of
}
