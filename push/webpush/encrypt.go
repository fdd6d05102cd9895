package webpush

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

const (
	// recordSize is what every push service has to take (RFC 8030, section 7.2).
	recordSize = 4096
	saltSize   = 16
	authSize   = 16
	keySize    = 65
	// headerSize is that of RFC 8188, section 2.1, with a public key for a keyid.
	headerSize = saltSize + 4 + 1 + keySize
	// maxPlain is the longest text with its padding: a byte ends the text, and
	// sixteen authenticate it.
	maxPlain = recordSize - headerSize - 1 - 16
	// padStep is what texts are padded to a multiple of, so that the length tells
	// less. Not to the maximum: Firefox on Android takes less.
	padStep = 128
)

// keys are what a browser gave for its subscription (RFC 8291, section 2).
type keys struct {
	public *ecdh.PublicKey
	auth   []byte
}

var (
	errPublicKey = errors.New("p256dh is not a public key on P-256")
	errAuth      = errors.New("auth is not 16 bytes in base64url")
	errTooLong   = errors.New("the text is too long for one record")
)

// parsePublicKey reads a p256dh.
func parsePublicKey(text string) (*ecdh.PublicKey, error) {
	raw, err := decode64(text)
	if err != nil || len(raw) != keySize {
		return nil, errPublicKey
	}
	public, err := ecdh.P256().NewPublicKey(raw)
	if err != nil {
		return nil, errPublicKey
	}
	return public, nil
}

// parseAuth reads an auth secret.
func parseAuth(text string) ([]byte, error) {
	raw, err := decode64(text)
	if err != nil || len(raw) != authSize {
		return nil, errAuth
	}
	return raw, nil
}

// decode64 reads base64 of either alphabet, with and without its padding.
func decode64(text string) ([]byte, error) {
	text = strings.NewReplacer("+", "-", "/", "_").Replace(withoutSpace(text))
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
}

// withoutSpace leaves white space out, which comes from copying.
func withoutSpace(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text)
}

// encrypt returns the body of a request that brings plain to the subscription, in
// the coding aes128gcm.
func (k keys) encrypt(plain []byte) ([]byte, error) {
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for one message: %w", err)
	}
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	padded := min((len(plain)+padStep-1)/padStep*padStep, maxPlain)
	return k.seal(private, salt, plain, padded-len(plain))
}

// seal encrypts plain with the key of one message (RFC 8291, section 3.4, and RFC
// 8188, section 2).
func (k keys) seal(private *ecdh.PrivateKey, salt, plain []byte, padding int) ([]byte, error) {
	if padding < 0 || len(plain)+padding > maxPlain {
		return nil, errTooLong
	}
	shared, err := private.ECDH(k.public)
	if err != nil {
		return nil, fmt.Errorf("agree on a secret: %w", err)
	}
	own := private.PublicKey().Bytes()
	secret, nonce, err := derive(shared, k.auth, salt, "WebPush: info\x00"+string(k.public.Bytes())+string(own))
	if err != nil {
		return nil, fmt.Errorf("derive the message's key: %w", err)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("make the cipher: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make the cipher: %w", err)
	}
	record := append(append(make([]byte, 0, len(plain)+1+padding), plain...), 2) // 2 ends the last record's text
	record = record[:len(record)+padding]
	body := append(make([]byte, 0, headerSize+len(record)+gcm.Overhead()), salt...)
	body = binary.BigEndian.AppendUint32(body, recordSize)
	body = append(append(body, keySize), own...)
	return gcm.Seal(body, nonce, record, nil), nil
}

// derive returns the content encryption key and the nonce.
func derive(shared, auth, salt []byte, info string) (key, nonce []byte, err error) {
	ikm, err := hkdf.Key(sha256.New, shared, auth, info, 32)
	if err != nil {
		return nil, nil, err
	}
	if key, err = hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: aes128gcm\x00", 16); err != nil {
		return nil, nil, err
	}
	nonce, err = hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: nonce\x00", 12)
	return key, nonce, err
}
