package fcm_test

import (
	"testing"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/pushtest"
)

func TestTroubleOnTheWayLosesNothingAndDoublesNothing(t *testing.T) {
	t.Parallel()
	pushtest.TestTrouble(t, func(t *testing.T, trouble pushtest.Trouble, d *pushtest.Troubled) (push.Provider, pushtest.TroubledPeer) {
		fake := pushtest.StartFCM(t, pushtest.FCMOptions{Answer: func(r pushtest.FCMRequest) pushtest.FCMAnswer {
			if !d.Meets(r.Message.Token) {
				return pushtest.FCMAnswer{}
			}
			return pushtest.FCMAnswer{GoAway: trouble == pushtest.GoAway, Cut: trouble == pushtest.Drops, Hang: trouble == pushtest.Hanging}
		}})
		provider := open(t, fake)
		if err := fake.WaitTokens(t.Context(), 1); err != nil { // which has a connection of its own
			t.Fatal(err)
		}
		return provider, fake
	}, nil)
}
