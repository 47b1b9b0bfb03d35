package cgroup

import (
	"bytes"
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
)

// Kill kills every process in the group and in groups below it, also those
// that are frozen, and returns when none is left but as a zombie that its
// parent has to reap. It is an error if some live on for seconds.
func (g *Group) Kill() error {
	deadline := time.Now().Add(patience)
	for {
		if err := g.killOnce(); err != nil {
			return fmt.Errorf("cgroup %s: kill: %w", g.name, err)
		}
		pids, err := g.Procs()
		if err != nil || len(pids) == 0 || dying(pids) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cgroup %s: kill: processes %v live on", g.name, pids)
		}
		time.Sleep(pause)
	}
}

// killOnce kills what is in the group now: in one step where the kernel has
// cgroup.kill (Linux 5.14), otherwise one by one while all are halted, so that
// none can start another one meanwhile.
func (g *Group) killOnce() error {
	if d, ok := g.unified(); ok {
		err := write(filepath.Join(d.path, "cgroup.kill"), "1")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	pids, err := g.Procs()
	if err != nil || len(pids) == 0 || dying(pids) {
		return err
	}
	frozen := g.Freeze(true)
	if pids, err = g.Procs(); err != nil {
		return err
	}
	for _, pid := range pids {
		if kerr := unix.Kill(pid, unix.SIGKILL); kerr != nil && kerr != unix.ESRCH {
			err = kerr
		}
	}
	if frozen == nil {
		err = errors.Join(err, g.Freeze(false))
	}
	return err
}

// Freeze halts every process in the group, or lets them continue, and returns
// when that is done.
//
// Errors: ErrUnsupported where there is neither cgroup.freeze (Linux 5.2) nor
// a freezer.
func (g *Group) Freeze(on bool) error {
	done, err := g.freezeUnified(on)
	if err != nil {
		return err
	}
	d, err := g.controller("freezer")
	if err != nil {
		if done {
			return nil
		}
		return unsupported("pause", err)
	}
	value := "THAWED"
	if on {
		value = "FROZEN"
	}
	// A process that is being born while the others freeze can escape the
	// first attempt, so the state is written again and again.
	again := func() error { return write(filepath.Join(d.path, "freezer.state"), value) }
	return g.await(d.path, "freezer.state", value, again)
}

// freezeUnified freezes the version 2 folder, if there is one that can.
func (g *Group) freezeUnified(on bool) (done bool, err error) {
	d, ok := g.unified()
	if !ok {
		return false, nil
	}
	value := "0"
	if on {
		value = "1"
	}
	err = write(filepath.Join(d.path, "cgroup.freeze"), value)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cgroup %s: freeze: %w", g.name, err)
	}
	return true, g.await(d.path, "cgroup.events", "frozen "+value, nil)
}

// await waits until a line of a file in dir is the wanted one, and calls again
// before each look.
func (g *Group) await(dir, file, line string, again func() error) error {
	deadline := time.Now().Add(patience)
	for {
		if again != nil {
			if err := again(); err != nil {
				return fmt.Errorf("cgroup %s: %s: %w", g.name, file, err)
			}
		}
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return fmt.Errorf("cgroup %s: %w", g.name, err)
		}
		for l := range bytes.Lines(data) {
			if strings.TrimSpace(string(l)) == line {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cgroup %s: %s: %q is not reached: %w", g.name, file, line, os.ErrDeadlineExceeded)
		}
		time.Sleep(pause)
	}
}

// Procs returns the ids of the processes in the group and in groups below it,
// as this process sees them, sorted. Zombies may be among them.
func (g *Group) Procs() ([]int, error) {
	var all []int
	for _, d := range g.dirs {
		pids, err := procsBelow(d.path)
		if err != nil {
			return nil, fmt.Errorf("cgroup %s: %w", g.name, err)
		}
		all = append(all, pids...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// procsBelow returns the processes of a group and of those below it. A group
// that is gone has none.
func procsBelow(path string) ([]int, error) {
	pids, err := readPIDs(filepath.Join(path, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	subgroups, err := children(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, sub := range subgroups {
		more, err := procsBelow(sub)
		if err != nil {
			return nil, err
		}
		pids = append(pids, more...)
	}
	return pids, nil
}

// unified returns the group's folder in the version 2 hierarchy.
func (g *Group) unified() (folder, bool) {
	for _, d := range g.dirs {
		if d.v2 {
			return d, true
		}
	}
	return folder{}, false
}

// readPIDs reads a file of process ids. One that is gone has none; zero stands
// for a process that is not visible from this pid namespace, and is left out.
func readPIDs(path string) ([]int, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(data)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
