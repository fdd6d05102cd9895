package layers

// exits lists the packages that may open connections, with whose choice the
// other end is. Only internal/safehttp connects to what strangers name, so that
// its guard stands before every such address.
func exits() map[string]string {
	return map[string]string{
		"internal/safehttp": "anybody's, which is why it is guarded",
		"internal/h2pool":   "the operator's: push services and the proxy before them",
		"internal/doctor":   "our own: what the configuration says is our public URL",
		"internal/serve":    "our own: the health command asks the service beside it",
		"push/apns":         "the operator's, over the pool",
		"push/fcm":          "the operator's: FCM, over the pool, and the token endpoint of its service account",
		"threepid/email":    "the operator's: the mail relay, and the token endpoint of its provider",
	}
}

// dialers lists what opens connections, by package of the standard library. The
// clients of databases, Redis and traces are bound to their packages as
// technologies and connect to what the operator configures.
func dialers() map[string][]string {
	return map[string][]string{
		"net": {"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialIP", "DialUnix", "Dialer"},
		"net/http": {
			"Client", "Transport", "Get", "Head", "Post", "PostForm", "DefaultClient", "DefaultTransport",
		},
		"net/rpc":    {"Dial", "DialHTTP", "DialHTTPPath"},
		"crypto/tls": {"Dial", "DialWithDialer", "Dialer", "Client"},
	}
}
