package filecopy_test

import (
	"io/fs"
	"syscall"
)

// blocks returns how many bytes a file takes on disk.
func blocks(info fs.FileInfo) int64 { return int64(info.Sys().(*syscall.Stat_t).Blocks) * 512 }
