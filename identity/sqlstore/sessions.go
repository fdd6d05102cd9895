package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

// Assignments that several statements on sessions share.
const (
	noClaim = ` claim_id = NULL, claim_until_ms = NULL, claim_attempt = NULL, claim_given = NULL, claim_next_link = NULL,
		claim_code_hash = NULL, claim_code_tries = 0, claim_code_expires_ms = NULL`
	// retire leaves of a session that it has expired.
	retire = ` retired = 1, address = '', owner = '', given = '', next_link = '', validated_ms = NULL, validated_hash = NULL,
		attempt = NULL, code_hash = NULL, code_tries = 0, code_expires_ms = NULL,` + noClaim
	promoteClaim = ` attempt = claim_attempt, given = claim_given, next_link = claim_next_link,
		code_hash = claim_code_hash, code_tries = claim_code_tries, code_expires_ms = claim_code_expires_ms,` + noClaim
)

// ClaimSession implements validation.Store.
//
// PostgreSQL lets simultaneous transactions wait for each other at the unique
// index and at the row, so that each of them judges what the one before it left.
func (db *DB) ClaimSession(ctx context.Context, c validation.Claim) (r validation.ClaimResult, err error) {
	now, medium := c.Now.UnixMilli(), string(c.Key.ID.Medium)
	var expires int64
	err = db.write.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		retired, err := affected(tx.ExecContext(ctx, `UPDATE sessions SET`+retire+`
			WHERE medium = $1 AND address = $2 AND secret_hash = $3 AND owner = $5 AND retired = 0 AND expires_ms <= $4`,
			medium, c.Key.ID.Address, c.Key.Secret[:], now, c.Key.Owner))
		if err != nil {
			return err
		}
		err = tx.QueryRowContext(ctx, `INSERT INTO sessions (sid, medium, address, secret_hash, expires_ms,
				claim_id, claim_until_ms, claim_attempt, claim_given, claim_next_link, claim_code_hash, claim_code_expires_ms, owner)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $14)
			ON CONFLICT (medium, address, secret_hash, owner) WHERE retired = 0 DO UPDATE SET
				claim_id = excluded.claim_id, claim_until_ms = excluded.claim_until_ms,
				claim_attempt = excluded.claim_attempt, claim_given = excluded.claim_given,
				claim_next_link = excluded.claim_next_link, claim_code_hash = excluded.claim_code_hash,
				claim_code_tries = 0, claim_code_expires_ms = excluded.claim_code_expires_ms
			WHERE (sessions.attempt IS NULL OR sessions.attempt < excluded.claim_attempt)
				AND (sessions.claim_id IS NULL OR sessions.claim_until_ms <= $13)
			RETURNING sid, expires_ms`,
			c.SID, medium, c.Key.ID.Address, c.Key.Secret[:], c.SessionExpires.UnixMilli(),
			c.ID, c.Until.UnixMilli(), c.Attempt, c.OriginalSpelling, c.NextLink, c.Code[:], c.CodeExpires.UnixMilli(), now, c.Key.Owner).Scan(&r.SID, &expires)
		if err == nil {
			r.Expires = time.UnixMilli(expires)
			r.Won, r.Created, r.Replaced = true, r.SID == c.SID, retired > 0
			return nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		r.SID, r.Progress, err = progress(tx.QueryRowContext(ctx, selectProgress+`
			WHERE medium = $1 AND address = $2 AND secret_hash = $3 AND owner = $4 AND retired = 0`,
			medium, c.Key.ID.Address, c.Key.Secret[:], c.Key.Owner))
		return err
	})
	if err != nil {
		return validation.ClaimResult{}, fmt.Errorf("claim a session: %w", err)
	}
	return r, nil
}

const selectProgress = `SELECT sid, attempt, claim_id, claim_attempt, claim_until_ms FROM sessions`

func progress(row scanner) (sid string, p validation.Progress, err error) {
	var attempt, claimAttempt, until sql.NullInt64
	var claim sql.NullString
	if err := row.Scan(&sid, &attempt, &claim, &claimAttempt, &until); err != nil {
		return "", p, err
	}
	return sid, validation.Progress{
		Sent: attempt.Valid, Attempt: attempt.Int64,
		ClaimID: claim.String, ClaimAttempt: claimAttempt.Int64, ClaimUntil: millis(until),
	}, nil
}

// SendProgress implements validation.Store.
func (db *DB) SendProgress(ctx context.Context, sid string) (validation.Progress, error) {
	_, p, err := progress(db.read.QueryRowContext(ctx, selectProgress+` WHERE sid = $1`, sid))
	if errors.Is(err, sql.ErrNoRows) {
		return p, threepid.ErrNoSession
	}
	if err != nil {
		return p, fmt.Errorf("read a session's progress: %w", err)
	}
	return p, nil
}

// PromoteSession implements validation.Store.
func (db *DB) PromoteSession(ctx context.Context, sid, claimID string) (bool, error) {
	n, err := affected(db.write.ExecContext(ctx,
		`UPDATE sessions SET`+promoteClaim+` WHERE sid = $1 AND claim_id = $2`, sid, claimID))
	return n > 0, doing("promote a session's claim", err)
}

// ReleaseSession implements validation.Store.
func (db *DB) ReleaseSession(ctx context.Context, sid, claimID string) (released bool, err error) {
	err = db.write.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, statement := range []string{
			`DELETE FROM sessions WHERE sid = $1 AND claim_id = $2 AND attempt IS NULL`,
			`UPDATE sessions SET` + noClaim + ` WHERE sid = $1 AND claim_id = $2`,
		} {
			n, err := affected(tx.ExecContext(ctx, statement, sid, claimID))
			if err != nil {
				return err
			}
			released = released || n > 0
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("release a session's claim: %w", err)
	}
	return released, nil
}

// Conditions on the codes of a session: $4 is the guess, $5 the number of tries
// that a code may have, $6 the time, $7 is 1 if the guess counts. A code that has validated the session does
// not get too old. None of them is ever NULL.
const (
	codeOpen = `(code_hash IS NOT NULL AND code_tries < $5 AND (code_expires_ms > $6 OR
		validated_hash IS NOT NULL AND validated_hash = code_hash))`
	claimOpen = `(claim_code_hash IS NOT NULL AND claim_code_tries < $5 AND claim_code_expires_ms > $6)`
	isWrong   = `($7 = 1 AND NOT ` + isRight + `)`
	isRight   = `((code_hash = $4 AND ` + codeOpen + `) OR (claim_code_hash = $4 AND ` + claimOpen + `))`
)

// GuessCode implements validation.Store. A guess that counts is counted first, as a
// wrong one: the row of its address is held until the end, and so no guess is
// compared that is not counted, in this session or another.
func (db *DB) GuessCode(ctx context.Context, g validation.Guess) (r validation.Record, v validation.Verdict, err error) {
	err = db.write.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		v = validation.Spent
		counted, err := countGuess(ctx, tx, g)
		if err != nil {
			return err
		}
		if counted == g.Short {
			if v, err = guess(ctx, tx, g); err != nil {
				return err
			}
		}
		if counted && v != validation.Wrong {
			if err := uncountGuess(ctx, tx, g); err != nil {
				return err
			}
		}
		r, err = record(tx.QueryRowContext(ctx, selectRecord+` AND medium = $4`, g.SID, g.Secret[:], g.Now.UnixMilli(), string(g.Medium)))
		return err
	})
	switch {
	case errors.Is(err, threepid.ErrNoSession), errors.Is(err, threepid.ErrSessionExpired):
		return validation.Record{}, v, err
	case err != nil:
		return validation.Record{}, v, fmt.Errorf("guess a session's code: %w", err)
	}
	return r, v, nil
}

// countGuess counts a wrong guess at the address of a session. It reports false for
// a guess that does not count, for no such session, and once there were too many.
func countGuess(ctx context.Context, tx *sql.Tx, g validation.Guess) (bool, error) {
	if !g.Short {
		return false, nil
	}
	n, err := affected(tx.ExecContext(ctx, `INSERT INTO wrong_guesses (medium, address, since_ms, wrong)
			SELECT medium, address, CAST($4 AS BIGINT), 1 FROM sessions
			WHERE sid = $1 AND medium = $2 AND secret_hash = $3 AND retired = 0 AND expires_ms > $4
		ON CONFLICT (medium, address) DO UPDATE SET
			wrong = CASE WHEN wrong_guesses.since_ms <= $5 THEN 1 ELSE wrong_guesses.wrong + 1 END,
			since_ms = CASE WHEN wrong_guesses.since_ms <= $5 THEN excluded.since_ms ELSE wrong_guesses.since_ms END
		WHERE wrong_guesses.since_ms <= $5 OR wrong_guesses.wrong < $6`,
		g.SID, string(g.Medium), g.Secret[:], g.Now.UnixMilli(), g.Since.UnixMilli(), g.MaxToday))
	return n > 0, err
}

// uncountGuess undoes countGuess in the same transaction.
func uncountGuess(ctx context.Context, tx *sql.Tx, g validation.Guess) error {
	const its = ` WHERE medium = $1 AND address = (SELECT address FROM sessions WHERE sid = $2)`
	for _, statement := range []string{
		`DELETE FROM wrong_guesses` + its + ` AND wrong <= 1`,
		`UPDATE wrong_guesses SET wrong = wrong - 1` + its,
	} {
		if _, err := tx.ExecContext(ctx, statement, string(g.Medium), g.SID); err != nil {
			return err
		}
	}
	return nil
}

// guess compares a guess with the codes of its session, whose row it holds until
// the end of the transaction.
func guess(ctx context.Context, tx *sql.Tx, g validation.Guess) (validation.Verdict, error) {
	var right bool
	short := 0
	if g.Short {
		short = 1
	}
	err := tx.QueryRowContext(ctx, `UPDATE sessions SET
			code_tries = code_tries + CASE WHEN `+codeOpen+` AND `+isWrong+` THEN 1 ELSE 0 END,
			claim_code_tries = claim_code_tries + CASE WHEN `+claimOpen+` AND `+isWrong+` THEN 1 ELSE 0 END
		WHERE sid = $1 AND medium = $2 AND secret_hash = $3 AND retired = 0 AND expires_ms > $6
			AND (`+codeOpen+` OR `+claimOpen+`)
		RETURNING CASE WHEN `+isRight+` THEN 1 ELSE 0 END`,
		g.SID, string(g.Medium), g.Secret[:], g.Code[:], g.MaxTries, g.Now.UnixMilli(), short).Scan(&right)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return validation.Spent, nil
	case err != nil:
		return 0, err
	case right:
		return validate(ctx, tx, g)
	}
	return validation.Wrong, nil
}

// validate marks a session whose row is held validated by a right guess, and
// promotes a claim that the guess is the code of.
func validate(ctx context.Context, tx *sql.Tx, g validation.Guess) (validation.Verdict, error) {
	n, err := affected(tx.ExecContext(ctx,
		`UPDATE sessions SET validated_ms = $3, expires_ms = $4, validated_hash = $2
			WHERE sid = $1 AND (validated_hash IS NULL OR validated_hash <> $2)`,
		g.SID, g.Code[:], g.Now.UnixMilli(), g.SessionExpires.UnixMilli()))
	if err != nil {
		return 0, err
	}
	_, err = tx.ExecContext(ctx,
		`UPDATE sessions SET`+promoteClaim+` WHERE sid = $1 AND claim_code_hash = $2`, g.SID, g.Code[:])
	if n == 0 {
		return validation.Repeated, err
	}
	return validation.Right, err
}

const selectRecord = `SELECT medium, address, owner, given, next_link, validated_ms,
		CASE WHEN retired = 1 OR expires_ms <= $3 THEN 1 ELSE 0 END
	FROM sessions WHERE sid = $1 AND secret_hash = $2`

func record(row scanner) (validation.Record, error) {
	var r validation.Record
	var medium string
	var validated sql.NullInt64
	var expired bool
	err := row.Scan(&medium, &r.ID.Address, &r.Owner, &r.OriginalSpelling, &r.NextLink, &validated, &expired)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return validation.Record{}, threepid.ErrNoSession
	case err != nil:
		return validation.Record{}, err
	case expired:
		return validation.Record{}, threepid.ErrSessionExpired
	}
	r.ID.Medium, r.Validated = threepid.Medium(medium), millis(validated)
	return r, nil
}

// FindSession implements validation.Store.
func (db *DB) FindSession(ctx context.Context, sid string, secret validation.Hash, now time.Time) (validation.Record, error) {
	r, err := record(db.read.QueryRowContext(ctx, selectRecord, sid, secret[:], now.UnixMilli()))
	if err != nil && !errors.Is(err, threepid.ErrNoSession) && !errors.Is(err, threepid.ErrSessionExpired) {
		err = fmt.Errorf("find a session: %w", err)
	}
	return r, err
}

// RetireSessions implements validation.Store.
func (db *DB) RetireSessions(ctx context.Context, expired time.Time, limit int) (int, error) {
	// PostgreSQL judges the outer condition again for a row it had to wait for.
	n, err := affected(db.write.ExecContext(ctx, `UPDATE sessions SET`+retire+`
		WHERE retired = 0 AND expires_ms <= $1 AND sid IN
			(SELECT sid FROM sessions WHERE retired = 0 AND expires_ms <= $1 ORDER BY expires_ms LIMIT $2)`,
		expired.UnixMilli(), limit))
	return n, doing("retire sessions", err)
}

// DeleteSessions implements validation.Store.
func (db *DB) DeleteSessions(ctx context.Context, expired time.Time, limit int) (int, error) {
	n, err := affected(db.write.ExecContext(ctx, `DELETE FROM sessions WHERE sid IN
			(SELECT sid FROM sessions WHERE retired = 1 AND expires_ms <= $1 ORDER BY expires_ms LIMIT $2)`,
		expired.UnixMilli(), limit))
	return n, doing("delete sessions", err)
}

// WrongGuesses implements validation.Store.
func (db *DB) WrongGuesses(ctx context.Context, id threepid.ID, since time.Time) (n int, err error) {
	err = db.read.QueryRowContext(ctx, `SELECT wrong FROM wrong_guesses WHERE medium = $1 AND address = $2 AND since_ms > $3`,
		string(id.Medium), id.Address, since.UnixMilli()).Scan(&n)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("wrong guesses at an address: %w", err)
	}
	return n, nil
}

// ForgetGuesses implements validation.Store.
func (db *DB) ForgetGuesses(ctx context.Context, before time.Time, limit int) (int, error) {
	n, err := affected(db.write.ExecContext(ctx, `DELETE FROM wrong_guesses WHERE (medium, address) IN
			(SELECT medium, address FROM wrong_guesses WHERE since_ms <= $1 ORDER BY since_ms LIMIT $2) AND since_ms <= $1`,
		before.UnixMilli(), limit))
	return n, doing("forget wrong guesses", err)
}
