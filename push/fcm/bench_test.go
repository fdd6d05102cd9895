package fcm_test

import (
	"testing"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/pushtest"
)

func BenchmarkSend(b *testing.B) {
	fake := pushtest.StartFCM(b, pushtest.FCMOptions{Discard: true})
	provider := open(b, fake)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if out := provider.Send(b.Context(), message("token")); out.Reason != push.ReasonSent {
				b.Errorf("got %s (%s) %v", out.Kind, out.Reason, out.Err)
				return
			}
		}
	})
}
