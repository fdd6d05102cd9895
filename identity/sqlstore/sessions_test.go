package sqlstore_test

import (
	"testing"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/threepid/validation"
)

func TestSessions(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		storetest.Sessions(t, func(t *testing.T) validation.Store { return open(t, newDatabase(t)) })
	})
}
