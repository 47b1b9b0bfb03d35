package file

import (
	"os"

	"golang.org/x/sys/unix"
)

// flushStep is how much is written between two requests to the kernel to bring
// it to the disk, so that the fsync at the end does not have all of it to do.
const flushStep = 32 << 20

// startFlush has the kernel begin to write a part of the file. It does not
// wait, and nothing depends on it.
func startFlush(f *os.File, from, size int64) {
	_ = unix.SyncFileRange(int(f.Fd()), from, size, unix.SYNC_FILE_RANGE_WRITE)
}
