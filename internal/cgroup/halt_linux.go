package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// haltedName is the group, below a group, of its processes that are halted.
const haltedName = "halted"

// Halt halts for good every process that is in the group now, but one. Processes
// that come into the group later run. Kill ends those that are halted, too, and
// Remove removes what Halt has made.
//
// Errors: ErrUnsupported without cgroup.freeze of version 2 (Linux 5.2): what
// the freezer of version 1 holds can't be killed.
func (g *Group) Halt(spared int) error {
	d, ok := g.unified()
	if !ok {
		return unsupported("halt", errors.New("there is no group of version 2"))
	}
	halted := filepath.Join(d.path, haltedName)
	if err := unix.Mkdir(halted, 0o755); err != nil && err != unix.EEXIST {
		return fmt.Errorf("cgroup %s: halt: %w", g.name, err)
	}
	err := write(filepath.Join(halted, "cgroup.freeze"), "1")
	if errors.Is(err, fs.ErrNotExist) {
		_ = unix.Rmdir(halted)
		return unsupported("halt", err)
	}
	if err != nil {
		return fmt.Errorf("cgroup %s: halt: %w", g.name, err)
	}
	// What comes into a frozen group is frozen. A process that was being born
	// meanwhile is found the next time.
	deadline := time.Now().Add(patience)
	for {
		moved, err := moveAll(d.path, halted, spared)
		if err != nil {
			return fmt.Errorf("cgroup %s: halt: %w", g.name, err)
		}
		if !moved {
			return g.await(halted, "cgroup.events", "frozen 1", nil)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cgroup %s: halt: processes are born faster than they are found: %w", g.name, os.ErrDeadlineExceeded)
		}
	}
}

// moveAll moves the processes of a group but one to another group, and reports
// whether there was any.
func moveAll(from, to string, spared int) (moved bool, err error) {
	pids, err := readPIDs(filepath.Join(from, "cgroup.procs"))
	if err != nil {
		return false, err
	}
	for _, pid := range pids {
		if pid == spared || dying([]int{pid}) {
			continue
		}
		moved = true
		err := write(filepath.Join(to, "cgroup.procs"), strconv.Itoa(pid))
		if err != nil && err != unix.ESRCH {
			return moved, err
		}
	}
	return moved, nil
}
