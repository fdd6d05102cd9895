package signing

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
)

// Errors of signatures.
var (
	ErrNoSignature  = errors.New("not signed with this key")
	ErrBadSignature = errors.New("signature does not match")
	ErrSignatures   = errors.New("signatures are not an object of objects")
)

// Sign adds the signature of serverName with key to obj, in obj["signatures"],
// beside those that are there (Matrix appendices, "Signing JSON"). It covers
// all members but "signatures" and "unsigned". On an error obj is as it was:
// ErrKey for the zero Key, ErrSignatures, or an error of Canonical.
func Sign(obj map[string]any, serverName string, key Key) error {
	if key.private == nil {
		return fmt.Errorf("sign: %w", ErrKey)
	}
	all, ours, err := signatures(obj, serverName)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	message, err := signedBytes(obj)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	// Copies, so that an object that shares its signatures with this one is
	// not signed by accident.
	ours, all = copied(ours), copied(all)
	ours[key.id] = base64.RawStdEncoding.EncodeToString(ed25519.Sign(key.private(), message))
	all[serverName] = ours
	obj["signatures"] = all
	return nil
}

// Verify checks the signature that serverName has put on obj with the key named
// keyID, whose public half is public. It returns ErrNoSignature if there is
// none, ErrBadSignature if it is malformed or made for other content, and
// ErrKeyID, ErrKey, ErrSignatures or an error of Canonical if it cannot be
// checked. The object must come from Parse if it came from outside.
func Verify(obj map[string]any, serverName, keyID string, public ed25519.PublicKey) error {
	// Only the algorithm matters: other servers name their keys as they please.
	if !strings.HasPrefix(keyID, algorithm+":") {
		return fmt.Errorf("verify: %w", ErrKeyID)
	}
	if len(public) != ed25519.PublicKeySize {
		return fmt.Errorf("verify: %w", ErrKey)
	}
	_, theirs, err := signatures(obj, serverName)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	value, there := theirs[keyID]
	if !there {
		return ErrNoSignature
	}
	text, _ := value.(string)
	signature, err := DecodeBase64(text, ed25519.SignatureSize)
	if err != nil {
		return ErrBadSignature
	}
	message, err := signedBytes(obj)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if !ed25519.Verify(public, message, signature) {
		return ErrBadSignature
	}
	return nil
}

// signatures returns all signatures of obj and those of one server; both are
// nil where there are none.
func signatures(obj map[string]any, serverName string) (all, one map[string]any, err error) {
	if all, err = object(obj, "signatures"); err != nil {
		return nil, nil, err
	}
	one, err = object(all, serverName)
	return all, one, err
}

func object(in map[string]any, name string) (map[string]any, error) {
	v, there := in[name]
	o, ok := v.(map[string]any)
	if there && !ok {
		return nil, ErrSignatures
	}
	return o, nil
}

func copied(o map[string]any) map[string]any {
	c := make(map[string]any, len(o)+1)
	maps.Copy(c, o)
	return c
}

// signedBytes is what a signature covers.
func signedBytes(obj map[string]any) ([]byte, error) {
	bare := maps.Clone(obj)
	delete(bare, "signatures")
	delete(bare, "unsigned")
	return Canonical(bare)
}
