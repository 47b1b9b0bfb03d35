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
		for _, pid := range descendants(func(int) {}) {
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
//
// One look can miss a process: the children of one that ends meanwhile become
// this process's, whose list was read before. So where it finds none it looks
// again until it meets nobody new: then all that were known and are dead had left
// their children before the last look.
func below() []int {
	seen := map[int]bool{}
	for {
		news := false
		all := descendants(func(pid int) {
			news = news || !seen[pid]
			seen[pid] = true
		})
		if len(all) > 0 || !news {
			return all
		}
	}
}

// descendants looks once, and tells of all that it meets, dead or not.
func descendants(met func(pid int)) []int {
	var all []int
	next := childrenOf(os.Getpid())
	for len(next) > 0 {
		pid := next[len(next)-1]
		next = next[:len(next)-1]
		met(pid)
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
		all = append(all, childrenIn(dir+"/"+t.Name()+"/children")...)
	}
	return all
}

// rereads bounds how often a list is read again while its processes come and go.
const rereads = 100

// childrenIn reads a list of children. The kernel leaves one out where another
// before it is reaped meanwhile (proc_pid_children(5)), so it is read again until
// all that it names are still there.
func childrenIn(file string) []int {
	var all []int
	for range rereads {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil
		}
		all = all[:0]
		whole := true
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				continue
			}
			all = append(all, child)
			whole = whole && unix.Kill(child, 0) != unix.ESRCH
		}
		if whole {
			break
		}
	}
	return all
}

// threadsField is where the number of threads is in /proc/PID/stat, counted
// from the state (proc_pid_stat(5)).
const threadsField = 17

// dead reports whether a process is gone, or only waits to be reaped. One whose
// first thread has ended before others waits for these, who may have children.
func dead(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	// The state follows the name, which may itself hold parentheses.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) <= threadsField {
		return true
	}
	threads, err := strconv.Atoi(fields[threadsField])
	return (fields[0] == "Z" || fields[0] == "X") && (err != nil || threads <= 1)
}
