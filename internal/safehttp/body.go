package safehttp

import (
	"errors"
	"io"
)

// body is an answer's body that ends with ErrTooLarge at the limit and whose
// errors do not quote the peer.
type body struct {
	io.Reader
	io.Closer
	host string
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = newRequestError(b.host, tooLarge(err))
	}
	return n, err
}
