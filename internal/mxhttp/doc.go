// Package mxhttp holds the conventions that every Matrix HTTP API shares, on
// top of gin: the shape of errors, strict JSON in and plain JSON out, CORS,
// recovery, request ids, the access log and the request metrics.
//
// It knows no endpoint of any service, and it does not listen; package serve
// does.
package mxhttp
