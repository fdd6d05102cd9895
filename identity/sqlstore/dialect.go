package sqlstore

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/jackc/pgx/v5/pgtype"
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
	// inList is what a digest is compared by with those that list makes a parameter
	// of, $1. One statement serves lists of any length, such as lookup.
	inList, lookup string
	list           func([]identity.Digest) any
	// prepares is whether lookup is worth preparing: the driver forgets a
	// statement that was not.
	prepares bool
	// skipLocked ends a SELECT of rows that the statement around it changes, and
	// leaves out those that somebody else is changing. Waiting for them while
	// holding others would be half of a deadlock.
	skipLocked string
	// beforeErasing and afterErasing make that what Erase removes is no longer in
	// the database's files.
	beforeErasing, afterErasing string
}

// lookupQuery finds the users of the digests in the list $1 under the pepper $2.
func lookupQuery(inList string) string {
	return `SELECT hashes.digest, bindings.user_id FROM hashes JOIN bindings ON bindings.id = hashes.binding_id
		WHERE hashes.digest ` + inList + ` AND hashes.pepper_id = $2`
}

func postgres() dialect {
	const inList = "= ANY($1)"
	return dialect{
		migrations: "postgres",
		goose:      goose.DialectPostgres,
		inList:     inList,
		lookup:     lookupQuery(inList),
		skipLocked: " FOR UPDATE SKIP LOCKED",
		list: func(digests []identity.Digest) any {
			list := make(pgtype.FlatArray[[]byte], len(digests)) // a plain slice takes twice as long
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
	const inList = "IN (SELECT unhex(value) FROM json_each($1))"
	return dialect{
		migrations: "sqlite",
		goose:      goose.DialectSQLite3,
		prepares:   true,
		inList:     inList,
		lookup:     lookupQuery(inList),
		list: func(digests []identity.Digest) any {
			const item = len(`"",`) + 2*sha256.Size
			list := append(make([]byte, 0, len("[]")+item*len(digests)), '[')
			for i := range digests {
				if i > 0 {
					list = append(list, ',')
				}
				list = append(hex.AppendEncode(append(list, '"'), digests[i][:]), '"')
			}
			return string(append(list, ']'))
		},
		// Pages that are no longer used are overwritten, too; and the log of changes,
		// which holds earlier ones, is taken into the file and cut, unless somebody
		// reads from it for long.
		beforeErasing: `PRAGMA secure_delete = ON`,
		afterErasing:  `PRAGMA wal_checkpoint(TRUNCATE)`,
		// SQLite has no lock that spans transactions; see migrate.
		migrationLock: func() ([]goose.ProviderOption, error) { return nil, nil },
	}
}
