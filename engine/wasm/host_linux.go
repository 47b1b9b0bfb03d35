package wasm

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/cgroup"
)

const mapNoReserve = unix.MAP_NORESERVE

// become has this thread reach files as another user, without any privilege of
// root. The thread must end with what runs on it.
func become(uid, gid int) error {
	if os.Geteuid() != 0 {
		return nil
	}
	// The system call changes this thread alone; package unix's changes all.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		return fmt.Errorf("drop groups: %w", errno)
	}
	// These never fail by a return value: what they return is the former id.
	unix.Setfsgid(gid)
	unix.Setfsuid(uid)
	if now, _ := unix.SetfsuidRetUid(-1); now != uid {
		return fmt.Errorf("become user %d: not permitted", uid)
	}
	if now, _ := unix.SetfsgidRetGid(-1); now != gid {
		return fmt.Errorf("become group %d: not permitted", gid)
	}
	return nil
}

// spareMemory is what this process may use besides the module's memory: for its
// code, tables and stack.
const spareMemory = 2 << 30

// confine bounds the address space of this process, so that a module can use up
// no more than its keeper. Undo takes the bound back: what the keeper starts
// later would inherit it.
func confine(memory int64) (undo func(), err error) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &old); err != nil {
		return nil, err
	}
	now, err := addressSpace()
	if err != nil {
		return nil, err
	}
	bound := unix.Rlimit{Cur: min(uint64(now+memory+spareMemory), old.Max), Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_AS, &bound); err != nil {
		return nil, err
	}
	return func() { _ = unix.Setrlimit(unix.RLIMIT_AS, &old) }, nil
}

// addressSpace is how much of it this process has, in bytes.
func addressSpace() (int64, error) {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	first, _, _ := bytes.Cut(data, []byte{' '})
	pages, err := strconv.ParseInt(string(first), 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// A share bounds the processor time of one thread of this process.
type share struct {
	group *cgroup.Group
	files []*os.File // to which a thread that is to be in the group writes
}

// newShare makes the control group of a module's thread. It is nil if there is
// nothing to bound.
func newShare(name string, cpus caisson.CPUs) (_ *share, err error) {
	if name == "" {
		return nil, nil
	}
	s := new(share)
	if s.group, err = cgroup.Create(name, cgroup.Limits{CPUs: cpus}); err != nil {
		return nil, err
	}
	if s.files, err = s.group.ThreadFiles(); err == nil && len(s.files) == 0 {
		err = unsupported("a thread alone can be bounded by control groups of version 1 only")
	}
	if err != nil {
		return nil, errors.Join(err, s.group.Remove())
	}
	return s, nil
}

// join puts this thread into the group. It must end with what runs on it.
func (s *share) join() error {
	if s == nil {
		return nil
	}
	for _, f := range s.files {
		if _, err := f.WriteString("0"); err != nil {
			return fmt.Errorf("limits.cpus: %w", err)
		}
	}
	return nil
}

// close removes the group, once the thread has ended.
func (s *share) close() error {
	if s == nil {
		return nil
	}
	for _, f := range s.files {
		f.Close()
	}
	return s.group.Remove()
}

// canShare says why a thread's processor time can't be bounded here; nil: it
// can.
func canShare() error {
	// One that is left by a kill goes with those of package cgroup's own probes.
	s, err := newShare(fmt.Sprintf("probe-%d-%s", os.Getpid(), strings.ToLower(rand.Text())), 500)
	if err != nil {
		return err
	}
	return s.close()
}
