package enginetest

import (
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// leaveProcess starts a process that ends by itself after a while.
func leaveProcess(d time.Duration) error {
	cmd := exec.Command("sleep", strconv.FormatFloat(d.Seconds(), 'f', 1, 64))
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait()
	return nil
}

// holdLock locks a file for a while.
func holdLock(path string, d time.Duration) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return
	}
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	time.AfterFunc(d, func() { f.Close() })
}
