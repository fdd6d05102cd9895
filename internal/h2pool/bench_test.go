package h2pool_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// benchmark sends b.N requests from a number of goroutines.
func benchmark(b *testing.B, s *server, rt http.RoundTripper, parallel int) {
	b.ReportAllocs()
	var wg sync.WaitGroup
	work := make(chan struct{}, parallel)
	for range parallel {
		wg.Go(func() {
			for range work {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "https://"+s.addr+"/push", strings.NewReader("body"))
				if err != nil {
					b.Error(err)
					continue
				}
				resp, err := rt.RoundTrip(req)
				if err != nil {
					b.Error(err)
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	for b.Loop() {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
}

func BenchmarkPool(b *testing.B) {
	for _, n := range []int{1, 64, 512} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			s := startServer(b, func(http.ResponseWriter, *http.Request) {}, maxStreams(1000))
			benchmark(b, s, s.pool(b), n)
		})
	}
}

func BenchmarkTransport(b *testing.B) {
	for _, n := range []int{1, 64, 512} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			s := startServer(b, func(http.ResponseWriter, *http.Request) {}, maxStreams(1000))
			tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots}, ForceAttemptHTTP2: true}
			b.Cleanup(tr.CloseIdleConnections)
			benchmark(b, s, tr, n)
		})
	}
}
