package selftest

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/engine/attack"
)

// makeDevice makes a device node.
func makeDevice(path string, f *attack.File) error {
	kind := uint32(unix.S_IFBLK)
	if f.Mode&fs.ModeCharDevice != 0 {
		kind = unix.S_IFCHR
	}
	perm := f.Mode.Perm()
	return errors.Join(unix.Mknod(path, kind|uint32(perm), int(unix.Mkdev(f.Major, f.Minor))), os.Chmod(path, perm))
}
