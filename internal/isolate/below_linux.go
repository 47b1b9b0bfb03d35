package isolate

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// signalBelow sends a signal to every descendant of this process, and again,
// until it finds none that was not sent it.
func signalBelow(sig unix.Signal) error {
	sent := map[int]bool{}
	for {
		more := false
		for _, pid := range below() {
			if sent[pid] {
				continue
			}
			sent[pid], more = true, true
			if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
				return fmt.Errorf("signal process %d: %w", pid, err)
			}
		}
		if !more {
			return nil
		}
	}
}

// below returns the pids of all descendants of this process that are not
// dead. Only this process reaps those whose parents have ended, so a pid found
// here belongs to a descendant for as long as its parents stand still.
func below() []int {
	var all []int
	next := childrenOf(os.Getpid())
	for len(next) > 0 {
		pid := next[len(next)-1]
		next = next[:len(next)-1]
		if dead(pid) {
			continue
		}
		all = append(all, pid)
		next = append(next, childrenOf(pid)...)
	}
	return all
}

// childrenOf returns the children of all threads of a process.
func childrenOf(pid int) []int {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	threads, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var all []int
	for _, t := range threads {
		text, err := os.ReadFile(dir + "/" + t.Name() + "/children")
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// dead reports whether a process is gone, or only waits to be reaped.
func dead(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	// The state follows the name, which may itself hold parentheses.
	rest := string(text[strings.LastIndexByte(string(text), ')')+1:])
	return strings.HasPrefix(rest, " Z") || strings.HasPrefix(rest, " X")
}
