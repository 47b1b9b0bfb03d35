package enginetest

import (
	"bytes"
	"os"
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
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, _ := os.ReadFile("/proc/" + e.Name() + "/stat")
		end := bytes.LastIndexByte(stat, ')')
		if end < 0 || bytes.Contains(stat[:end], []byte("(caisson-keeper")) {
			continue
		}
		fields := strings.Fields(string(stat[end+1:]))
		if len(fields) > 1 && fields[0] == "Z" && fields[1] == strconv.Itoa(os.Getpid()) {
			pids = append(pids, pid)
		}
	}
	return pids
}
