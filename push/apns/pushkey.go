package apns

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// Device tokens have 32 bytes today. Apple does not promise that they will
// ("Registering your app with APNs"), so the bounds only keep out what cannot
// be one: the longest fills a pushkey of 512 hexadecimal digits.
const (
	minToken = 16
	maxToken = 256
	minHex   = 64 // digits; what is shorter, or an odd number of them, is base64
)

// DeviceToken returns the device token that pushkey stands for as lower-case
// hexadecimal digits, the only form that may enter the path of a request. Both
// base64 alphabets are read, with or without padding, and white space is passed
// over. It is "" where the pushkey is not a device token.
func DeviceToken(pushkey string) string {
	pushkey = strings.Join(strings.Fields(pushkey), "")
	decode := decodeBase64
	if len(pushkey) >= minHex && len(pushkey)%2 == 0 && onlyHex(pushkey) {
		decode = hex.DecodeString
	}
	token, err := decode(pushkey)
	if err != nil || len(token) < minToken || len(token) > maxToken {
		return ""
	}
	return hex.EncodeToString(token)
}

func onlyHex(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

func decodeBase64(s string) ([]byte, error) {
	if len(s)%4 == 0 {
		s = strings.TrimSuffix(strings.TrimSuffix(s, "="), "=")
	}
	if strings.ContainsAny(s, "-_") {
		return base64.RawURLEncoding.DecodeString(s)
	}
	return base64.RawStdEncoding.DecodeString(s)
}
