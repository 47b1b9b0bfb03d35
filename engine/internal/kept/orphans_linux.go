package kept

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Marker tells which sandbox a process is of.
//
// A keeper that is killed takes its sandbox's pid namespace with it. Without
// isolation there is none, and where there is no control group either, only
// this variable tells which processes were the sandbox's.
const Marker = "CAISSON_SANDBOX"

const (
	// orphanTime is how long killed processes may take to be gone.
	orphanTime = 5 * time.Second
	orphanStep = 5 * time.Millisecond
)

// KillOrphans kills all processes of this user that have a sandbox's Marker.
// It finds none that has changed its environment's memory: isolation none is
// for programs that are trusted.
func KillOrphans(mark string) error {
	for deadline := time.Now().Add(orphanTime); ; time.Sleep(orphanStep) {
		found, err := marked(mark)
		if err != nil || len(found) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v can't be killed", found)
		}
		for _, pid := range found {
			if err := killMarked(pid, mark); err != nil {
				return err
			}
		}
	}
}

// marked returns the processes that have the Marker. Dead ones have no
// environment any more.
func marked(mark string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && hasMark(pid, mark) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func hasMark(pid int, mark string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	for v := range bytes.SplitSeq(env, []byte{0}) {
		if string(v) == Marker+"="+mark {
			return true
		}
	}
	return false
}

// killMarked kills a process that still has the Marker once it is held: its id
// may have become another's.
func killMarked(pid int, mark string) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if !hasMark(pid, mark) {
		return nil
	}
	err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}
