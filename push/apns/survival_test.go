package apns_test

import (
	"slices"
	"testing"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/pushtest"
)

// Conformance (APNs): GOAWAY and its last words (also TestTheLastWordsOnAConnectionAreHeard)
// Conformance (attempts): GOAWAY, handshakes that are slow, dropped connections, hung streams | every device gets it; nothing is repeated but what is `uncertain`, and that under the same id
func TestTroubleOnTheWayLosesNothingAndDoublesNothing(t *testing.T) {
	t.Parallel()
	open := func(t *testing.T, trouble pushtest.Trouble, d *pushtest.Troubled) (push.Provider, pushtest.TroubledPeer) {
		app := start(t, pushtest.APNsOptions{Answer: func(r pushtest.APNsRequest) pushtest.APNsAnswer {
			if !d.Meets(r.Token) {
				return pushtest.APNsAnswer{}
			}
			return pushtest.APNsAnswer{GoAway: trouble == pushtest.GoAway, Cut: trouble == pushtest.Drops, Hang: trouble == pushtest.Hanging}
		}}, nil)
		return app.Provider, app.fake
	}
	// What is repeated has the same id, by which Apple may tell.
	pushtest.TestTrouble(t, open, func(t *testing.T, peer pushtest.TroubledPeer, posts map[string]int) {
		ids := make(map[string][]string)
		for _, r := range peer.(*pushtest.APNs).Requests() {
			if id := r.Header.Get("Apns-Id"); !slices.Contains(ids[r.Token], id) {
				ids[r.Token] = append(ids[r.Token], id)
			}
		}
		for token, n := range posts {
			if len(ids[token]) > n {
				t.Errorf("%s was posted for %d times and got pushes of %d ids", token, n, len(ids[token]))
			}
		}
	})
}
