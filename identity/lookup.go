package identity

import (
	"context"
	"fmt"
	"strings"

	"github.com/matrix-herald/herald/threepid"
)

// The lookup algorithms of the specification.
const (
	AlgorithmSHA256 = "sha256"
	AlgorithmNone   = "none"
)

// MaxLookup is how many addresses one lookup may have.
const MaxLookup = 10_000

// HashDetails tells clients how to look up.
type HashDetails struct {
	Algorithms []string
	Pepper     string
}

// HashDetails returns the algorithms on offer and the current pepper.
func (d *Directory) HashDetails(ctx context.Context) (HashDetails, error) {
	p, err := d.opts.Peppers.Current(ctx)
	if err != nil {
		return HashDetails{}, fmt.Errorf("hash details: %w", err)
	}
	details := HashDetails{Algorithms: []string{AlgorithmSHA256}, Pepper: p.Value}
	if d.opts.PlainLookup {
		details.Algorithms = append(details.Algorithms, AlgorithmNone)
	}
	return details, nil
}

// LookupRequest asks which users addresses are bound to.
type LookupRequest struct {
	Algorithm string
	Pepper    string
	// Addresses are hashes for sha256, and "<address> <medium>" for none. What is
	// neither is bound to nobody.
	Addresses []string
}

// Lookup returns the user of each address that is bound, under the very string
// that the request has for it. It returns ErrBadAlgorithm, ErrTooMany, and
// ErrBadPepper as a *BadPepperError, in this order. The pepper must be valid
// for either algorithm (MSC2134).
func (d *Directory) Lookup(ctx context.Context, r LookupRequest) (users map[string]string, err error) {
	defer func() { d.opts.Metrics.lookedUp(r, err) }()
	digest := hashed
	switch {
	case r.Algorithm == AlgorithmSHA256:
	case r.Algorithm == AlgorithmNone && d.opts.PlainLookup:
		digest = plain
	default:
		return nil, fmt.Errorf("look up: %w", ErrBadAlgorithm)
	}
	if len(r.Addresses) > MaxLookup {
		return nil, fmt.Errorf("look up: %w", ErrTooMany)
	}
	pepper, err := d.opts.Peppers.honoured(ctx, r.Pepper)
	if err != nil {
		return nil, fmt.Errorf("look up: %w", badPepper(err, r.Algorithm))
	}
	return d.users(ctx, pepper, r.Addresses, digest)
}

// Users returns the user of each "<address> <medium>" that is bound, as version 1
// of the API looks up several at a time: in clear, whether or not PlainLookup
// lets others do so. It returns ErrTooMany.
func (d *Directory) Users(ctx context.Context, pairs []string) (users map[string]string, err error) {
	defer func() { d.opts.Metrics.lookedUp(LookupRequest{Algorithm: AlgorithmNone, Addresses: pairs}, err) }()
	if len(pairs) > MaxLookup {
		return nil, fmt.Errorf("look up: %w", ErrTooMany)
	}
	pepper, err := d.opts.Peppers.Current(ctx)
	if err != nil {
		return nil, fmt.Errorf("look up: %w", err)
	}
	return d.users(ctx, pepper, pairs, plain)
}

// users returns the user of each address that is bound.
func (d *Directory) users(ctx context.Context, pepper Pepper, addresses []string, digest func(address, pepper string) (Digest, bool)) (map[string]string, error) {
	digests := make([]Digest, 0, len(addresses))
	asked := make([]string, 0, len(addresses)) // the address of each digest
	for _, a := range addresses {
		if sum, ok := digest(a, pepper.Value); ok {
			digests, asked = append(digests, sum), append(asked, a)
		}
	}
	if len(digests) == 0 {
		return make(map[string]string), nil
	}
	found, err := d.opts.Store.Lookup(ctx, pepper.ID, digests)
	if err != nil {
		return nil, fmt.Errorf("look up: %w", err)
	}
	users := make(map[string]string, len(found))
	if len(found) == 0 {
		return users, nil
	}
	for i, a := range asked {
		if user, ok := found[digests[i]]; ok {
			users[a] = user
		}
	}
	return users, nil
}

// hashed returns the digest that the client computed.
func hashed(address, _ string) (Digest, bool) { return threepid.ParseLookupHash(address) }

// plain returns the digest of "<address> <medium>", so that both algorithms
// have one query. It is the digest of the canonical address, which every
// spelling leads to.
func plain(pair, pepper string) (Digest, bool) {
	address, medium, found := strings.Cut(pair, " ")
	if !found || strings.Contains(medium, " ") {
		return Digest{}, false
	}
	id, err := threepid.ParseAddress(medium, address)
	if err != nil {
		return Digest{}, false
	}
	return threepid.LookupDigest(id.Address, id.Medium, pepper), true
}
