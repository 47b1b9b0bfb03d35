package enginetest

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/engine"
)

// lose has the harness kill what keeps a sandbox. The processes that it leaves
// behind become this one's children, where another parent than the suite would
// see to them.
func (t *T) lose(spec *engine.Spec) {
	parents := processTable()
	for pid := range parents {
		if descends(parents, pid) && parents[pid] != os.Getpid() {
			t.orphans = append(t.orphans, pid)
		}
	}
	t.h.Lose(t.tb, spec)
}

// reap takes away what lose left.
func (t *T) reap() {
	for _, pid := range t.orphans {
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

// adopt makes orphans of this process's descendants its children, so that
// every process that a case left behind is found below this one. It returns
// what undoes that.
func adopt(tb testing.TB) func() {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		tb.Fatalf("prctl: %v", err)
	}
	return func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }
}

// system adds what Linux knows.
func (s *suite) system(all snapshot) {
	processes(all)
	descriptors(all)
	s.mounts(all)
	s.cgroups(all)
	s.loops(all)
}

// processes adds every descendant of this process, zombies too.
func processes(all snapshot) {
	parents := processTable()
	for pid := range parents {
		if !descends(parents, pid) {
			continue
		}
		if what, ok := describe(pid); ok {
			all[what]++
		}
	}
}

// descends reports whether a process is below this one.
func descends(parents map[int]int, pid int) bool {
	for ; pid > 1; pid = parents[pid] {
		if parents[pid] == os.Getpid() {
			return true
		}
	}
	return false
}

// processTable returns the parents of all processes.
func processTable() map[int]int {
	parents := make(map[int]int)
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, fields, ok := readStat(pid); ok {
			parents[pid], _ = strconv.Atoi(fields[1])
		}
	}
	return parents
}

// describe says what a process is, if it is still there.
func describe(pid int) (string, bool) {
	name, fields, ok := readStat(pid)
	if !ok {
		return "", false
	}
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return fmt.Sprintf("process %d %s state %s: %.200s", pid, name, fields[0], bytes.ReplaceAll(cmdline, []byte{0}, []byte(" "))), true
}

// readStat returns a process's name, in parentheses, and what follows it: its
// state, its parent and more.
func readStat(pid int) (name string, fields []string, ok bool) {
	// PID (NAME) STATE PPID ...; the name may hold anything.
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	begin, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if err != nil || begin < 0 || end < begin {
		return "", nil, false
	}
	fields = strings.Fields(string(stat[end+1:]))
	return string(stat[begin : end+1]), fields, len(fields) >= 2
}

var (
	number = regexp.MustCompile(`[0-9]+`)
	looked = regexp.MustCompile(`^/proc/[0-9]+/(stat|task|task/[0-9]+/children)$`)
)

// descriptors adds this process's open descriptors, by what they are.
func descriptors(all snapshot) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil {
			continue // it was the one by which the folder was read
		}
		if !strings.HasPrefix(target, "/") {
			target = number.ReplaceAllString(target, "N")
		}
		if strings.HasPrefix(target, "anon_inode:[event") {
			continue // the runtime's own, made at first use
		}
		if looked.MatchString(target) {
			continue // ReapOrphans is looking
		}
		all["descriptor of "+target]++
	}
}

// mounts adds what is mounted below the suite's and the engine's folders.
func (s *suite) mounts(all snapshot) {
	roots := append([]string{filepath.Dir(s.tmp)}, s.h.Folders...)
	table, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.SplitSeq(string(table), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		ours := strings.Contains(line, s.token)
		for _, root := range roots {
			ours = ours || strings.HasPrefix(fields[4]+"/", root+"/")
		}
		if ours {
			all["mount "+fields[4]]++
		}
	}
}

// cgroups adds the groups whose names tell that they are a sandbox's.
func (s *suite) cgroups(all snapshot) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(filepath.Base(path), s.token) {
			all["cgroup "+path]++
		}
		return nil
	})
}

// loops adds loop devices whose files belong to the suite.
func (s *suite) loops(all snapshot) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, file := range files {
		backing, err := os.ReadFile(file)
		if err == nil && strings.HasPrefix(string(backing), filepath.Dir(s.tmp)) {
			all["loop device of "+strings.TrimSpace(string(backing))]++
		}
	}
}
