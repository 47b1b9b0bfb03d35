package isolate

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// openTerminal makes a pseudo-terminal of the /dev that this process sees,
// whose slave belongs to the user.
//
// With byPath the other side is opened by its path, for kernels that have no
// other way to.
func openTerminal(p *Program, uid, gid int, byPath bool) (master, slave int, err error) {
	master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("terminal: %w", err)
	}
	slave, err = openSlave(master, p, uid, gid, byPath)
	if err != nil {
		unix.Close(master)
		return -1, -1, fmt.Errorf("terminal: %w", err)
	}
	return master, slave, nil
}

// openSlave opens the other side of a master by the master itself: a path
// could lead elsewhere.
func openSlave(master int, p *Program, uid, gid int, byPath bool) (slave int, err error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, err
	}
	if slave, err = peer(master, byPath); err != nil {
		return -1, err
	}
	size := unix.Winsize{Col: p.Cols, Row: p.Rows}
	if size.Col == 0 {
		size.Col = 80
	}
	if size.Row == 0 {
		size.Row = 24
	}
	if err := unix.IoctlSetWinsize(slave, unix.TIOCSWINSZ, &size); err != nil {
		unix.Close(slave)
		return -1, err
	}
	if err := unix.Fchown(slave, uid, gid); err != nil {
		unix.Close(slave)
		return -1, err
	}
	return slave, nil
}

// peer opens the other side of a master.
func peer(master int, byPath bool) (int, error) {
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	if byPath {
		n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
		if err != nil {
			return -1, err
		}
		return unix.Open("/dev/pts/"+strconv.Itoa(n), flags, 0)
	}
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, flags)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

// terminalFile makes a file of a master, with deadlines and without a thread
// for each read that waits.
func terminalFile(master int) *os.File {
	if err := unix.SetNonblock(master, true); err != nil {
		return nil
	}
	return os.NewFile(uintptr(master), "terminal")
}
