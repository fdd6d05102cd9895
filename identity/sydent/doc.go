// Package sydent imports the data of a Sydent: it reads Sydent's SQLite database
// and configuration and puts bindings, access tokens, accepted terms, the lookup
// pepper and the signing key into the stores of the identity service. It does not
// know how the service is configured or reached, and never writes to Sydent's
// files.
package sydent
