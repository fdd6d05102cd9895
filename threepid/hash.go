package threepid

import (
	"crypto/sha256"
	"encoding/base64"
)

// hashLength is the length of a hash: 32 bytes in unpadded base64.
const hashLength = (sha256.Size*8 + 5) / 6

// strictEncoding has one spelling for each hash.
var strictEncoding = base64.RawURLEncoding.Strict()

// LookupHash returns the hash under which clients look an address up with the
// algorithm "sha256": unpadded URL-safe base64 of SHA-256 over "address medium
// pepper" (Identity Service API, "Hashing"; MSC2134). Hash each of the
// address's Spellings.
func LookupHash(address string, medium Medium, pepper string) string {
	sum := LookupDigest(address, medium, pepper)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// LookupDigest returns the 32 bytes that LookupHash encodes, for storage.
func LookupDigest(address string, medium Medium, pepper string) [sha256.Size]byte {
	return sha256.Sum256([]byte(address + " " + string(medium) + " " + pepper))
}

// ParseLookupHash decodes a hash as LookupHash writes it. It reports false for
// every other string, padded, standard base64 and other lengths included:
// clients compare the hashes in an answer with the very strings they sent.
func ParseLookupHash(s string) (digest [sha256.Size]byte, ok bool) {
	if len(s) != hashLength {
		return digest, false
	}
	var text [hashLength]byte // a lookup has thousands, so this does not allocate
	copy(text[:], s)
	n, err := strictEncoding.Decode(digest[:], text[:])
	if err != nil || n != sha256.Size {
		return [sha256.Size]byte{}, false
	}
	return digest, true
}
