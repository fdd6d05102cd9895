package storetest

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

func invites() map[string]func(*testing.T, Store) {
	return map[string]func(*testing.T, Store){
		"an invite is kept with everything in it":            testKeepInvite,
		"an address that is bound cannot be invited":         testInviteBound,
		"an invite is live until it expires or was used":     testInviteLife,
		"an invite is deleted by its sender or the operator": testDeleteInvite,
		"invites are listed with what became of them":        testListInvites,
		"sweeping removes what is not live and nothing else": testSweepInvites,
		"no invite is stranded on an address that is bound":  testInviteBindRace,
	}
}

// week is how long the invites of these tests live, and used how long they are
// live once they were used.
const (
	week = 7 * 24 * time.Hour
	used = identity.UsedInviteLife
)

// invite returns an invite of local@example.com by the user with the number.
func invite(t *testing.T, user int, local string) identity.Invite {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	ok(t, err)
	return identity.Invite{
		Token: fmt.Sprintf("%s-%x", local, public[:8]), Address: binding(user, local).ID, RoomID: "!room:example.org",
		Sender: fmt.Sprintf("@user%d:example.org", user), KeyID: "ed25519:1", Ephemeral: public,
		About: identity.InviteDetails{
			RoomName: "Tea", RoomType: "m.space", RoomAvatar: "mxc://example.org/tea", SenderName: "Bob 🫖", Client: "https://app.example.org",
		},
		Created: begin(), Expires: begin().Add(week),
	}
}

// liveAt reports whether an invite and its key are live; they must agree.
func liveAt(t *testing.T, s Store, i identity.Invite, now time.Time) bool {
	t.Helper()
	ctx := t.Context()
	_, err := s.LiveInvite(ctx, i.Token, now, now.Add(-used))
	if err != nil && !errors.Is(err, identity.ErrNotFound) {
		t.Fatal(err)
	}
	if key := must(s.LiveKey(ctx, i.Ephemeral, now, now.Add(-used)))(t); key != (err == nil) {
		t.Errorf("the key is valid: %v, the invite: %v", key, err)
	}
	return err == nil
}

func testKeepInvite(t *testing.T, s Store) {
	i := invite(t, 1, "a")
	ok(t, s.AddInvite(t.Context(), i))
	got := must(s.LiveInvite(t.Context(), i.Token, begin(), begin().Add(-used)))(t)
	if diff := cmp.Diff(i, got, cmp.Comparer(func(a, b threepid.ID) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if liveAt(t, s, invite(t, 1, "a"), begin()) {
		t.Error("an invite that was never added is live")
	}
}

func testInviteBound(t *testing.T, s Store) {
	ctx := t.Context()
	b := binding(1, "a")
	if _, err := s.BoundTo(ctx, b.ID); !errors.Is(err, identity.ErrNotFound) {
		t.Errorf("before: got %v, want ErrNotFound", err)
	}
	ok(t, s.Bind(ctx, b))
	if user := must(s.BoundTo(ctx, b.ID))(t); user != b.UserID {
		t.Errorf("bound to %s", user)
	}
	i := invite(t, 2, "a")
	inUse, is := errors.AsType[*identity.InUseError](s.AddInvite(ctx, i))
	if !is || inUse.UserID != b.UserID {
		t.Errorf("got %v, want an InUseError", inUse)
	}
	if liveAt(t, s, i, begin()) {
		t.Error("the refused invite is live")
	}
	must(s.Unbind(ctx, b.ID, b.UserID, by()))(t)
	ok(t, s.AddInvite(ctx, i))
}

func testInviteLife(t *testing.T, s Store) {
	ctx := t.Context()
	waiting, told := invite(t, 1, "waiting"), invite(t, 1, "told")
	ok(t, s.AddInvite(ctx, waiting))
	ok(t, s.AddInvite(ctx, told))
	ok(t, s.Bind(ctx, binding(2, "told")))
	d := claim(t, s, "c", begin(), 1)[0]
	settle(t, s, begin().Add(time.Hour), delivered(d))
	for _, c := range []struct {
		after         time.Duration
		waiting, told bool
	}{
		{0, true, true},
		{time.Hour + used - time.Millisecond, true, true},
		{time.Hour + used, true, false},
		{week - time.Millisecond, true, false},
		{week, false, false},
	} {
		now := begin().Add(c.after)
		if w, u := liveAt(t, s, waiting, now), liveAt(t, s, told, now); w != c.waiting || u != c.told {
			t.Errorf("after %v: the waiting one is live: %v, the used one: %v", c.after, w, u)
		}
	}
}

func testDeleteInvite(t *testing.T, s Store) {
	ctx := t.Context()
	a, b := invite(t, 1, "a"), invite(t, 1, "b")
	ok(t, s.AddInvite(ctx, a))
	ok(t, s.AddInvite(ctx, b))
	for _, c := range []struct {
		name, token, sender string
		want                error
	}{
		{"another's", a.Token, "@user2:example.org", identity.ErrNotFound},
		{"an unknown one", "unknown", a.Sender, identity.ErrNotFound},
		{"the sender's own", a.Token, a.Sender, nil},
		{"what is gone", a.Token, a.Sender, identity.ErrNotFound},
		{"the operator's wish", b.Token, "", nil},
	} {
		if err := s.DeleteInvite(ctx, c.token, c.sender, by()); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	if liveAt(t, s, a, begin()) || liveAt(t, s, b, begin()) {
		t.Error("a deleted invite is live")
	}
	// One on its way to a homeserver.
	c := invite(t, 1, "c")
	ok(t, s.AddInvite(ctx, c))
	ok(t, s.Bind(ctx, binding(2, "c")))
	ok(t, s.DeleteInvite(ctx, c.Token, c.Sender, by()))
	if got := claim(t, s, "c", begin(), 10); len(got) != 0 {
		t.Errorf("a deleted invite is delivered: %v", got)
	}
}

func testListInvites(t *testing.T, s Store) {
	ctx := t.Context()
	add := func(local string) identity.Invite {
		i := invite(t, 1, local)
		ok(t, s.AddInvite(ctx, i))
		return i
	}
	add("waiting")
	for i, local := range []string{"used", "failed", "stranded", "delivering"} {
		add(local)
		b := binding(2, local)
		b.TS = b.TS.Add(time.Duration(i)) // in this order
		ok(t, s.Bind(ctx, b))
		if local == "delivering" {
			continue
		}
		d := claim(t, s, local, begin(), 1)[0]
		switch local {
		case "used":
			settle(t, s, begin(), delivered(d))
		case "failed":
			settle(t, s, begin(), refused(d))
		case "stranded":
			must(s.Unbind(ctx, b.ID, b.UserID, by()))(t)
		}
	}
	type row struct {
		Local, TakenBy, Failure string
		State                   identity.InviteState
	}
	var got []row
	after := int64(0)
	for {
		page := must(s.Invites(ctx, after, 2))(t)
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			if r.ID <= after {
				t.Fatalf("ID %d after %d", r.ID, after)
			}
			after = r.ID
			got = append(got, row{r.Address.Address, r.TakenBy, r.Failure, r.State})
		}
	}
	want := []row{
		{"waiting@example.com", "", "", identity.InviteWaiting},
		{"used@example.com", "@user2:example.org", "", identity.InviteUsed},
		{"failed@example.com", "@user2:example.org", "M_FORBIDDEN", identity.InviteFailed},
		{"stranded@example.com", "@user2:example.org", "", identity.InviteStranded},
		{"delivering@example.com", "@user2:example.org", "", identity.InviteDelivering},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func testSweepInvites(t *testing.T, s Store) {
	ctx := t.Context()
	for i := range 5 {
		ok(t, s.AddInvite(ctx, invite(t, 1, fmt.Sprint("old", i))))
	}
	young := invite(t, 1, "young")
	young.Expires = begin().Add(2 * week)
	ok(t, s.AddInvite(ctx, young))
	told := invite(t, 1, "told")
	told.Expires = young.Expires
	ok(t, s.AddInvite(ctx, told))
	ok(t, s.Bind(ctx, binding(2, "told")))
	settle(t, s, begin(), delivered(claim(t, s, "c", begin(), 1)[0]))
	ok(t, s.Bind(ctx, binding(2, "without"))) // a delivery without an invite
	sweep := func(now time.Time) (sum int) {
		for {
			n := must(s.SweepInvites(ctx, now, now.Add(-used), 2))(t)
			if n > 4 {
				t.Fatalf("%d rows in a batch of 2 and 2", n)
			}
			if sum += n; n == 0 {
				return sum
			}
		}
	}
	for _, c := range []struct {
		after time.Duration
		want  int
	}{
		{used - time.Millisecond, 0},
		{used, 2}, // the used one, and the delivery
		{week - time.Millisecond, 0},
		{week, 5},
	} {
		if n := sweep(begin().Add(c.after)); n != c.want {
			t.Errorf("after %v: %d rows, want %d", c.after, n, c.want)
		}
	}
	if got := must(s.Invites(ctx, 0, 10))(t); len(got) != 1 || got[0].Token != young.Token {
		t.Errorf("left: %v", got)
	}
}

// testInviteBindRace has a hundred pairs of somebody who invites an address and
// its owner who binds it, ten pairs at once. Each invite must be refused or taken.
func testInviteBindRace(t *testing.T, s Store) {
	ctx := t.Context()
	current(t, s, "pepper1")
	const pairs = 100
	var refused sync.Map
	var all []identity.Invite
	for p := range pairs {
		all = append(all, invite(t, 1, fmt.Sprint("a", p)))
	}
	for first := 0; first < pairs; first += 10 {
		for _, err := range together(20, func(n int) error {
			p := first + n/2
			if n%2 == 0 {
				return s.Bind(ctx, binding(2, fmt.Sprint("a", p)))
			}
			err := s.AddInvite(ctx, all[p])
			if errors.Is(err, identity.ErrInUse) {
				refused.Store(all[p].Token, true)
				return nil
			}
			return err
		}) {
			ok(t, err)
		}
	}
	taken := 0
	for _, r := range must(s.Invites(ctx, 0, 2*pairs))(t) {
		if _, was := refused.Load(r.Token); was || r.State != identity.InviteDelivering {
			t.Errorf("%s is %s, and was refused: %v", r.Token, r.State, was)
		}
		taken++
	}
	refused.Range(func(any, any) bool { taken++; return true })
	if taken != pairs {
		t.Errorf("%d of %d invites were taken or refused", taken, pairs)
	}
	// And every binding is told, with its invite or without.
	told := 0
	for now := begin(); ; now = now.Add(time.Minute) {
		due := claim(t, s, fmt.Sprint("c", now), now, pairs)
		if len(due) == 0 {
			break
		}
		for _, d := range due {
			told++
			settle(t, s, now, delivered(d))
		}
	}
	if told != pairs {
		t.Errorf("%d bindings are told, want %d", told, pairs)
	}
}

// claim claims deliveries to one homeserver for a minute.
func claim(t *testing.T, s Store, name string, now time.Time, most int) []identity.Delivery {
	t.Helper()
	return must(s.ClaimDeliveries(t.Context(), name, now, now.Add(time.Minute), most))(t)
}

// settle writes down what came of deliveries to one homeserver.
func settle(t *testing.T, s Store, now time.Time, results ...identity.DeliveryResult) {
	t.Helper()
	ok(t, s.SettleDeliveries(t.Context(), results, now))
}

func delivered(d identity.Delivery) identity.DeliveryResult {
	return identity.DeliveryResult{Delivery: d, Told: true}
}

func refused(d identity.Delivery) identity.DeliveryResult {
	return identity.DeliveryResult{Delivery: d, Refused: "M_FORBIDDEN"}
}

func postponed(d identity.Delivery, due time.Time) identity.DeliveryResult {
	return identity.DeliveryResult{Delivery: d, Due: due}
}
