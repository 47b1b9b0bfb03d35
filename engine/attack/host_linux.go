package attack

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// locked reports whether another process holds a lock on a file.
func (t *Trial) locked(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	t.OK(err, "Open")
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true
	}
	t.OK(err, "Flock")
	return false
}

// Memory returns how much this process holds.
func (t *Trial) Memory() caisson.Bytes {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return caisson.Bytes(m.HeapAlloc)
}

// counts are how many there are of some things on the host that many runs
// could use up.
type counts map[string]int

// resources counts what belongs to this process, and what carries the names of
// attacks' sandboxes. Others' come and go.
func (t *Trial) resources() counts {
	all := make(counts)
	entries, _ := os.ReadDir("/proc/self/fd")
	all["descriptors"] = len(entries)
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, "/dev/pt") {
			all["terminals"]++
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, file := range backing {
		if data, err := os.ReadFile(file); err == nil && t.ours(string(data)) {
			all["loop devices"]++
		}
	}
	for line := range strings.SplitSeq(string(mounts), "\n") {
		if t.ours(line) {
			all["mounts"]++
		}
	}
	all["threads"] = threads()
	return all
}

// ours reports whether a text names a folder of this trial's or the engine's.
func (t *Trial) ours(text string) bool {
	return slices.ContainsFunc(append([]string{t.Dir}, t.Hidden...), func(dir string) bool { return strings.Contains(text, dir) })
}

// threads returns this process's threads in tens: the runtime keeps those that
// it once needed.
func threads() int {
	entries, _ := os.ReadDir("/proc/self/task")
	return len(entries) / 10
}

// without returns what c has more than before.
func (c counts) without(before counts) []string {
	var more []string
	for _, what := range slices.Sorted(maps.Keys(c)) {
		// A poll or a timer may have opened a descriptor.
		if n := c[what] - before[what]; n > 1 {
			more = append(more, fmt.Sprintf("%s (%d more)", what, n))
		}
	}
	return more
}
