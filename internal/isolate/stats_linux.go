package isolate

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"github.com/caissonrun/caisson/internal/cgroup"
)

// groupStats returns what a group used.
func groupStats(g *cgroup.Group) (Stats, error) {
	s, err := g.Stats()
	return Stats(s), err
}

// ungrouped is what is known without a group: the time of the processes that
// have ended.
func ungrouped(cpu time.Duration) Stats {
	return Stats{CPU: cpu, Memory: -1, PeakMemory: -1, PIDs: -1, OOMKills: -1, Throttled: -1}
}

// tick is the unit of times in /proc/PID/stat. It is the same on all
// architectures that Go runs on.
const tick = time.Second / 100

// reapedBy returns the processor time of all the processes that a process has
// reaped, and that those have; -1 where it can't be had.
func reapedBy(pid int) time.Duration {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return -1
	}
	// The name, in parentheses, may hold anything. After it come the state and
	// numbers; those 14 and 15 are utime and stime of children, counted from it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 15 {
		return -1
	}
	user, err1 := strconv.ParseInt(string(fields[13]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[14]), 10, 64)
	if err1 != nil || err2 != nil {
		return -1
	}
	return time.Duration(user+system) * tick
}
