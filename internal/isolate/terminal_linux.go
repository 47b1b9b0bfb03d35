package isolate

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openTerminal makes a pseudo-terminal of the /dev that this process sees,
// whose slave belongs to the user.
func openTerminal(p *Program, uid, gid int) (master, slave int, err error) {
	master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("terminal: %w", err)
	}
	slave, err = openSlave(master, p, uid, gid)
	if err != nil {
		unix.Close(master)
		return -1, -1, fmt.Errorf("terminal: %w", err)
	}
	return master, slave, nil
}

// openSlave opens the other side of a master by the master itself: a path
// could lead elsewhere.
func openSlave(master int, p *Program, uid, gid int) (slave int, err error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, err
	}
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	slave = int(r)
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

// terminalFile makes a file of a master, with deadlines and without a thread
// for each read that waits.
func terminalFile(master int) *os.File {
	if err := unix.SetNonblock(master, true); err != nil {
		return nil
	}
	return os.NewFile(uintptr(master), "terminal")
}
