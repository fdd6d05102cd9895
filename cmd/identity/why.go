package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/threepid"
)

const whyUsage = "usage: identity -config FILE why EMAIL|NUMBER|USER_ID [-unbind | -erase]\n"

// why tells in sentences what is kept of an address or a user, and removes some or
// all of it if it is asked to. It works beside running servers.
func (p *program) why(ctx context.Context, f cmdline.Line, args []string) error {
	set := flag.NewFlagSet("why", flag.ContinueOnError)
	set.SetOutput(p.stderr)
	set.Usage = func() { fmt.Fprint(p.stderr, whyUsage) }
	unbind := set.Bool("unbind", false, "")
	erase := set.Bool("erase", false, "")
	err := set.Parse(args)
	whom := set.Arg(0)
	if err == nil && set.NArg() > 1 { // flags stand behind whom they are about, too
		err = set.Parse(set.Args()[1:])
		if err == nil && set.NArg() > 0 {
			whom = ""
		}
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err == nil && (whom == "" || *unbind && *erase):
		set.Usage()
		return cmdline.ErrUsage
	case err != nil:
		return cmdline.ErrUsage
	}
	who, err := person(whom)
	if err != nil {
		return err
	}
	return p.withStore(ctx, f, func(cfg *Config, db *store, env environment) error {
		if who.UserID != "" {
			if who.Addresses, err = db.BoundAddresses(ctx, who.UserID); err != nil {
				return err
			}
		}
		switch {
		case *erase:
			return p.eraseFrom(ctx, cfg, db, env, who)
		case *unbind:
			return p.unbind(ctx, db, who)
		}
		about, err := db.About(ctx, who)
		if err != nil {
			return err
		}
		tell(p.stdout, who, about, time.Now())
		return nil
	})
}

// person reads whom an operator means.
func person(s string) (identity.Person, error) {
	if strings.HasPrefix(s, "@") {
		if _, err := homeserver.ParseUserID(s); err != nil {
			return identity.Person{}, fmt.Errorf("%q is not a user ID such as @alice:example.org", s)
		}
		return identity.Person{UserID: s}, nil
	}
	medium, address := string(threepid.MediumEmail), s
	if !strings.Contains(s, "@") {
		medium = string(threepid.MediumMSISDN)
		address = strings.Map(func(r rune) rune { // as people write numbers
			if strings.ContainsRune("+ -()./", r) {
				return -1
			}
			return r
		}, s)
	}
	id, err := threepid.ParseAddress(medium, address)
	if err != nil {
		return identity.Person{}, fmt.Errorf("%q is neither an email address, nor a number with its country such as +44 7700 900001, nor a user ID", s)
	}
	return identity.Person{Addresses: []threepid.ID{id}}, nil
}

// unbind removes the bindings of a person, and keeps everything else.
func (p *program) unbind(ctx context.Context, db *store, who identity.Person) error {
	removed := 0
	for _, id := range who.Addresses {
		b, err := db.Binding(ctx, id)
		if errors.Is(err, identity.ErrNotFound) || err == nil && who.UserID != "" && b.UserID != who.UserID {
			continue
		}
		if err != nil {
			return err
		}
		done, err := db.Unbind(ctx, id, b.UserID, byOperator())
		if err != nil {
			return err
		}
		if done {
			removed++
			fmt.Fprintf(p.stdout, "%s is not bound to %s any more. Their homeserver is not told; they can bind it again.\n", shown(id), printable(b.UserID))
		}
	}
	if removed == 0 {
		fmt.Fprintln(p.stdout, "Nothing was bound.")
	}
	return nil
}

// shown is an address as people know it.
func shown(id threepid.ID) string {
	if id.Medium == threepid.MediumMSISDN {
		return "+" + id.Address
	}
	return printable(id.Address)
}

// tell writes what is kept of a person in sentences.
func tell(w io.Writer, who identity.Person, a identity.About, now time.Time) {
	lines := 0
	say := func(format string, args ...any) {
		lines++
		fmt.Fprintf(w, format+"\n", args...)
	}
	for _, b := range a.Bindings {
		say("%s is bound to %s since %s.", shown(b.ID), printable(b.UserID), when(b.TS))
	}
	if who.UserID == "" && len(a.Bindings) == 0 {
		say("%s is bound to nobody.", shown(who.Addresses[0]))
	}
	if who.UserID != "" {
		tellAccount(say, who.UserID, a)
	}
	for _, r := range a.Removals {
		did := map[string]string{"binding": "A binding was removed", "address": "The address was erased", "user": "The user was erased"}[r.Kind]
		by := "by its owner"
		if r.By != "" {
			by = "by the operator " + printable(r.By)
		}
		say("%s on %s %s; no import brings back what is older.", did, when(r.At), by)
	}
	for _, s := range a.Sessions {
		tellSession(say, s, now)
	}
	for _, g := range a.Guesses {
		say("%d wrong codes were tried for %s since %s.", g.Wrong, shown(g.Address), when(g.Since))
	}
	for _, i := range a.Invites {
		tellInvite(say, i, now)
	}
	for _, d := range a.Deliveries {
		what := "of the binding of " + shown(d.Binding.ID)
		if d.InviteID != 0 {
			what = fmt.Sprintf("of invite %d", d.InviteID)
		}
		say("The homeserver %s is still to be told %s; it was asked %d times, the next time is %s, and it is given up on %s.",
			printable(d.Binding.Server()), what, d.Attempts, when(d.Due), when(d.Until))
	}
	if lines == 0 || who.UserID == "" && lines == 1 && len(a.Bindings) == 0 {
		fmt.Fprintln(w, "Nothing else is known.")
	}
}

func tellAccount(say func(string, ...any), userID string, a identity.About) {
	if len(a.Bindings) == 0 {
		say("Nothing is bound to %s.", printable(userID))
	}
	if len(a.Tokens) == 0 {
		say("%s is not registered here: there is no access token.", printable(userID))
		return
	}
	last := a.Tokens[0]
	for _, used := range a.Tokens {
		if used.After(last) {
			last = used
		}
	}
	say("%s is registered, with %d access tokens; the last use was on %s.", printable(userID), len(a.Tokens), last.UTC().Format(time.DateOnly))
	for _, url := range a.Terms {
		say("They accepted %s.", printable(url))
	}
}

func tellSession(say func(string, ...any), s identity.SessionAbout, now time.Time) {
	by := ""
	if s.Owner != "" {
		by = " by " + printable(s.Owner)
	}
	sent := "no message was sent yet, or sending it failed"
	if s.Messages > 0 {
		sent = fmt.Sprintf("the last message sent was number %d", s.Messages)
	}
	state := "not completed"
	switch {
	case !s.Validated.IsZero():
		state = "completed on " + when(s.Validated)
	case s.Messages > 0 && !s.CodeExpires.After(now):
		state += ", and the code is too old"
	case s.Messages > 0:
		state += fmt.Sprintf(", the code is valid until %s, and %d wrong ones were tried", when(s.CodeExpires), s.Tries)
	}
	say("A validation session of %s was begun%s: %s; it is %s. It ends on %s.", shown(s.Address), by, sent, state, when(s.Expires))
}

func tellInvite(say func(string, ...any), i identity.InviteRecord, now time.Time) {
	state := i.State
	if state != identity.InviteUsed && !i.Expires.After(now) {
		state = identity.InviteExpired
	}
	what := map[identity.InviteState]string{
		identity.InviteWaiting:    "waits until somebody binds the address",
		identity.InviteDelivering: "went to " + printable(i.TakenBy) + ", whose homeserver is being told",
		identity.InviteFailed:     "went to " + printable(i.TakenBy) + ", whose homeserver refused it: " + printable(i.Failure),
		identity.InviteStranded:   "went to " + printable(i.TakenBy) + ", who lost the address before their homeserver was told",
		identity.InviteUsed:       "went to " + printable(i.TakenBy) + ", whose homeserver was told",
		identity.InviteExpired:    "has expired",
	}[state]
	say("Invite %d by %s to %s, made on %s for %s, %s. It ends on %s.",
		i.ID, printable(i.Sender), printable(i.RoomID), when(i.Created), shown(i.Address), what, when(i.Expires))
}

// when is a time as operators read it.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
