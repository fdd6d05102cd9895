package harness

import (
	"context"
	"io"
	"net"
	"testing"
)

// Program is a program that runs in the process of its test. It calls
// around.Listening when it serves, and returns its exit status.
type Program func(ctx context.Context, around Surroundings, args []string) (code int)

// Surroundings is what a Program sees of the world.
type Surroundings struct {
	Stdout, Stderr io.Writer
	Environ        []string
	Listening      func(api []net.Addr, admin net.Addr)
}

// Command runs the program to its end.
func (p Program) Command(t testing.TB, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	out, errs := NewOutput(), NewOutput()
	code = p(t.Context(), Surroundings{Stdout: out, Stderr: errs, Environ: environ}, args)
	return code, out.String(), errs.String()
}

// Serving is a Program that serves.
type Serving struct {
	// API and Admin are the URLs that it listens at.
	API, Admin string
	Out, Errs  *Output
	// Stop ends it and returns its exit status.
	Stop func() (code int)
}

// Serve runs the program until Stop or the end of the test.
func (p Program) Serve(t testing.TB, environ []string, args ...string) *Serving {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &Serving{Out: NewOutput(), Errs: NewOutput()}
	listening, ended := make(chan struct{}), make(chan struct{})
	around := Surroundings{Stdout: s.Out, Stderr: s.Errs, Environ: environ, Listening: func(api []net.Addr, admin net.Addr) {
		s.API = "http://" + api[0].String()
		if admin != nil {
			s.Admin = "http://" + admin.String()
		}
		close(listening)
	}}
	var code int
	go func() {
		defer close(ended)
		code = p(ctx, around, args)
	}()
	s.Stop = func() int {
		cancel()
		<-ended
		return code
	}
	t.Cleanup(func() { s.Stop() })
	select {
	case <-listening:
	case <-ended:
		t.Fatalf("the program ended with status %d:\n%s", code, s.Errs)
	}
	return s
}
