//go:build unix

package file_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/file"
	"github.com/caissonrun/caisson/component/storage/storagetest"
	"github.com/caissonrun/caisson/internal/crash"
)

func TestMain(m *testing.M) {
	storagetest.Child(openPlace)
	os.Exit(m.Run())
}

func openPlace(place string) (storage.Storage, error) { return file.Open(place, nil) }

// A process is killed at every write, by SIGKILL.
func TestKilled(t *testing.T) {
	storagetest.Killed(t, crash.Storage(), openPlace, memory, leftover)
}

// memory is a folder in memory where there is one: a kill does not ask for a
// disk, and there are hundreds.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", fmt.Sprintf("caisson-test-%d-", os.Getpid()))
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// leftover lists what should not be there: what is being written by nobody,
// versions of tables that are not the last, contents of files that nothing
// describes, and a table that people see another version of.
func leftover(place string) ([]string, error) {
	var left []string
	err := filepath.WalkDir(place, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(place, path)
		if err != nil {
			return err
		}
		dir, name := filepath.Split(rel)
		switch {
		case strings.HasPrefix(rel, ".caisson/work/"):
			left = append(left, rel)
		case strings.HasPrefix(filepath.Base(dir), ".") && dir != "files/.loads/" && dir != "files/.adding/" && !strings.HasPrefix(dir, ".caisson/"):
			described, err := os.ReadFile(filepath.Join(place, filepath.Dir(filepath.Clean(dir)), strings.TrimPrefix(filepath.Base(dir), ".")+".json"))
			if err != nil || !strings.Contains(string(described), fmt.Sprintf("%q", name)) {
				left = append(left, rel)
			}
			if strings.HasSuffix(name, ".csv") && !sameAsShown(place, dir, path) {
				left = append(left, rel+" is not what people see")
			}
		case dir == "files/" && !strings.HasSuffix(name, ".json"):
			id, _, _ := strings.Cut(name, "_")
			if described, err := os.ReadFile(filepath.Join(place, "files", id+".json")); err != nil || !strings.Contains(string(described), name) {
				left = append(left, rel)
			}
		}
		return nil
	})
	return left, err
}

func sameAsShown(place, dir, path string) bool {
	shown, err := os.Stat(filepath.Join(place, filepath.Dir(filepath.Clean(dir)), strings.TrimPrefix(filepath.Base(dir), ".")+".csv"))
	if err != nil {
		return false
	}
	own, err := os.Stat(path)
	return err == nil && os.SameFile(shown, own)
}
