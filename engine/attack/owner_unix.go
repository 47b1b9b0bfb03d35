//go:build unix

package attack

import (
	"os"
	"syscall"
)

// ownerOf returns who a file belongs to.
func ownerOf(info os.FileInfo) (uid, gid int) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid), int(stat.Gid)
	}
	return -1, -1
}
