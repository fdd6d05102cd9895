// Package sqlstore keeps everything the identity service remembers in
// PostgreSQL or SQLite, behind the store interfaces of identity and of
// threepid/validation. It holds no rule of the service: what a change means and
// when it is due is decided there.
//
// SQL is written once, in the subset both databases share; what differs is in
// dialect.go and in the folders below migrations.
package sqlstore
