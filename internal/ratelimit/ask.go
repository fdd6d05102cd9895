package ratelimit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"time"
)

// Ask is one limit that a request is subject to. Rate and Distinct make one.
type Ask struct {
	name     string
	limit    Limit
	key      string
	distinct bool
	members  []string
}

// Rate asks whether something may happen once more. name is that of the limit,
// one of Options.Names, and key who or what is limited.
func Rate(name string, limit Limit, key string) Ask {
	return Ask{name: name, limit: limit, key: key}
}

// Distinct asks whether key may have these members too: at most limit.Count
// different ones in each limit.Per, which are aligned, so that a budget for a day
// begins anew at midnight UTC. Those that key has had in that time are free.
func Distinct(name string, limit Limit, key string, members []string) Ask {
	return Ask{name: name, limit: limit, key: key, distinct: true, members: members}
}

// Refused is the error of a request that a limit refuses.
type Refused struct {
	// Limit is the name of the limit; of several, of the one to wait for longest.
	Limit string
	// RetryAfter is how long to wait, if nobody else takes anything meanwhile.
	RetryAfter time.Duration
}

// Error names the limit and the time, not who is limited.
func (r *Refused) Error() string {
	return fmt.Sprintf("limit %s is used up for %s", r.Limit, r.RetryAfter.Round(time.Millisecond))
}

// fingerprint stands for a limit and a key of it.
type fingerprint [16]byte

// cell is an Ask as the stores have it.
type cell struct {
	id       fingerprint
	limit    Limit
	distinct bool
	members  []uint64 // fingerprints, each once
}

// hasher makes fingerprints under a secret, without which nobody finds out by
// trying which addresses they stand for.
type hasher struct {
	hash.Hash
	// text is a secret of 64 bytes, which fill a block of SHA-256, and after it
	// the member that was hashed last.
	text []byte
}

func newHasher(secret []byte) *hasher {
	h := &hasher{Hash: hmac.New(sha256.New, secret)}
	h.text = append(h.sum('m', "1"), h.sum('m', "2")...)
	return h
}

func (h *hasher) sum(kind byte, parts ...string) []byte {
	h.Reset()
	_, _ = h.Write([]byte{kind}) // a hash returns no error
	for _, p := range parts {
		_, _ = h.Write(binary.AppendUvarint(nil, uint64(len(p))))
		_, _ = h.Write([]byte(p))
	}
	return h.Sum(nil)
}

func (h *hasher) key(name, key string) fingerprint { return fingerprint(h.sum('k', name, key)[:16]) }

// members returns one fingerprint of each different member. 64 bits are enough:
// that two of a hundred thousand members share one has a chance of 10^-9, and
// then one of them is free. A lookup has thousands, for which HMAC would take
// three times as long; what it guards against, hashes of longer texts that
// somebody works out from those of shorter ones, is no use with 64 bits of them.
func (h *hasher) members(members []string) []uint64 {
	prints := make([]uint64, len(members))
	for i, m := range members {
		h.text = append(h.text[:2*sha256.Size], m...)
		sum := sha256.Sum256(h.text)
		prints[i] = binary.BigEndian.Uint64(sum[:])
	}
	slices.Sort(prints)
	return slices.Compact(prints)
}

// cells returns asks without those that are switched off or there twice, and
// with the names of those that stay.
func (h *hasher) cells(asks []Ask) (cells []cell, names []string) {
	var hashed []string // of which prints are
	var prints []uint64
	for i := range asks {
		a := &asks[i]
		if a.limit.Off() {
			continue
		}
		c := cell{id: h.key(a.name, a.key), limit: a.limit, distinct: a.distinct}
		if slices.ContainsFunc(cells, func(o cell) bool { return o.id == c.id }) {
			continue
		}
		if len(a.members) > 0 {
			// The budgets of an account and of its homeserver have the same.
			if !sameSlice(a.members, hashed) {
				hashed, prints = a.members, h.members(a.members)
			}
			c.members = prints
		}
		cells, names = append(cells, c), append(names, a.name)
	}
	return cells, names
}

func sameSlice(a, b []string) bool {
	return len(a) == len(b) && len(a) > 0 && &a[0] == &b[0]
}
