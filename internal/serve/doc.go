// Package serve runs the HTTP side of a service: it listens for the API and for
// administrators, says whether the service is well, and drains it on the way
// out.
//
// It does not know what the API is; that is the Handler it is given.
package serve
