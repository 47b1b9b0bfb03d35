package sql_test

import (
	"testing"

	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/storagetest"
)

// TestStorage runs the suite on every database.
func TestStorage(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { suite(t, kinds[0].url) })
	t.Run("postgres", func(t *testing.T) {
		// To make a database for each of the cases takes longer than the suite.
		at := database(t)
		suite(t, func(t testing.TB) string {
			t.Cleanup(func() { admin(t, at, dropAll) })
			return at
		})
	})
}

// dropAll removes everything that Caisson makes in a database.
const dropAll = `DO $$ DECLARE name text; BEGIN
	FOR name IN SELECT nspname FROM pg_namespace WHERE nspname ~ '^(in|out)[.]' OR nspname = 'caisson' LOOP
		EXECUTE format('DROP SCHEMA %I CASCADE', name);
	END LOOP; END $$`

func suite(t *testing.T, fresh func(t testing.TB) string) {
	urls := map[storage.Storage]string{}
	storagetest.Run(t, storagetest.Harness{
		New: func(t *testing.T) storage.Storage {
			at := fresh(t)
			s := unclosed(t, at)
			urls[s] = at
			return s
		},
		Again: func(t *testing.T, s storage.Storage) storage.Storage { return unclosed(t, urls[s]) },
	})
}
