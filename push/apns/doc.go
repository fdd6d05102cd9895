// Package apns delivers notifications to Apple devices through the Apple Push
// Notification service: it owns the payload, the provider credentials, the
// request and the meaning of each answer. It does not retry and remembers
// nothing about devices; both are the gateway's.
package apns
