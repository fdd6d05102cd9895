package ratelimit_test

import (
	"io"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/internal/redisconn/redistest"
)

// benchmark runs over both backends: five limits, as a request for a text
// message has, and a lookup of a thousand and of ten thousand addresses.
func benchmark(b *testing.B, l *ratelimit.Limiter) {
	limit := per(1<<31-1, 24*time.Hour)
	b.Run("5limits", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				k := strconv.Itoa(rand.IntN(50_000))
				_, err := l.Take(b.Context(), ratelimit.Rate("wide", limit, k), ratelimit.Rate("narrow", limit, k), ratelimit.Rate("other", limit, k),
					ratelimit.Rate("members", limit, k), ratelimit.Rate("more members", limit, k))
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	for _, n := range []int{1000, 10_000} {
		list := numbers(0, n)
		b.Run("members"+strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				k := strconv.Itoa(rand.IntN(20))
				_, err := l.Take(b.Context(), ratelimit.Distinct("members", limit, k, list), ratelimit.Distinct("more members", limit, "k", list))
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkMemory(b *testing.B) {
	l, _ := open(b, func(*ratelimit.Options) {})
	benchmark(b, l)
}

func BenchmarkRedis(b *testing.B) {
	cfg := redistest.Shared(b)
	conn, _ := redistest.Connect(b, cfg, io.Discard)
	l, _ := open(b, func(o *ratelimit.Options) { o.Redis = conn })
	benchmark(b, l)
}
