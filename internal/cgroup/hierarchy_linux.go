package cgroup

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// parentName is the folder below which all groups are made, in every
// hierarchy.
const parentName = "caisson"

// leafName is the group that takes the processes of a version 2 group which
// has to hand its controllers on: there, only leaves may hold processes.
const leafName = "caisson-leaf"

// The controllers that are used. A version 1 hierarchy without any of them is
// left alone.
var controllers = []string{"cpu", "cpuacct", "memory", "pids", "freezer", devicesController}

// A tree is one hierarchy in which this process may make groups.
type tree struct {
	base        string   // the topmost folder that this process may change
	v2          bool     // the unified hierarchy
	controllers []string // of ours: those of a v1 mount, or those that base could hand on
}

// parent returns the folder that holds the groups.
func (t *tree) parent() string { return filepath.Join(t.base, parentName) }

// forDevices reports whether the hierarchy bounds devices and nothing else.
func (t *tree) forDevices() bool {
	return len(t.controllers) == 1 && t.controllers[0] == devicesController
}

// trees returns the hierarchies in which this process may make groups. The
// unified one of a hybrid host is left out if it has nothing to offer that
// version 1 has not.
func trees() []tree {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	var list []tree
	for _, h := range parseHierarchies(info, own) {
		base := topmostWritable(h.dir, h.own)
		if base == "" {
			continue
		}
		t := tree{base: base, v2: h.v2, controllers: h.controllers}
		if h.v2 {
			t.controllers = words(filepath.Join(base, "cgroup.controllers"), controllers)
		}
		list = append(list, t)
	}
	return useful(list)
}

// useful leaves out a unified hierarchy without controllers where there is a
// freezer of version 1, with which everything can be halted and killed.
func useful(list []tree) []tree {
	if !slices.ContainsFunc(list, func(t tree) bool { return slices.Contains(t.controllers, "freezer") }) {
		return list
	}
	return slices.DeleteFunc(list, func(t tree) bool { return t.v2 && len(t.controllers) == 0 })
}

// A hierarchy is a mounted one, as this process sees it.
type hierarchy struct {
	dir         string // where it is mounted
	own         string // the folder of this process's group; empty where it can't be seen
	v2          bool
	controllers []string // v1 only
}

// parseHierarchies reads /proc/self/mountinfo and /proc/self/cgroup. Of a
// hierarchy that is mounted more than once it takes the first mount.
func parseHierarchies(mountinfo, cgroups []byte) []hierarchy {
	var list []hierarchy
	seen := map[string]bool{}
	for line := range bytes.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSpace(string(line)), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		h := hierarchy{dir: unescape(fields[4]), v2: kind[0] == "cgroup2"}
		if kind[0] == "cgroup" {
			h.controllers = intersect(strings.Split(kind[2], ","), controllers)
		}
		key := strings.Join(h.controllers, ",")
		if !h.v2 && len(h.controllers) == 0 || seen[key] {
			continue
		}
		seen[key] = true
		h.own = ownGroup(cgroups, &h, unescape(fields[3]))
		list = append(list, h)
	}
	return list
}

// ownGroup returns the folder of this process's group in a hierarchy whose
// mount shows the groups below root.
func ownGroup(cgroups []byte, h *hierarchy, root string) string {
	for line := range bytes.Lines(cgroups) {
		parts := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mine := h.v2 && parts[0] == "0"
		if !h.v2 && parts[1] != "" {
			mine = len(intersect(strings.Split(parts[1], ","), h.controllers)) > 0
		}
		if !mine {
			continue
		}
		// A group outside of this cgroup namespace is shown as "/../name".
		rel, err := filepath.Rel(root, parts[2])
		if err != nil || !filepath.IsLocal(rel) || strings.HasPrefix(parts[2], "/..") {
			return ""
		}
		return filepath.Join(h.dir, rel)
	}
	return ""
}

// topmostWritable returns the highest folder between dir and own in which this
// process may make groups and move processes, or "". For root that is dir
// itself, so that every process of a host agrees on it; for an ordinary user it
// is the top of what was delegated, which unlike the lower groups usually holds
// no processes.
func topmostWritable(dir, own string) string {
	if writable(dir) {
		return dir
	}
	rel, err := filepath.Rel(dir, own)
	if own == "" || err != nil || !filepath.IsLocal(rel) {
		return ""
	}
	at := dir
	for element := range strings.SplitSeq(rel, "/") {
		at = filepath.Join(at, element)
		if writable(at) {
			return at
		}
	}
	return ""
}

// writable reports whether groups can be made in dir.
func writable(dir string) bool {
	for _, path := range []string{dir, filepath.Join(dir, "cgroup.procs")} {
		if unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS) != nil {
			return false
		}
	}
	return true
}

// unescape undoes the octal escapes of /proc/self/mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// words returns those of want that stand in the file at path.
func words(path string, want []string) []string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return intersect(strings.Fields(string(data)), want)
}

// intersect returns the elements of list that are in want, in list's order.
func intersect(list, want []string) []string {
	var both []string
	for _, s := range list {
		if slices.Contains(want, s) {
			both = append(both, s)
		}
	}
	return both
}
