package main

import (
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/matrix-herald/herald/identity"
)

// byOperator is a removal by whoever runs this command: the user of this machine,
// and behind sudo the one who called it. Containers have no names for users.
func byOperator() identity.Removal {
	name := "user " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if caller := os.Getenv("SUDO_USER"); caller != "" && caller != name {
		name = caller + " as " + name
	}
	return identity.Removal{At: time.Now(), By: name}
}
