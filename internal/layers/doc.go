// Package layers knows which package of this module may import which, and
// checks it by parsing the source files. It owns the table behind
// docs/architecture.md; it contains no code that a service runs, and nothing
// imports it.
//
// The check parses files itself instead of asking `go list`, because the test
// cache sees the files a test opens but not what a child process reads: a test
// that shells out is served stale.
package layers
