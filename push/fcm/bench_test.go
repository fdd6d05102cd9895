package fcm_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/fcm"
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

// hostileContents are contents that a room member may write, of about a size in
// bytes.
var hostileContents = map[string]func(size int) any{
	"body": func(size int) any { return map[string]any{"msgtype": "m.text", "body": strings.Repeat("<", size)} },
	"members": func(size int) any {
		content := make(map[string]any)
		for i := range size / 11 {
			content[strconv.Itoa(i)] = "a"
		}
		return content
	},
	"long members": func(size int) any {
		content := make(map[string]any)
		for i := range size/1010 + 1 {
			content[strconv.Itoa(i)] = strings.Repeat("é", 500)
		}
		return content
	},
	"list": func(size int) any {
		list := make([]any, size/4)
		for i := range list {
			list[i] = "é"
		}
		return list
	},
	"name": func(size int) any { return map[string]any{strings.Repeat("n", size): "a"} },
}

// BenchmarkDevices shows that the event's part of a message is made once for all
// devices of a request. "of-the-bound" is the CPU time of a request for a hundred
// devices in parts of what it may be: two requests for one device, and a hundred
// pushes of a plain message. It counts both ends of the connection.
func BenchmarkDevices(b *testing.B) {
	fake := pushtest.StartFCM(b, pushtest.FCMOptions{}) // for the access token
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"name":"x"}`)
	}))
	server.EnableHTTP2, server.TLS = true, fake.CA().ServerTLS(b)
	server.StartTLS()
	b.Cleanup(server.Close)
	cfg := configFor(fake)
	cfg.Endpoint = server.URL
	provider := openWith(b, connect(b, fcm.Options{RootCAs: fake.CA().Pool()}), cfg)
	send := func(devices int, content any) func() {
		return func() {
			d := message("token")
			d.Notification.Content, d.Common = content, new(push.Common)
			for range devices {
				if out := provider.Send(b.Context(), d); out.Reason != push.ReasonSent {
					b.Fatalf("got %s (%s) %v", out.Kind, out.Reason, out.Err)
				}
			}
		}
	}
	plain := message("token").Notification.Content
	send(1, plain)() // connects
	sends := cpuOf(10, send(100, plain))
	for name, content := range hostileContents {
		for _, size := range []int{1 << 10, 32 << 10, 512 << 10} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				content := content(size)
				one := cpuOf(10, send(1, content))
				before := cpuTime()
				for b.Loop() {
					send(100, content)()
				}
				hundred := (cpuTime() - before) / time.Duration(b.N)
				b.ReportMetric(float64(one.Microseconds()), "cpu-µs/device")
				b.ReportMetric(float64(hundred.Microseconds()), "cpu-µs/100-devices")
				b.ReportMetric(float64(hundred)/float64(2*one+sends), "of-the-bound")
			})
		}
	}
}

// cpuOf is the process's CPU time for one call of f, of a number of calls.
func cpuOf(calls int, f func()) time.Duration {
	before := cpuTime()
	for range calls {
		f()
	}
	return (cpuTime() - before) / time.Duration(calls)
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
