//go:build unix

package folder_test

import (
	"os"
	"syscall"
	"testing"

	"github.com/caissonrun/caisson/internal/safefs"
)

func folderOwner(id int) *safefs.Owner { return &safefs.Owner{UID: id, GID: id} }

func ownerOf(t testing.TB, path string) int {
	t.Helper()
	info, err := os.Lstat(path)
	must(t, err)
	return int(info.Sys().(*syscall.Stat_t).Uid)
}
