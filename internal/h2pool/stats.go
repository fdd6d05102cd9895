package h2pool

// Plus returns the numbers of two pools, or sets of pools, together.
func (s Stats) Plus(t Stats) Stats {
	return Stats{
		Open: s.Open + t.Open, Draining: s.Draining + t.Draining, InFlight: s.InFlight + t.InFlight, Waiting: s.Waiting + t.Waiting,
		Dials: s.Dials + t.Dials, DialFailures: s.DialFailures + t.DialFailures,
	}
}

// Counters returns only what never goes back, for a pool that is closed.
func (s Stats) Counters() Stats { return Stats{Dials: s.Dials, DialFailures: s.DialFailures} }
