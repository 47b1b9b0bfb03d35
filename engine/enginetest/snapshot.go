package enginetest

import (
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// A snapshot is what there is on the host that a case could leave behind:
// descriptions, each with how many there are.
type snapshot map[string]int

// without returns what s has more than before.
func (s snapshot) without(before snapshot) []string {
	var more []string
	for _, what := range slices.Sorted(maps.Keys(s)) {
		if n := s[what] - before[what]; n > 0 {
			more = append(more, fmt.Sprintf("%s (%d more)", what, n))
		}
	}
	return more
}

// snapshot looks at everything.
func (s *suite) snapshot(tb testing.TB) snapshot {
	all := make(snapshot)
	goroutines(all)
	for _, dir := range append([]string{s.tmp}, s.h.Folders...) {
		folder(all, dir)
	}
	if s.h.Resources != nil {
		for _, name := range s.h.Resources(tb) {
			all["resource "+name]++
		}
	}
	s.system(all)
	return all
}

// folder adds the names of everything below a folder.
func folder(all snapshot, dir string) {
	// A folder that is not there has nothing in it, and what vanishes while it
	// is looked at was not left.
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != dir {
			all["file "+path]++
		}
		return nil
	})
}

// goroutines adds this process's goroutines, each by what made it.
func goroutines(all snapshot) {
	for stack := range strings.SplitSeq(stacks(), "\n\n") {
		maker := "main"
		for line := range strings.SplitSeq(stack, "\n") {
			if by, ok := strings.CutPrefix(line, "created by "); ok {
				maker, _, _ = strings.Cut(by, " in goroutine")
			}
		}
		// The runtime and package os/signal start theirs at first use and keep
		// them.
		if strings.HasPrefix(maker, "runtime.") || strings.HasPrefix(maker, "os/signal.") || strings.HasPrefix(maker, "testing.") {
			continue
		}
		all["goroutine created by "+maker]++
	}
}

// stacks returns what all goroutines are doing.
func stacks() string {
	for size := 64 << 10; ; size *= 4 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size || size > 4<<20 {
			return string(buf[:n])
		}
	}
}
