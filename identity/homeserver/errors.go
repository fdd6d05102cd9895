package homeserver

import (
	"errors"

	"github.com/matrix-herald/herald/identity"
)

var errTimeout = errors.New("homeserver took too long")

// unreachableError is identity.ErrUnreachable with the reason kept behind it. Its text
// is always the same, because whoever named the server must not learn what there is
// at addresses of their choice. The reason can be logged: errors.As finds safehttp's
// and net's errors behind it.
type unreachableError struct{ cause error }

func (e *unreachableError) Error() string { return identity.ErrUnreachable.Error() }

func (e *unreachableError) Unwrap() []error { return []error{identity.ErrUnreachable, e.cause} }

// badSignatureError is identity.ErrNotSigned with the reason kept behind it: no X-Matrix
// authorization, one that is malformed, a key that the homeserver does not have (any
// more), a signature of something else.
type badSignatureError struct{ cause error }

func (e *badSignatureError) Error() string { return identity.ErrNotSigned.Error() }

func (e *badSignatureError) Unwrap() []error { return []error{identity.ErrNotSigned, e.cause} }
