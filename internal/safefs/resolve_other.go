//go:build unix && !linux

package safefs

import "golang.org/x/sys/unix"

// oPath opens a folder as a place. Systems without O_PATH need the right to
// read it.
const oPath = unix.O_RDONLY | unix.O_NONBLOCK

func canResolve(int) bool { return false }

func openStrict(int, string, int, uint32, bool) (int, error) { return -1, unix.ENOSYS }

func openInRoot(int, string, int, bool) (int, error) { return -1, unix.ENOSYS }

// place opens what name leads to if it is a regular file or a folder. Where a
// file can't be opened as a place only, looking at it is opening it; without
// waiting, but a device or FIFO sees it.
func (r *Root) place(name string) (int, error) {
	return r.follow(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
}
