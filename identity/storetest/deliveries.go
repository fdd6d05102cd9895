package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
)

func deliveries() map[string]func(*testing.T, Store) {
	return map[string]func(*testing.T, Store){
		"a binding is told with each invite it took":             testTakeInvites,
		"a binding without invites is told once":                 testNothingTaken,
		"an invite that has expired is not taken":                testTakeExpired,
		"an invite is told to the server of the first who binds": testTakenOnce,
		"the same user binding again loses nothing":              testRebindSame,
		"a delivery that was postponed comes back":               testPostpone,
		"a delivery whose maker died comes back":                 testLease,
		"a delivery that was made does not come back":            testDelivered,
		"a delivery that failed does not come back":              testFailed,
		"whoever lost a claim cannot end the delivery":           testLostClaim,
		"a homeserver is told one thing, and several if it took": testSeveralIfItTook,
		"no delivery is made after its time":                     testUntil,
		"eight replicas share deliveries without a double":       testClaimRace,
		"cancelling, sweeping and telling at once do not block":  testDeliveryDeadlock,
	}
}

// on returns the user of a homeserver who binds local@example.com.
func on(server, local string) identity.Binding {
	b := binding(1, local)
	b.UserID = "@user:" + server
	return b
}

// told is a delivery in short: "user address token".
func told(deliveries []identity.Delivery) []string {
	var all []string
	for _, d := range deliveries {
		s := d.Binding.UserID + " " + d.Binding.ID.Address
		if d.Invite != nil {
			s += " " + d.Invite.Token
		}
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

// drain makes all deliveries that are due and returns them in short.
func drain(t *testing.T, s Store, now time.Time) []string {
	t.Helper()
	var all []identity.Delivery
	for i := 0; ; i++ {
		due := claim(t, s, fmt.Sprint("drain", now.UnixMilli(), "-", i), now, 100)
		if len(due) == 0 {
			return told(all)
		}
		results := make([]identity.DeliveryResult, len(due))
		for i, d := range due {
			results[i] = delivered(d)
		}
		settle(t, s, now, results...)
		all = append(all, due...)
	}
}

// invited adds invites of local@example.com.
func invited(t *testing.T, s Store, local string, n int) []identity.Invite {
	t.Helper()
	all := make([]identity.Invite, n)
	for i := range all {
		all[i] = invite(t, i+1, local)
		ok(t, s.AddInvite(t.Context(), all[i]))
	}
	return all
}

func testTakeInvites(t *testing.T, s Store) {
	ctx := t.Context()
	all := invited(t, s, "a", 2)
	other := invited(t, s, "b", 1)
	b := on("example.net", "a")
	b.TS = b.TS.Add(time.Hour)
	ok(t, s.Bind(ctx, b))
	var got []identity.Delivery
	for i := range 2 {
		due := claim(t, s, fmt.Sprint("c", i), b.TS, 10)
		if len(due) != 1 {
			t.Fatalf("%d deliveries at once to one homeserver", len(due))
		}
		d := due[0]
		if d.Claim != fmt.Sprint("c", i) || d.Attempt != 1 || d.Binding.ID != b.ID || d.Binding.UserID != b.UserID ||
			!d.Binding.TS.Equal(b.TS) || !d.Until.Equal(all[0].Expires) || d.Invite == nil {
			t.Fatalf("got %+v", d)
		}
		got = append(got, d)
		settle(t, s, b.TS, delivered(d))
	}
	for i, d := range got {
		if diff := cmp.Diff(all[i].Token+all[i].Sender+string(all[i].Ephemeral), d.Invite.Token+d.Invite.Sender+string(d.Invite.Ephemeral)); diff != "" {
			t.Errorf("invite %d: %s", i, diff)
		}
	}
	if got := drain(t, s, b.TS); len(got) != 0 {
		t.Errorf("told as well: %v", got)
	}
	if !liveAt(t, s, other[0], b.TS) {
		t.Error("the invite of another address is gone")
	}
}

func testNothingTaken(t *testing.T, s Store) {
	b := on("example.net", "a")
	for range 3 { // while the homeserver is away
		ok(t, s.Bind(t.Context(), b))
	}
	want := []string{"@user:example.net a@example.com"}
	if diff := cmp.Diff(want, drain(t, s, begin())); diff != "" {
		t.Error(diff)
	}
	// Binding again is told again.
	ok(t, s.Bind(t.Context(), b))
	if diff := cmp.Diff(want, drain(t, s, begin())); diff != "" {
		t.Error(diff)
	}
}

func testTakeExpired(t *testing.T, s Store) {
	invited(t, s, "a", 1)
	b := on("example.net", "a")
	b.TS = begin().Add(week)
	ok(t, s.Bind(t.Context(), b))
	if diff := cmp.Diff([]string{"@user:example.net a@example.com"}, drain(t, s, b.TS)); diff != "" {
		t.Error(diff)
	}
}

// testTakenOnce is about privacy as well: what one user bound is not told to the
// homeserver of the next, nor does the next get their invites.
func testTakenOnce(t *testing.T, s Store) {
	ctx := t.Context()
	for _, c := range []struct {
		name  string
		leave func(b identity.Binding)
	}{
		{"unbound", func(b identity.Binding) { must(s.Unbind(ctx, b.ID, b.UserID, by()))(t) }},
		{"replaced", func(identity.Binding) {}},
	} {
		i := invited(t, s, c.name, 1)[0]
		first, second := on("first.example", c.name), on("second.example", c.name)
		ok(t, s.Bind(ctx, first))
		c.leave(first)
		ok(t, s.Bind(ctx, second))
		want := []string{"@user:second.example " + c.name + "@example.com"}
		if diff := cmp.Diff(want, drain(t, s, begin())); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if !liveAt(t, s, i, begin()) {
			t.Errorf("%s: the invite cannot be accepted by its mail any more", c.name)
		}
	}
}

func testRebindSame(t *testing.T, s Store) {
	ctx := t.Context()
	i := invited(t, s, "a", 1)[0]
	b := on("example.net", "a")
	ok(t, s.Bind(ctx, b))
	ok(t, s.Bind(ctx, b))
	want := []string{"@user:example.net a@example.com", "@user:example.net a@example.com " + i.Token}
	if diff := cmp.Diff(want, drain(t, s, begin())); diff != "" {
		t.Error(diff)
	}
}

func testPostpone(t *testing.T, s Store) {
	ctx := t.Context()
	ok(t, s.Bind(ctx, on("example.net", "a")))
	d := claim(t, s, "c1", begin(), 10)[0]
	later := begin().Add(time.Hour)
	settle(t, s, begin(), postponed(d, later))
	if got := claim(t, s, "c2", later.Add(-time.Millisecond), 10); len(got) != 0 {
		t.Errorf("due too early: %v", got)
	}
	got := claim(t, s, "c3", later, 10)
	if len(got) != 1 || got[0].ID != d.ID || got[0].Attempt != 2 {
		t.Errorf("got %+v", got)
	}
}

func testLease(t *testing.T, s Store) {
	ok(t, s.Bind(t.Context(), on("example.net", "a")))
	d := claim(t, s, "c1", begin(), 10)[0]
	if got := claim(t, s, "c2", begin().Add(time.Minute-time.Millisecond), 10); len(got) != 0 {
		t.Errorf("claimed twice: %v", got)
	}
	if got := claim(t, s, "c3", begin().Add(time.Minute), 10); len(got) != 1 || got[0].ID != d.ID {
		t.Errorf("after the lease: %+v", got)
	}
}

func testDelivered(t *testing.T, s Store) {
	ctx := t.Context()
	i := invited(t, s, "a", 1)[0]
	ok(t, s.Bind(ctx, on("example.net", "a")))
	d := claim(t, s, "c1", begin(), 10)[0]
	claim(t, s, "c2", begin().Add(time.Minute), 10)
	// The first maker is late, but the homeserver has been told.
	settle(t, s, begin().Add(time.Minute), delivered(d))
	settle(t, s, begin().Add(2*time.Minute), delivered(d))
	if got := drain(t, s, begin().Add(48*time.Hour)); len(got) != 0 {
		t.Errorf("told again: %v", got)
	}
	if liveAt(t, s, i, begin().Add(time.Minute+used)) {
		t.Error("used later than when the homeserver was first told")
	}
}

func testFailed(t *testing.T, s Store) {
	ctx := t.Context()
	i := invited(t, s, "a", 1)[0]
	ok(t, s.Bind(ctx, on("example.net", "a")))
	ok(t, s.Bind(ctx, on("example.com", "b")))
	for _, name := range []string{"c1", "c2"} {
		settle(t, s, begin(), refused(claim(t, s, name, begin(), 10)[0]))
	}
	if got := drain(t, s, begin().Add(time.Hour)); len(got) != 0 {
		t.Errorf("told again: %v", got)
	}
	if !liveAt(t, s, i, begin().Add(week-time.Millisecond)) {
		t.Error("an invite that was refused cannot be accepted by its mail")
	}
}

func testLostClaim(t *testing.T, s Store) {
	ctx := t.Context()
	i := invited(t, s, "a", 1)[0]
	ok(t, s.Bind(ctx, on("example.net", "a")))
	late := claim(t, s, "c1", begin(), 10)[0]
	now := begin().Add(time.Minute)
	claim(t, s, "c2", now, 10)
	settle(t, s, now, postponed(late, begin()))
	settle(t, s, now, refused(late))
	if got := claim(t, s, "c3", now, 10); len(got) != 0 {
		t.Errorf("the second claim was lost: %v", got)
	}
	if r := must(s.Invites(ctx, 0, 10))(t); len(r) != 1 || r[0].State != identity.InviteDelivering || r[0].Token != i.Token {
		t.Errorf("got %+v", r)
	}
}

func testSeveralIfItTook(t *testing.T, s Store) {
	ctx := t.Context()
	for n := range 9 {
		ok(t, s.Bind(ctx, on("first.example", fmt.Sprint("first", n))))
	}
	later := on("second.example", "second")
	later.TS = later.TS.Add(time.Second)
	ok(t, s.Bind(ctx, later))
	now := later.TS
	got := claim(t, s, "c1", now, 3)
	if diff := cmp.Diff([]string{"@user:first.example first0@example.com"}, told(got)); diff != "" {
		t.Fatal(diff)
	}
	if other := claim(t, s, "c2", now, 3); len(other) != 1 || other[0].Binding.UserID != later.UserID {
		t.Errorf("beside it: %v", told(other))
	}
	if more := claim(t, s, "c3", now, 3); len(more) != 0 {
		t.Errorf("told at the same time: %v", told(more))
	}
	settle(t, s, now, delivered(got[0]))
	got = claim(t, s, "c4", now, 3)
	want := []string{"@user:first.example first1@example.com", "@user:first.example first2@example.com", "@user:first.example first3@example.com"}
	if diff := cmp.Diff(want, told(got)); diff != "" {
		t.Fatal(diff)
	}
	// One that failed gives way to the others, and the next one goes alone. One that
	// was refused is not the homeserver's fault.
	settle(t, s, now, delivered(got[0]), postponed(got[1], now.Add(time.Second)), refused(got[2]))
	now = now.Add(time.Second)
	got = claim(t, s, "c5", now, 3)
	if diff := cmp.Diff([]string{"@user:first.example first4@example.com"}, told(got)); diff != "" {
		t.Fatal(diff)
	}
	settle(t, s, now, refused(got[0]))
	if got = claim(t, s, "c6", now, 3); len(got) != 3 {
		t.Errorf("after a refusal: %v", told(got))
	}
}

func testUntil(t *testing.T, s Store) {
	ctx := t.Context()
	invited(t, s, "a", 1)
	ok(t, s.Bind(ctx, on("example.net", "a")))
	ok(t, s.Bind(ctx, on("example.com", "b")))
	if got := claim(t, s, "c1", begin().Add(identity.DeliverFor), 10); len(got) != 1 || got[0].Invite == nil {
		t.Errorf("a day later: %v", told(got))
	}
	if got := claim(t, s, "c2", begin().Add(week), 10); len(got) != 0 {
		t.Errorf("after the invite has expired: %v", told(got))
	}
	// A homeserver that there is nothing to tell any more is told of the next binding.
	b := on("example.com", "c")
	b.TS = begin().Add(week)
	ok(t, s.Bind(ctx, b))
	if got := claim(t, s, "c3", b.TS, 10); len(got) != 1 || got[0].Binding.ID != b.ID {
		t.Errorf("a new one: %v", told(got))
	}
}

func testClaimRace(t *testing.T, s Store) {
	ctx := t.Context()
	const servers, replicas = 40, 8
	for n := range servers {
		for range 2 {
			ok(t, s.AddInvite(ctx, invite(t, 1, fmt.Sprint("a", n))))
		}
		ok(t, s.Bind(ctx, on(fmt.Sprintf("hs%d.example", n), fmt.Sprint("a", n))))
	}
	var mu sync.Mutex
	made := make(map[int64]int)
	for _, err := range together(replicas, func(r int) error {
		for round := range 60 {
			claimed, err := s.ClaimDeliveries(ctx, fmt.Sprint(r, "-", round), begin(), begin().Add(time.Minute), 4)
			if err != nil {
				return err
			}
			var results []identity.DeliveryResult
			for _, d := range claimed {
				mu.Lock()
				made[d.ID]++
				mu.Unlock()
				results = append(results, delivered(d))
			}
			if err := s.SettleDeliveries(ctx, results, begin()); err != nil {
				return err
			}
		}
		return nil
	}) {
		ok(t, err)
	}
	for id, n := range made {
		if n != 1 {
			t.Errorf("delivery %d was made %d times", id, n)
		}
	}
	if len(made) != 2*servers {
		t.Errorf("%d deliveries were made, want %d", len(made), 2*servers)
	}
}

// testDeliveryDeadlock has everything that changes the same rows happen at once:
// none of it may be the victim of a deadlock.
func testDeliveryDeadlock(t *testing.T, s Store) {
	ctx := t.Context()
	for _, err := range together(12, func(n int) error {
		for round := range 12 {
			local := fmt.Sprint("a", (n+round)%3)
			name := fmt.Sprint(n, "-", round)
			now := begin().Add(time.Duration(round) * time.Hour)
			switch n % 4 {
			case 0:
				i := invite(t, 1, local)
				if err := s.AddInvite(ctx, i); err == nil && round%2 == 0 {
					// It may have been delivered and swept by now.
					if err := s.DeleteInvite(ctx, i.Token, "", by()); err != nil && !errors.Is(err, identity.ErrNotFound) {
						return err
					}
				}
			case 1:
				if err := s.Bind(ctx, on(fmt.Sprintf("hs%d.example", round%2), local)); err != nil {
					return err
				}
			case 2:
				claimed, err := s.ClaimDeliveries(ctx, name, now, now.Add(time.Minute), 5)
				if err != nil {
					return err
				}
				var results []identity.DeliveryResult
				for i, d := range claimed {
					if i%2 == 0 {
						results = append(results, delivered(d))
					} else {
						results = append(results, refused(d))
					}
				}
				if err := s.SettleDeliveries(ctx, results, now); err != nil {
					return err
				}
			default:
				b := on("hs0.example", local)
				if _, err := s.Unbind(ctx, b.ID, b.UserID, by()); err != nil {
					return err
				}
				if _, err := s.SweepInvites(ctx, now, now.Add(-time.Hour), 5); err != nil {
					return err
				}
			}
		}
		return nil
	}) {
		ok(t, err)
	}
}
