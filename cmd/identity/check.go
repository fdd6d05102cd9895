package main

import (
	"net/url"
)

// warnings say what of the configuration works but should not stay so.
func (c *Config) warnings() []string {
	u, err := url.Parse(c.PublicBaseURL)
	if err != nil || u.Scheme != "http" || isLoopbackHost(u.Hostname()) {
		return nil
	}
	return []string{"public_base_url: it is not https, so tokens and codes can be read on their way"}
}
