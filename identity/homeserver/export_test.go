package homeserver

// WithWellKnownPort makes .well-known files be asked for at port, because tests
// may not listen on 443.
func (o Options) WithWellKnownPort(port uint16) Options {
	o.wellKnownPort = port
	return o
}

// The parsers of what other servers send.
var (
	ParseWellKnown = parseWellKnown
	Lifetime       = lifetime
)
