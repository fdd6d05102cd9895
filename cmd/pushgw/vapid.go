package main

import (
	"fmt"
	"os"

	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/push/webpush"
)

// vapid makes a key that Web Push is signed with, or shows what web pages need to
// know of those in a file. The private key goes to standard output and its public
// half to standard error, so that the output is the file.
func (p *program) vapid(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "new":
		private, public, err := webpush.NewVAPIDKey()
		if err != nil {
			return err
		}
		fmt.Fprintln(p.stderr, "applicationServerKey:", public)
		_, err = fmt.Fprint(p.stdout, private)
		return err
	case len(args) == 2 && args[0] == "show":
		text, err := os.ReadFile(args[1])
		if err != nil {
			return fmt.Errorf("vapid show: %w", err)
		}
		list, err := webpush.PublicKeys(string(text))
		if err != nil {
			return fmt.Errorf("vapid show: the file %w", err)
		}
		for _, public := range list {
			fmt.Fprintln(p.stdout, public)
		}
		return nil
	default:
		fmt.Fprintln(p.stderr, "usage: pushgw vapid new > vapid.pem, or pushgw vapid show FILE")
		return cmdline.ErrUsage
	}
}
