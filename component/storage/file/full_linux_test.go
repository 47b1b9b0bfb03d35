package file_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/file"
	"golang.org/x/sys/unix"
)

// On a disk that is full a load fails as a whole, and what was there stays; with
// place again the same load is done.
func TestFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root mounts a small disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	for name, key := range map[string][]string{"Append": nil, "Upsert": {"id"}} {
		t.Run(name, func(t *testing.T) {
			place := dir + "/" + name
			s := open(t, place, &file.Options{Memory: 1 << 16})
			first := add("1", "1,Ada\n")
			first.PrimaryKey = key
			do(t, s, first)
			var rows strings.Builder
			for i := range 20000 {
				fmt.Fprintf(&rows, "%d,%s\n", i, strings.Repeat("x", 100))
			}
			if _, err := s.Load(t.Context(), add("2", rows.String())); !errors.Is(err, caisson.ErrExhausted) {
				t.Errorf("Load = %v, want ErrExhausted", err)
			}
			if got := export(t, s, nil); got != "\"id\",\"name\"\n\"1\",\"Ada\"\n" {
				t.Errorf("Export = %q", got)
			}
			if _, err := s.PutFile(t.Context(), &storage.NewFile{Load: "f", Name: "f"}, strings.NewReader(rows.String())); !errors.Is(err, caisson.ErrExhausted) {
				t.Errorf("PutFile = %v, want ErrExhausted", err)
			}
			do(t, s, add("2", "2,Bob\n"))
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if left, err := leftover(place); err != nil || len(left) > 0 {
				t.Errorf("left is %q, %v", left, err)
			}
		})
	}
}
