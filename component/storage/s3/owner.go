//go:build unix

package s3

import (
	crand "crypto/rand"
	"io/fs"
	"os"
	"syscall"
)

func rand() string { return crand.Text() }

// mine reports whether a file belongs to this user.
func mine(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}
