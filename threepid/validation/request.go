package validation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/matrix-herald/herald/threepid"
)

// A request that finds a message being sent looks for its outcome after firstPoll,
// then after twice as long each time, up to longestPoll.
const (
	firstPoll   = 25 * time.Millisecond
	longestPoll = 250 * time.Millisecond
)

// Causes of a cut, for errors.
var (
	errSlow    = errors.New("sending took too long")
	errNotOurs = errors.New("the claim to send was lost")
	errFailed  = errors.New("a simultaneous request failed to send it")
)

// Request sends a token to an address, unless the same or a later attempt was
// sent already, and returns the session's sid. The same ID, ClientSecret and Owner give
// the same sid until the session expires, and a new session afterwards.
//
// Of simultaneous requests for one attempt a single one sends; the others wait
// for its outcome and share it. Once begun, sending is not cut short by the end
// of the request but by ctx's deadline and by the lease, so that a client which
// hangs up and asks again gets no second message.
//
// Request returns ErrInvalidSecret, ErrInvalidNextLink,
// threepid.ErrUnsupportedMedium for a medium without Messenger, and the
// Messenger's errors; threepid.ErrSend also when ctx ends before the outcome is
// known.
func (s *Sessions) Request(ctx context.Context, r Request) (sid string, err error) {
	if err := s.check(r); err != nil {
		return "", err
	}
	for {
		token, life, err := s.newToken(ctx, r.ID)
		if err != nil {
			return "", notBegun(ctx, err)
		}
		claim := s.claim(r, token, life)
		result, err := s.opts.Store.ClaimSession(ctx, claim)
		if err != nil {
			return "", notBegun(ctx, err)
		}
		held := result.Progress
		switch {
		case result.Won:
			s.metrics.claimed(result)
			err := s.send(ctx, claim, threepid.Challenge{
				ID: r.ID, To: r.To, Region: r.Region, Token: token, SID: result.SID, ClientSecret: r.ClientSecret,
				NextLink: r.NextLink, Homeserver: r.Homeserver, Brand: r.Brand, Language: r.Language,
				ValidFor: min(life, result.Expires.Sub(claim.Now.Truncate(time.Millisecond))),
			})
			if err != nil {
				return "", err
			}
			return result.SID, nil
		case held.Sent && held.Attempt >= r.SendAttempt:
			return result.SID, nil
		}
		again, err := s.await(ctx, result.SID, held, r.SendAttempt)
		if err != nil {
			return "", err
		}
		if !again {
			return result.SID, nil
		}
	}
}

// notBegun returns the error of a Request that did not come to send anything.
func notBegun(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", threepid.ErrSend, context.Cause(ctx))
	}
	return fmt.Errorf("claim a message: %w", err)
}

func (s *Sessions) check(r Request) error {
	if err := CheckClientSecret(r.ClientSecret); err != nil {
		return err
	}
	if r.NextLink != "" {
		if err := CheckNextLink(r.NextLink, s.opts.NextLinkHosts); err != nil {
			return err
		}
	}
	if _, ok := s.opts.Messengers[r.ID.Medium]; !ok {
		return threepid.ErrUnsupportedMedium
	}
	return nil
}

func (s *Sessions) claim(r Request, token string, life time.Duration) Claim {
	now := s.opts.Now()
	return Claim{
		ID: rand.Text(), Until: now.Add(s.opts.Lease),
		Key: Key{ID: r.ID, Secret: s.hash("secret", r.ClientSecret), Owner: r.Owner},
		SID: rand.Text(), SessionExpires: now.Add(s.opts.SessionLife),
		Attempt: r.SendAttempt, OriginalSpelling: r.OriginalSpelling, NextLink: r.NextLink,
		Code: s.hash("code", r.ClientSecret, token), CodeExpires: now.Add(life),
		Now: now,
	}
}

// send sends the message of a claim and records the outcome. It returns nil
// exactly when the attempt is recorded as sent.
func (s *Sessions) send(ctx context.Context, claim Claim, c threepid.Challenge) error {
	err := s.deliver(ctx, c)
	s.metrics.sent(c.ID.Medium, err)

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	record := s.opts.Store.PromoteSession
	if err != nil {
		record = s.opts.Store.ReleaseSession
	}
	switch ours, recordErr := record(ctx, c.SID, claim.ID); {
	case recordErr != nil:
		return fmt.Errorf("record a message: %w", errors.Join(err, recordErr))
	case ours:
		return err
	}
	// The claim is gone: its token came back before the sender did, or the lease
	// lapsed and somebody else went on.
	switch p, progressErr := s.opts.Store.SendProgress(ctx, c.SID); {
	case progressErr == nil && p.Sent && p.Attempt >= claim.Attempt:
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("%w: %w", threepid.ErrSend, errNotOurs)
	}
}

// deliver hands c to its Messenger. Its errors always wrap one of package
// threepid.
func (s *Sessions) deliver(ctx context.Context, c threepid.Challenge) error {
	deadline := time.Now().Add(s.opts.Lease * 3 / 4)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	ctx, cancel := context.WithDeadlineCause(context.WithoutCancel(ctx), deadline, errSlow)
	defer cancel()
	err := s.opts.Messengers[c.ID.Medium].Send(ctx, c)
	for _, known := range []error{threepid.ErrSend, threepid.ErrDestinationRejected, threepid.ErrBusy} {
		if err == nil || errors.Is(err, known) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", threepid.ErrSend, err)
}

// await waits until the claim that held describes has ended. It returns nil if
// the attempt has been sent then, and whether claiming it again makes sense.
func (s *Sessions) await(ctx context.Context, sid string, held Progress, attempt int64) (again bool, err error) {
	for pause := firstPoll; ; pause = min(2*pause, longestPoll) {
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("%w: %w", threepid.ErrSend, context.Cause(ctx))
		case <-time.After(pause):
		}
		p, err := s.opts.Store.SendProgress(ctx, sid)
		switch {
		case err != nil && ctx.Err() != nil:
			return false, fmt.Errorf("%w: %w", threepid.ErrSend, context.Cause(ctx))
		case err != nil && !errors.Is(err, threepid.ErrNoSession):
			return false, fmt.Errorf("wait for a message: %w", err)
		case p.Sent && p.Attempt >= attempt:
			return false, nil
		case p.ClaimID == held.ClaimID && p.ClaimUntil.After(s.opts.Now()):
			continue
		case p.ClaimID == held.ClaimID, held.ClaimAttempt < attempt:
			return true, nil // the lease lapsed, or it was about an earlier message
		default:
			return false, fmt.Errorf("%w: %w", threepid.ErrSend, errFailed)
		}
	}
}
