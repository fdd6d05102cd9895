package email_test

import (
	"testing"
	"time"

	"github.com/matrix-herald/herald/threepid/email"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

// BenchmarkMails sends to a relay on the loopback whose TLS handshake takes 2 ms,
// with all slots in use.
func BenchmarkMails(b *testing.B) {
	relay := threepidtest.NewSMTP(b, threepidtest.SMTPOptions{Handshake: 2 * time.Millisecond})
	s, err := email.New(options(config(relay)))
	if err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(16)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Send(b.Context(), challenge()); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "mails/s")
}
