package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/cmdline"
)

const invitesUsage = `usage: identity -config FILE invites list [-addresses]
       identity -config FILE invites cancel ID|TOKEN...
`

// invites lists invites or cancels some. It works beside running servers.
func (p *program) invites(ctx context.Context, f cmdline.Line, args []string) error {
	set := flag.NewFlagSet("invites", flag.ContinueOnError)
	set.SetOutput(p.stderr)
	set.Usage = func() { fmt.Fprint(p.stderr, invitesUsage) }
	action := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		action, args = args[0], args[1:]
	}
	addresses := false
	if action == "list" {
		set.BoolVar(&addresses, "addresses", false, "")
	}
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return cmdline.ErrUsage
	}
	switch {
	case action == "list" && set.NArg() == 0:
		return p.withStore(ctx, f, func(cfg *Config, db *store, _ environment) error {
			return listInvites(ctx, p.stdout, cfg, db, addresses)
		})
	case action == "cancel" && set.NArg() > 0:
		return p.withStore(ctx, f, func(_ *Config, db *store, _ environment) error {
			return cancelInvites(ctx, p.stdout, db, set.Args())
		})
	}
	set.Usage()
	return cmdline.ErrUsage
}

// inviteLine is a line of the list: ID, state, age, expiry, address, the sender's
// server, and the room with why it failed.
const inviteLine = "%-8v %-10s %-5s %-17s %-20s %-24s %s\n"

// listInvites writes a line for each invite as it is read. Whom an invite is for
// is not told in full unless the operator asks for it.
func listInvites(ctx context.Context, w io.Writer, cfg *Config, db identity.InviteStore, addresses bool) error {
	some, now := false, time.Now()
	for r, err := range identity.AllInvites(ctx, db, now) {
		if err != nil {
			return err
		}
		if !some {
			some = true
			fmt.Fprintf(w, inviteLine, "ID", "STATE", "AGE", "EXPIRES (UTC)", "INVITED", "SENDER'S SERVER", "ROOM")
		}
		invited := r.Address.Address
		if !addresses {
			invited = identity.Redacted(r.Address, cfg.Invites.Shown, cfg.Invites.Shown)
		}
		_, server, _ := strings.Cut(r.Sender, ":")
		about := printable(r.RoomID)
		if r.Failure != "" {
			about += "  (" + printable(r.Failure) + ")"
		}
		_, err = fmt.Fprintf(w, inviteLine, r.ID, r.State, age(now.Sub(r.Created)),
			r.Expires.UTC().Format("2006-01-02 15:04"), printable(invited), printable(server), about)
		if err != nil {
			return err
		}
	}
	if !some {
		_, err := fmt.Fprintln(w, "There are no invites.")
		return err
	}
	return nil
}

// cancelInvites cancels those of the names that there are, and reports the others.
func cancelInvites(ctx context.Context, w io.Writer, db identity.InviteStore, names []string) error {
	var errs []error
	for _, name := range names {
		err := identity.CancelInvite(ctx, db, name, byOperator())
		if err != nil {
			errs = append(errs, fmt.Errorf("invite %q: %w", name, err))
			continue
		}
		fmt.Fprintf(w, "Invite %s is cancelled: its keys are no longer valid.\n", name)
	}
	return errors.Join(errs...)
}

// age returns a duration in its largest unit.
func age(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd", d/day)
	case d >= time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dm", max(d, 0)/time.Minute)
	}
}

// printable returns what strangers wrote without what would play tricks on a
// terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
