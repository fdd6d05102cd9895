package sydent_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/matrix-herald/herald/identity/sydent"
	"github.com/matrix-herald/herald/threepid"
)

// cut returns the medium and the address of "email alice@example.com".
func cut(s string) (threepid.Medium, string) {
	medium, address, _ := strings.Cut(s, " ")
	return threepid.Medium(medium), address
}

func TestBindings(t *testing.T) {
	t.Parallel()
	const alice, bob, mail = "@alice:example.org", "@bob:example.org", "email alice@example.com"
	later, latest := before().Add(time.Minute), before().Add(time.Hour)
	tests := map[string]struct {
		rows    func(t *testing.T, o *old)
		want    map[string]string // users by address as clients hash it
		skipped map[string]int    // by the beginning of the reason
	}{
		"an address is found": {
			rows: func(t *testing.T, o *old) { o.bind(t, "email", "alice@example.com", alice, before()) },
			want: map[string]string{mail: alice},
		},
		"a telephone number is found": {
			rows: func(t *testing.T, o *old) { o.bind(t, "msisdn", "447700900001", alice, before()) },
			want: map[string]string{"msisdn 447700900001": alice},
		},
		"an address that Sydent kept in mixed case is found in lower case": {
			rows: func(t *testing.T, o *old) { o.bind(t, "email", "Alice@Example.COM", alice, before()) },
			want: map[string]string{mail: alice},
		},
		"an address that was not folded is found as JavaScript clients hash it, too": {
			rows: func(t *testing.T, o *old) { o.bind(t, "email", "Strauß@example.com", alice, before()) },
			want: map[string]string{"email strauss@example.com": alice, "email strauß@example.com": alice},
		},
		"a domain in A-labels is found in U-labels, too": {
			rows: func(t *testing.T, o *old) { o.bind(t, "email", "a@xn--strae-oqa.example", alice, before()) },
			want: map[string]string{"email a@xn--strae-oqa.example": alice, "email a@straße.example": alice},
		},
		"of the bindings of one address the newest counts": {
			rows: func(t *testing.T, o *old) {
				o.bind(t, "email", "alice@example.com", alice, later)
				o.bind(t, "email", "alice@example.com", bob, latest)
				o.global(t, "email", "alice@example.com", "@carol:example.org", before())
			},
			want:    map[string]string{mail: bob},
			skipped: map[string]int{"another entry": 2},
		},
		"of the bindings of one address in two spellings the newest counts": {
			rows: func(t *testing.T, o *old) {
				o.bind(t, "email", "ALICE@example.com", bob, latest)
				o.bind(t, "email", "alice@example.com", alice, later)
			},
			want:    map[string]string{mail: bob},
			skipped: map[string]int{"another entry": 1},
		},
		"a removed address is not found": {
			rows: func(t *testing.T, o *old) {
				o.bind(t, "email", "alice@example.com", alice, before())
				o.unbind(t, "email", "alice@example.com", later)
			},
		},
		"a removal counts for a copy that was left behind": {
			rows: func(t *testing.T, o *old) {
				o.global(t, "email", "Alice@example.com", alice, before())
				o.unbind(t, "email", "alice@example.com", later)
			},
			skipped: map[string]int{"another entry": 1},
		},
		"a removal and a binding of the same millisecond are a removal": {
			rows: func(t *testing.T, o *old) {
				o.global(t, "email", "alice@example.com", alice, later)
				o.local(t, "email", "alice@example.com", nil, later)
			},
			skipped: map[string]int{"another entry": 1},
		},
		"a binding after a removal is found": {
			rows: func(t *testing.T, o *old) {
				o.local(t, "email", "Alice@example.com", nil, before())
				o.bind(t, "email", "alice@example.com", alice, later)
			},
			want:    map[string]string{mail: alice},
			skipped: map[string]int{"another entry": 1}, // the removal
		},
		// A Sydent that crashed between the two.
		"a binding that Sydent did not copy is found": {
			rows: func(t *testing.T, o *old) { o.local(t, "email", "alice@example.com", alice, before()) },
			want: map[string]string{mail: alice},
		},
		"a binding of a peer is found": {
			rows: func(t *testing.T, o *old) {
				o.global(t, "email", "alice@example.com", alice, before())
				o.exec(t, `UPDATE global_threepid_associations SET originServer = 'peer.example.com'`)
			},
			want: map[string]string{mail: alice},
		},
		// Written by a Sydent that ran on Python 2.
		"text that is stored as a blob is read": {
			rows: func(t *testing.T, o *old) { o.global(t, "email", "alice@example.com", []byte(alice), before()) },
			want: map[string]string{mail: alice},
		},
		"what is no address is left out": {
			rows: func(t *testing.T, o *old) {
				for _, address := range []string{"noat", "a@localhost", `"a b"@example.com`, "a@b@example.com", ""} {
					o.bind(t, "email", address, alice, before())
				}
			},
			skipped: map[string]int{"not an email address": 5},
		},
		"a number that cannot exist is left out": {
			rows: func(t *testing.T, o *old) {
				for _, number := range []string{"1", "44770090000199999", "077009", "abc"} {
					o.bind(t, "msisdn", number, alice, before())
				}
			},
			skipped: map[string]int{"not a telephone number": 4},
		},
		"a medium that the specification does not know is left out": {
			rows:    func(t *testing.T, o *old) { o.bind(t, "irc", "alice@example.com", alice, before()) },
			skipped: map[string]int{"the medium is neither": 1},
		},
		"a domain that may have been another one before it was folded is left out": {
			rows: func(t *testing.T, o *old) {
				o.bind(t, "email", "a@große-strasse.example", alice, before())
				o.bind(t, "email", "a@παραδειγμασ.example", alice, before())
				o.bind(t, "email", "a@bücher.example", bob, before())
				o.bind(t, "email", "strauss@example.com", bob, before())
			},
			want:    map[string]string{"email a@bücher.example": bob, "email strauss@example.com": bob},
			skipped: map[string]int{"Sydent may have turned the domain": 2},
		},
		"what is no user leaves the address bound to nobody": {
			rows: func(t *testing.T, o *old) {
				o.bind(t, "email", "alice@example.com", alice, before())
				o.bind(t, "email", "alice@example.com", "nonsense", later)
				for i, user := range []string{"@:", "@alice", "alice:example.org", "@a b:example.org", "@a\x00:example.org", "@\xff:example.org"} {
					o.bind(t, "msisdn", "44770090000"+string(rune('0'+i)), user, before())
				}
			},
			skipped: map[string]int{"not a user ID": 7, "another entry": 1},
		},
		"what is not valid any more, or not yet, does not hide what is": {
			rows: func(t *testing.T, o *old) {
				o.bind(t, "email", "alice@example.com", alice, before())
				o.global(t, "email", "alice@example.com", bob, later)
				o.exec(t, `UPDATE global_threepid_associations SET notAfter = ? WHERE mxid = ?`, now().UnixMilli(), bob)
				o.global(t, "email", "alice@example.com", bob, now().Add(time.Second))
			},
			want:    map[string]string{mail: alice},
			skipped: map[string]int{"not valid at present": 2},
		},
		"a row without a time is left out": {
			rows: func(t *testing.T, o *old) {
				o.local(t, "email", "alice@example.com", alice, before())
				o.local(t, "email", "bob@example.com", bob, before())
				o.exec(t, `UPDATE local_threepid_associations SET ts = NULL WHERE mxid = ?`, alice)
				o.exec(t, `UPDATE local_threepid_associations SET ts = 'long ago' WHERE mxid = ?`, bob)
			},
			skipped: map[string]int{"no time of binding": 2},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, h := newOld(t), newHerald(t)
			tt.rows(t, o)
			r := h.imports(t, o)

			asked := []string{
				mail, "email Alice@Example.COM", "email bob@example.com", "email noat", "email a@große-strasse.example",
				"email a@παραδειγμασ.example", "email a@παραδειγμας.example", "email a@xn--strae-oqa.example",
				"msisdn 1", "msisdn 447700900000", "msisdn 447700900001", "irc alice@example.com",
			}
			for a := range tt.want {
				asked = append(asked, a)
			}
			if diff := cmp.Diff(tt.want, h.lookUp(t, pepper, asked...), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("lookup (-want +got):\n%s", diff)
			}
			skipped := make(map[string]int)
			for _, s := range skips(r) {
				for reason := range tt.skipped {
					if strings.HasPrefix(s.Reason, reason) {
						s.Reason = reason
					}
				}
				skipped[s.Reason] += s.Count
			}
			if diff := cmp.Diff(tt.skipped, skipped, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("left out (-want +got):\n%s", diff)
			}
			counted(t, h, r)
		})
	}
}

func skips(r sydent.Report) []sydent.Skip {
	var all []sydent.Skip
	for _, p := range r.Parts {
		all = append(all, p.Skipped...)
	}
	return all
}

// counted checks that every row is accounted for once, and every binding that is
// brought over is there.
func counted(t *testing.T, h herald, r sydent.Report) {
	t.Helper()
	for _, p := range r.Parts {
		if p.Note != "" || p.Name == "removals" { // a removal that finds nothing is nothing
			continue
		}
		sum := p.Done + p.Known
		for _, s := range p.Skipped {
			sum += s.Count
		}
		if sum != p.Read {
			t.Errorf("%s: %d read, %d accounted for", p.Name, p.Read, sum)
		}
	}
	n, err := h.db.Bindings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if done := part(t, r, "bindings").Done; n != int64(done) {
		t.Errorf("%d bindings are there, %d were brought over", n, done)
	}
}
