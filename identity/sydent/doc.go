// Package sydent brings over what a Sydent knows: it reads Sydent's SQLite
// database and configuration and puts bindings, access tokens, accepted terms,
// the lookup pepper and the signing key into the stores of the identity service.
// It knows nothing of how the service is configured or reached, and never writes
// to what is Sydent's.
package sydent
