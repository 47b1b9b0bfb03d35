package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

const (
	// patience is how long a group is given to do what was asked: to freeze,
	// to be empty after a kill, to be removable. All take milliseconds unless
	// a process hangs in the kernel.
	patience = 5 * time.Second
	// pause is between two looks at a group. It is short because tasks are.
	pause = 200 * time.Microsecond
)

// A Group is one control group: on version 1 one folder in each hierarchy
// that is used, on version 2 a single one.
type Group struct {
	name    string
	version string
	dirs    []folder
}

// A folder is a group's place in one hierarchy.
type folder struct {
	path        string
	v2          bool
	controllers []string // v1: those of the hierarchy; v2: those that the parent has handed on
}

// Create makes a group below the parent that belongs to this process, sets
// every limit and reads it back. A limit that can't be set fails the call, by
// name, and nothing is left. name is one path element.
//
// Errors: ErrExists if there is such a group; ErrUnsupported for a limit that
// can't be set, or a host where no group can be made.
func Create(name string, limits Limits) (*Group, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	list := trees()
	if len(list) == 0 {
		return nil, unsupported("cgroup", errors.New(notDelegated))
	}
	g := &Group{name: name, version: version(list)}
	for _, t := range list {
		if limits.Devices == nil && t.forDevices() {
			continue // one folder less to make, to enter and to remove
		}
		dir, err := makeFolder(&t, name)
		if err != nil {
			return nil, errors.Join(err, g.Remove())
		}
		g.dirs = append(g.dirs, dir)
	}
	if err := g.set(limits); err != nil {
		return nil, errors.Join(err, g.Remove())
	}
	return g, nil
}

// Open finds the group that Create made, in this process or an earlier one,
// also where Create or Remove were cut short. Errors: ErrNotFound.
func Open(name string) (*Group, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	list := trees()
	g := &Group{name: name, version: version(list)}
	for _, t := range list {
		path := filepath.Join(t.parent(), name)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		g.dirs = append(g.dirs, openFolder(&t, path))
	}
	if len(g.dirs) == 0 {
		return nil, &caisson.Error{Item: "cgroup " + name, Kind: caisson.ErrNotFound}
	}
	return g, nil
}

// List returns the names of all groups below this process's parent that begin
// with prefix, sorted.
func List(prefix string) ([]string, error) {
	var names []string
	for _, t := range trees() {
		entries, err := os.ReadDir(t.parent())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list cgroups: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() && strings.HasPrefix(e.Name(), prefix) {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Name returns the name given to Create.
func (g *Group) Name() string { return g.name }

// Add moves a process with all its threads into the group. What it starts
// from then on is born in the group.
func (g *Group) Add(pid int) error {
	for _, d := range g.dirs {
		if err := write(filepath.Join(d.path, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("cgroup %s: add process %d: %w", g.name, pid, err)
		}
	}
	return nil
}

// FD opens the group's version 2 folder for CLONE_INTO_CGROUP; the caller
// closes it. It is false where there is none. A process that is to be born in
// the whole group uses FD and ThreadFiles both, because a host may have some
// controllers on version 1 and others on version 2.
func (g *Group) FD() (fd int, ok bool) {
	d, ok := g.unified()
	if !ok {
		return -1, false
	}
	fd, err := unix.Open(d.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return fd, err == nil
}

// ThreadFiles opens the files to which a thread, perhaps one in other
// namespaces, writes "0" in order to move itself alone into the group's
// version 1 folders: what it starts is born there, while the other threads of
// its process stay outside. There are none on a pure version 2 host. The caller
// closes them.
func (g *Group) ThreadFiles() ([]*os.File, error) {
	var files []*os.File
	for _, d := range g.dirs {
		if d.v2 {
			continue
		}
		f, err := os.OpenFile(filepath.Join(d.path, "tasks"), os.O_WRONLY, 0)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, fmt.Errorf("cgroup %s: %w", g.name, err)
		}
		files = append(files, f)
	}
	return files, nil
}

// Remove removes the group and groups below it. It waits a little for
// processes that are about to be gone, fails while others are in it, and may
// be called again: a group that is gone is nil.
func (g *Group) Remove() error {
	var all []error
	for _, d := range g.dirs {
		err := removeTree(d.path)
		if err != nil {
			all = append(all, fmt.Errorf("cgroup %s: remove: %w", g.name, err))
			continue
		}
		// The parent goes with the last group. Where others are left in it
		// this fails, as it should.
		_ = unix.Rmdir(filepath.Dir(d.path))
	}
	return errors.Join(all...)
}

// checkName refuses what could lead out of the parent's folder, or be mistaken
// for a file of the kernel's.
func checkName(name string) error {
	ok := name != "" && len(name) <= 200 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	if !ok {
		return &caisson.Error{Item: fmt.Sprintf("cgroup %q", name), Kind: caisson.ErrInvalid, Err: errors.New("not a name of a group")}
	}
	return nil
}

// version tells what kind of host the trees are of.
func version(list []tree) string {
	one, two := false, false
	for _, t := range list {
		one, two = one || !t.v2, two || t.v2
	}
	switch {
	case one && two:
		return "hybrid"
	case one:
		return "v1"
	case two:
		return "v2"
	}
	return ""
}

// makeFolder makes the group's folder in one hierarchy, with the parent if
// need be. Another process may remove an empty parent at any moment, so it
// tries again.
func makeFolder(t *tree, name string) (folder, error) {
	path := filepath.Join(t.parent(), name)
	for range 100 {
		if err := makeParent(t); err != nil {
			return folder{}, unsupported("cgroup", err)
		}
		switch err := unix.Mkdir(path, 0o755); err {
		case nil:
			return openFolder(t, path), nil
		case unix.ENOENT:
			continue
		case unix.EEXIST:
			return folder{}, &caisson.Error{Item: "cgroup " + name, Kind: caisson.ErrExists, Err: errors.New("there is such a group")}
		case unix.ENOSPC, unix.EAGAIN:
			return folder{}, &caisson.Error{Item: "cgroup " + name, Kind: caisson.ErrExhausted, Err: fmt.Errorf("mkdir %s: %w", path, err)}
		default:
			return folder{}, unsupported("cgroup", fmt.Errorf("mkdir %s: %w", path, err))
		}
	}
	return folder{}, &caisson.Error{Item: "cgroup " + name, Kind: caisson.ErrUnavailable, Err: fmt.Errorf("%s keeps disappearing", t.parent())}
}

// openFolder describes the group's folder at path.
func openFolder(t *tree, path string) folder {
	d := folder{path: path, v2: t.v2, controllers: t.controllers}
	if t.v2 {
		d.controllers = words(filepath.Join(path, "cgroup.controllers"), controllers)
	}
	return d
}

// makeParent makes the parent folder; in the unified hierarchy it also hands
// the controllers on. One that can't be handed on is noticed by the limit that
// needs it.
func makeParent(t *tree) error {
	if err := unix.Mkdir(t.parent(), 0o755); err != nil && err != unix.EEXIST {
		return fmt.Errorf("mkdir %s: %w", t.parent(), err)
	}
	if !t.v2 {
		return nil
	}
	for _, c := range t.controllers {
		if handOn(t.base, c) == unix.EBUSY && evacuate(t.base) == nil {
			_ = handOn(t.base, c)
		}
		_ = handOn(t.parent(), c)
	}
	return nil
}

// handOn gives the groups below dir a controller.
func handOn(dir, controller string) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	if len(words(file, []string{controller})) > 0 {
		return nil
	}
	return write(file, "+"+controller)
}

// evacuate moves the processes of a group into a leaf below it, because the
// kernel lets a group hand controllers on only if it holds no processes. It is
// the usual state in a container, and of a service that systemd delegates a
// group to. See "No Internal Process Constraint" in admin-guide/cgroup-v2.
func evacuate(dir string) error {
	leaf := filepath.Join(dir, leafName)
	if err := unix.Mkdir(leaf, 0o755); err != nil && err != unix.EEXIST {
		return err
	}
	pids, err := readPIDs(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, pid := range pids {
		err := write(filepath.Join(leaf, "cgroup.procs"), strconv.Itoa(pid))
		if err != nil && err != unix.ESRCH {
			return err
		}
	}
	return nil
}

// removeTree removes a group and those below it, deepest first.
func removeTree(path string) error {
	deadline := time.Now().Add(patience)
	for {
		err := unix.Rmdir(path)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		// Processes that are dying still count for a moment.
		if err != unix.EBUSY || time.Now().After(deadline) {
			return fmt.Errorf("%s: %w", path, err)
		}
		subgroups, _ := children(path)
		for _, sub := range subgroups {
			if err := removeTree(sub); err != nil {
				return err
			}
		}
		if len(subgroups) == 0 {
			if pids, _ := readPIDs(filepath.Join(path, "cgroup.procs")); len(pids) > 0 && !dying(pids) {
				return fmt.Errorf("%s: %d processes are in it: %w", path, len(pids), err)
			}
			time.Sleep(pause)
		}
	}
}

// children returns the groups directly below a group.
func children(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(path, e.Name()))
		}
	}
	return dirs, nil
}

// dying reports whether all the processes are dead but for being reaped, or
// gone.
func dying(pids []int) bool {
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// The state follows the name, which may itself hold parentheses.
		_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
		if !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X") {
			return false
		}
	}
	return true
}

// write writes a value to a kernel file in a single call, and returns the bare
// error number.
func write(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

// unsupported says that this host can't do what item names.
func unsupported(item string, err error) error {
	return &caisson.Error{Item: item, Kind: caisson.ErrUnsupported, Err: err}
}
