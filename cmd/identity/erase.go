package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/threepid"
)

// budgets are what is counted in Redis. What running servers count by themselves
// is not known here; they forget it within a day, and when they are stopped.
type budgets struct{ limiter *ratelimit.Limiter }

// Forget implements identity.Budgets.
func (b budgets) Forget(ctx context.Context, userID string, addresses []threepid.ID) (int, error) {
	keys := []string{userID}
	for _, id := range addresses {
		keys = append(keys, id.Address+" "+string(id.Medium))
	}
	return b.limiter.Forget(ctx, keys...)
}

// erase removes everything of a person, and prints for each table how many rows
// there were and how many are left, as counted afterwards. It works beside running
// servers.
func (p *program) erase(ctx context.Context, f cmdline.Line, args []string) error {
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		fmt.Fprintln(p.stderr, "usage: identity -config FILE erase USER_ID")
		return cmdline.ErrUsage
	}
	return p.withStore(ctx, f, func(cfg *Config, db *store, env environment) error {
		return p.eraseFrom(ctx, cfg, db, env, identity.Person{UserID: args[0]})
	})
}

// eraseFrom removes everything of a person from a database.
func (p *program) eraseFrom(ctx context.Context, cfg *Config, db *store, env environment, who identity.Person) (err error) {
	codeKey, err := cfg.codeKey()
	if err != nil {
		return err
	}
	limiter, closeRedis, err := openLimiter(ctx, cfg, codeKey, env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeRedis()) }()
	erased, err := identity.Erase(ctx, db, budgets{limiter}, who, byOperator(), newProgress(p.stderr, env.log))
	if errors.Is(err, identity.ErrInvalidUser) {
		return fmt.Errorf("%q is not a user ID such as @alice:example.org", who.UserID)
	}
	if err != nil {
		return stopped(ctx, err)
	}
	left := 0
	fmt.Fprintf(p.stdout, "%-12s %8s %8s\n", "table", "found", "left")
	for _, e := range erased {
		left += e.Left
		fmt.Fprintf(p.stdout, "%-12s %8d %8d\n", e.Table, e.Found, e.Left)
	}
	if left > 0 {
		return errors.New("something came in meanwhile: erase once more")
	}
	return nil
}
