package sqlstore_test

import (
	"testing"

	"github.com/matrix-herald/herald/identity/storetest"
)

func TestImportContract(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		storetest.RunImports(t, func(t *testing.T) storetest.ImportStore { return open(t, newDatabase(t)) })
	})
}
