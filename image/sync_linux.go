package image

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncAll makes durable what was written to the file system that dir is on.
func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
