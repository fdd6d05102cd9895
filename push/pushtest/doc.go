// Package pushtest holds what tests of the push gateway share: stand-ins for
// the push services that speak their real protocols over real TLS and HTTP/2
// on 127.0.0.1, the certificates and keys they need, and the contract that
// every push.Provider passes. It is used by tests and benchmarks only.
package pushtest
