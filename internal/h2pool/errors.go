package h2pool

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/http2"
)

// ErrClosed is the cause of errors for requests on a closed pool.
var ErrClosed = errors.New("connection pool closed")

// UnprocessedError wraps the cause of a failure that happened before the
// server can have acted on the request: no connection, no stream, or the
// server said so itself with GOAWAY or REFUSED_STREAM.
type UnprocessedError struct {
	Op  string // what was being done
	Err error
}

func (e *UnprocessedError) Error() string { return "h2pool: " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *UnprocessedError) Unwrap() error { return e.Err }

// Unprocessed reports whether the server cannot have processed the request
// that failed with err, so that sending it again cannot do anything twice.
//
// Anything that ends a request after it was handed to a connection, its
// context included, is not unprocessed. A request may then have been written in
// part without net/http saying so: httptrace.WroteHeaders fires only after the
// write, so its silence proves nothing.
func Unprocessed(err error) bool {
	_, ok := errors.AsType[*UnprocessedError](err)
	return ok
}

// GoAwayError is the server's announcement that it leaves a connection. It
// accompanies the error of every request that failed because of it.
type GoAwayError struct {
	LastStreamID uint32        // higher streams were not processed
	Code         http2.ErrCode // NO_ERROR for an orderly shutdown
	Debug        string        // the server's words (for APNs a JSON reason), at most a few KiB; untrusted
	Err          error         // the request's own error
}

func (e *GoAwayError) Error() string {
	s := fmt.Sprintf("server sent GOAWAY %v, debug data %.256q", e.Code, e.Debug)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the request's own error.
func (e *GoAwayError) Unwrap() error { return e.Err }

// explain turns an error of net/http's connection into one of this package's.
func (c *conn) explain(ctx context.Context, err error) error {
	undone := notProcessed(err)
	if g := c.goAway.Load(); g != nil && ctx.Err() == nil {
		e := *g
		e.Err = err
		err = &e
	}
	if undone {
		return &UnprocessedError{Op: "request to " + c.pool.opts.Addr, Err: err}
	}
	return fmt.Errorf("h2pool: request to %s: %w", c.pool.opts.Addr, err)
}

// notProcessed recognises the errors by which a [http.ClientConn] says that no
// stream was opened or that the server did not process it. net/http exports
// none of them and its stream error only by errors.As into x/net's type;
// the tests meet each of these against a server, so that a Go release which
// changes one fails there.
func notProcessed(err error) bool {
	if e, ok := errors.AsType[http2.StreamError](err); ok {
		return e.Code == http2.ErrCodeRefusedStream
	}
	switch msg := err.Error(); msg {
	case "http2: client conn not usable",
		"http2: client conn could not be established",
		"http2: Transport received Server's graceful shutdown GOAWAY":
		return true
	default:
		// The very first stream, above the last one of a GOAWAY with an error.
		return strings.HasPrefix(msg, "http2: Transport received GOAWAY from server ErrCode:")
	}
}
