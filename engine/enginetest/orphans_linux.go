package enginetest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ReapOrphans does what a host's init does: it reaps what was left behind by
// keepers that have ended. The suite makes this process the parent of those.
// Keepers themselves are the engine's to reap.
func ReapOrphans(t testing.TB) {
	done, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(done)
		<-ended
	})
	go func() {
		defer close(ended)
		seen := map[int]bool{}
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
			}
			now := map[int]bool{}
			for _, pid := range zombies() {
				now[pid] = true
				// Whoever started it has had its time.
				if seen[pid] {
					unix.Wait4(pid, nil, unix.WNOHANG, nil)
				}
			}
			seen = now
		}
	}()
}

// zombies returns this process's dead children that are no keepers.
func zombies() []int {
	var pids []int
	for _, pid := range children() {
		name, fields, ok := readStat(pid)
		if ok && !strings.HasPrefix(name, "(caisson-keeper") && fields[0] == "Z" && fields[1] == strconv.Itoa(os.Getpid()) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// children returns this process's children, or all processes where the kernel
// does not tell whose they are.
func children() []int {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	var pids []int
	for _, list := range lists {
		data, _ := os.ReadFile(list) // the thread may have ended
		for word := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	if len(lists) == 0 {
		for pid := range processTable() {
			pids = append(pids, pid)
		}
	}
	return pids
}
