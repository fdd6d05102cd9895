package sqlstore

import (
	"encoding/hex"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/matrix-herald/herald/identity"
)

// dialect is what differs between the two databases, beside opening them.
type dialect struct {
	migrations string // folder below migrations
	goose      goose.Dialect
	// migrationLock lets one of several processes migrate while the others wait.
	migrationLock func() ([]goose.ProviderOption, error)
	// lookup is lookupQuery with the list of digests that list makes. One
	// statement serves lists of any length.
	lookup string
	list   func([]identity.Digest) any
}

// lookupQuery finds the users of the digests in the list $1 under the pepper $2.
func lookupQuery(inList string) string {
	return `SELECT hashes.digest, bindings.user_id FROM hashes JOIN bindings ON bindings.id = hashes.binding_id
		WHERE hashes.digest ` + inList + ` AND hashes.pepper_id = $2`
}

func postgres() dialect {
	return dialect{
		migrations: "postgres",
		goose:      goose.DialectPostgres,
		lookup:     lookupQuery("= ANY($1)"),
		list: func(digests []identity.Digest) any {
			list := make([][]byte, len(digests))
			for i := range digests {
				list[i] = digests[i][:]
			}
			return list
		},
		migrationLock: func() ([]goose.ProviderOption, error) {
			const seconds, tries = 1, 300
			l, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(seconds, tries))
			return []goose.ProviderOption{goose.WithSessionLocker(l)}, err
		},
	}
}

func sqlite() dialect {
	return dialect{
		migrations: "sqlite",
		goose:      goose.DialectSQLite3,
		lookup:     lookupQuery("IN (SELECT unhex(value) FROM json_each($1))"),
		list: func(digests []identity.Digest) any {
			list := []byte{'['}
			for i := range digests {
				if i > 0 {
					list = append(list, ',')
				}
				list = append(hex.AppendEncode(append(list, '"'), digests[i][:]), '"')
			}
			return string(append(list, ']'))
		},
		// SQLite has no lock that spans transactions; see migrate.
		migrationLock: func() ([]goose.ProviderOption, error) { return nil, nil },
	}
}
