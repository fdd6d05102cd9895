package homeserver

import "errors"

var (
	// ErrUnreachable means that there was no usable answer from the homeserver,
	// for whatever reason: no such host, connection refused, address not
	// allowed, certificate refused, time out, an answer that makes no sense.
	// Its text is always the same, because whoever named the server must not
	// learn what there is at addresses of their choice. The reason can be
	// logged: errors.As finds safehttp's and net's errors behind it.
	ErrUnreachable = errors.New("homeserver did not give a usable answer")
	// ErrTokenRefused means the homeserver does not know the OpenID token, or
	// not any more.
	ErrTokenRefused = errors.New("homeserver refused the OpenID token")
	// ErrSubMismatch means the homeserver answered with something that is not a
	// user ID of its own.
	ErrSubMismatch = errors.New("homeserver answered for a user who is not its own")
	// ErrWrongDestination means a request is signed for another server than ours.
	ErrWrongDestination = errors.New("request is meant for another server")
	// ErrBadSignature means that a request does not prove that a homeserver made
	// it: no X-Matrix authorization, one that is malformed, a key that the
	// homeserver does not have (any more), a signature of something else. Its
	// text is always the same; the reason stands behind it for the log.
	ErrBadSignature = errors.New("request is not signed by the homeserver it names")
	// ErrBusy means that as many exchanges are running already as may, with all
	// servers or with those at the same place.
	ErrBusy = errors.New("too many requests to homeservers at once")

	errTimeout = errors.New("homeserver took too long")
)

// unreachableError is ErrUnreachable with the reason kept behind it.
type unreachableError struct{ cause error }

func (e *unreachableError) Error() string { return ErrUnreachable.Error() }

func (e *unreachableError) Unwrap() []error { return []error{ErrUnreachable, e.cause} }

// badSignatureError is ErrBadSignature with the reason kept behind it.
type badSignatureError struct{ cause error }

func (e *badSignatureError) Error() string { return ErrBadSignature.Error() }

func (e *badSignatureError) Unwrap() []error { return []error{ErrBadSignature, e.cause} }
