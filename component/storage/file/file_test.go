//go:build unix

package file_test

import (
	"strings"
	"testing"

	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/file"
	"github.com/caissonrun/caisson/component/storage/storagetest"
)

func open(t *testing.T, dir string, opts *file.Options) storage.Storage {
	t.Helper()
	s, err := file.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSuite(t *testing.T) {
	for name, opts := range map[string]*file.Options{
		"Plain":  {CellLimit: 1 << 20},
		"NoRoom": {CellLimit: 1 << 20, Memory: 1 << 17}, // rows do not fit into memory
	} {
		t.Run(name, func(t *testing.T) {
			storagetest.Run(t, storagetest.Harness{
				New: func(t *testing.T) storage.Storage { return open(t, memory(t), opts) },
				Again: func(t *testing.T, s storage.Storage) storage.Storage {
					return open(t, strings.TrimPrefix(s.Name(), "file:"), opts)
				},
				CellLimit: 1 << 20,
			})
		})
	}
}
