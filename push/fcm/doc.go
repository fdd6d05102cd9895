// Package fcm delivers notifications to Android devices, and to whatever else
// a Firebase project reaches, through the HTTP v1 API of Firebase Cloud
// Messaging. It owns the message's form, the access tokens of service accounts
// and the meaning of FCM's answers. It does not own retries, remembered
// rejections or any other policy that spans several attempts; that is push's.
package fcm
