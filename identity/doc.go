// Package identity is the domain of the Matrix Identity Service: which accounts
// use it and what terms they accepted, which third-party identifiers belong to
// which user, how those are looked up under a pepper that changes, and with
// which keys the service signs.
//
// It does not prove who owns an address: it asks the validation sessions, through
// the one-method interface Proofs. It knows neither HTTP nor any
// database; those live in identity/httpapi and identity/sqlstore.
package identity
