package homeserver

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// ErrUserID means a string is not a user ID.
var ErrUserID = errors.New("not a valid user ID")

// UserID is a valid user ID. User IDs are compared byte for byte, with ==.
type UserID struct {
	id     string
	server ServerName
}

// ParseUserID returns the user ID s, or [ErrUserID].
//
// Beside today's localparts it takes the historical ones (Appendices,
// "Historical User IDs"): any code points but ":" and NUL, even none. Who shows
// a user ID has to escape it.
func ParseUserID(s string) (UserID, error) {
	local, server, ok := strings.Cut(s, ":")
	if !ok || len(s) > maxNameBytes || !strings.HasPrefix(local, "@") ||
		!utf8.ValidString(local) || strings.ContainsRune(local, 0) {
		return UserID{}, ErrUserID
	}
	name, err := ParseServerName(server)
	if err != nil {
		return UserID{}, ErrUserID
	}
	return UserID{id: s, server: name}, nil
}

// String returns the user ID as it was parsed.
func (u UserID) String() string { return u.id }

// Server returns the homeserver that the user ID belongs to.
func (u UserID) Server() ServerName { return u.server }
