package cgroup

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
)

// Stats returns what the group has used.
func (g *Group) Stats() (Stats, error) {
	if err := g.exists(); err != nil {
		return Stats{}, err
	}
	return Stats{
		CPU:        g.cpu(),
		Memory:     caisson.Bytes(g.number("memory", "memory.usage_in_bytes", "memory.current")),
		PeakMemory: caisson.Bytes(g.number("memory", "memory.max_usage_in_bytes", "memory.peak")),
		PIDs:       g.number("pids", "pids.current", "pids.current"),
		OOMKills:   readKeyed(g.file("memory", "memory.oom_control", "memory.events"), "oom_kill"),
		Throttled:  g.throttled(),
	}, nil
}

// exists returns an error of kind ErrNotFound if the group is gone.
func (g *Group) exists() error {
	for _, d := range g.dirs {
		if _, err := os.Stat(d.path); err == nil {
			return nil
		}
	}
	return &caisson.Error{Item: "cgroup " + g.name, Kind: caisson.ErrNotFound}
}

// cpu returns the processor time used, which version 2 counts also where the
// controller is not handed on.
func (g *Group) cpu() time.Duration {
	if ns := g.number("cpuacct", "cpuacct.usage", ""); ns >= 0 {
		return time.Duration(ns)
	}
	d, ok := g.unified()
	if !ok {
		return -1
	}
	return micros(readKeyed(filepath.Join(d.path, "cpu.stat"), "usage_usec"))
}

// throttled returns how long the cpu limit held processes back.
func (g *Group) throttled() time.Duration {
	d, err := g.controller("cpu")
	if err != nil {
		return -1
	}
	if d.v2 {
		return micros(readKeyed(filepath.Join(d.path, "cpu.stat"), "throttled_usec"))
	}
	return time.Duration(readKeyed(filepath.Join(d.path, "cpu.stat"), "throttled_time"))
}

// micros turns microseconds into a duration and leaves -1 alone.
func micros(n int64) time.Duration {
	if n < 0 {
		return -1
	}
	return time.Duration(n) * time.Microsecond
}

// number reads a controller's file that holds one number, by its name on
// version 1 and on version 2. It is -1 where there is none.
func (g *Group) number(controller, v1, v2 string) int64 {
	path := g.file(controller, v1, v2)
	data, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// file returns the path of a controller's file, or "".
func (g *Group) file(controller, v1, v2 string) string {
	d, err := g.controller(controller)
	switch {
	case err != nil:
		return ""
	case d.v2:
		return filepath.Join(d.path, v2)
	}
	return filepath.Join(d.path, v1)
}

// readKeyed returns the number that stands after key in a file of lines "key
// value", or -1.
func readKeyed(path, key string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	for line := range bytes.Lines(data) {
		k, v, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		if n, err := strconv.ParseInt(v, 10, 64); k == key && err == nil {
			return n
		}
	}
	return -1
}
