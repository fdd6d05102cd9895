// Package push is the domain of the Matrix Push Gateway: what a notification
// is, which app a device belongs to, and how one notification reaches all of
// its devices within one deadline.
//
// It knows neither HTTP nor any push service; those live in push/httpapi and
// in the provider packages below push.
package push
