package cgroup

import (
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	notDelegated  = "no control group can be changed by this user"
	howToDelegate = "run it as root, or below a delegated group: systemd-run --user --scope -p Delegate=yes caisson ..."
)

// Probe finds out what control groups can do here, by making a group, setting
// each limit and reading it back. Nothing is left.
func Probe() Support {
	removeStale()
	g, err := Create(fmt.Sprintf("%s%d-%s", probePrefix, os.Getpid(), strings.ToLower(rand.Text())), Limits{})
	if err != nil {
		return Support{Missing: []Missing{
			{"cpu limit", err.Error(), advice()},
			{"memory limit", err.Error(), advice()},
			{"process limit", err.Error(), advice()},
			{"stats", err.Error(), advice()},
		}}
	}
	s := Support{Version: g.version, Usable: true}
	try := func(what string, f func() error) bool {
		err := f()
		if err != nil {
			s.Missing = append(s.Missing, Missing{what, err.Error(), advice()})
		}
		return err == nil
	}
	s.CPUs = try("cpu limit", func() error { return g.setCPUs(1000) })
	s.Memory = try("memory limit", func() error { return g.setMemory(64 << 20) })
	s.PIDs = try("process limit", func() error { return g.setPIDs(64) })
	s.Freeze = try("pause", func() error { return g.freezeEmpty() })
	if fd, ok := g.FD(); ok {
		s.FD = unix.Close(fd) == nil && len(g.dirs) == 1
	}
	try("removing a control group", g.Remove)
	return s
}

// probePrefix begins the names of groups of probes; the process's id follows.
const probePrefix = "probe-"

// removeStale removes what probes have left that were killed.
func removeStale() {
	names, err := List(probePrefix)
	if err != nil {
		return
	}
	for _, name := range names {
		text, _, _ := strings.Cut(strings.TrimPrefix(name, probePrefix), "-")
		pid, err := strconv.Atoi(text)
		if err != nil || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		if g, err := Open(name); err == nil {
			_ = g.Remove()
		}
	}
}

// freezeEmpty freezes and thaws a group without processes.
func (g *Group) freezeEmpty() error {
	if err := g.Freeze(true); err != nil {
		return err
	}
	return g.Freeze(false)
}

// advice tells what the operator can do about a limit that is missing.
func advice() string {
	if os.Geteuid() != 0 {
		return howToDelegate
	}
	return "mount the controller, or enable it in cgroup.subtree_control of the group above"
}
