package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	// cpuPeriod is the kernel's default, in microseconds.
	cpuPeriod = 100_000
	// longCPUPeriod is the longest there is. It is taken where the share of
	// cpuPeriod would be less than minCPUQuota, the least that there is.
	longCPUPeriod = 1_000_000
	minCPUQuota   = 1_000
)

// set sets the limits that are not zero.
func (g *Group) set(l Limits) error {
	if l.CPUs > 0 {
		if err := g.setCPUs(int64(l.CPUs)); err != nil {
			return unsupported("cpu limit", err)
		}
	}
	if l.Memory > 0 {
		if err := g.setMemory(int64(l.Memory)); err != nil {
			return unsupported("memory limit", err)
		}
	}
	if l.PIDs > 0 {
		if err := g.setPIDs(l.PIDs); err != nil {
			return unsupported("process limit", err)
		}
	}
	if l.Devices != nil {
		if err := errors.Join(checkDevices(l.Devices), g.setDevices(l.Devices)); err != nil {
			return unsupported("device rules", err)
		}
	}
	return nil
}

// setCPUs bounds processor time to thousandths of a core.
func (g *Group) setCPUs(milli int64) error {
	d, err := g.controller("cpu")
	if err != nil {
		return err
	}
	period, quota := cpuQuota(milli)
	if d.v2 {
		return setExact(d.path, "cpu.max", fmt.Sprintf("%d %d", quota, period))
	}
	if err := setExact(d.path, "cpu.cfs_period_us", strconv.FormatInt(period, 10)); err != nil {
		return err
	}
	return setExact(d.path, "cpu.cfs_quota_us", strconv.FormatInt(quota, 10))
}

// cpuQuota returns how many microseconds of each period milli thousandths of a
// core are.
func cpuQuota(milli int64) (period, quota int64) {
	if quota := milli * cpuPeriod / 1000; quota >= minCPUQuota {
		return cpuPeriod, quota
	}
	return longCPUPeriod, max(milli*longCPUPeriod/1000, minCPUQuota)
}

// setMemory bounds memory, and keeps swap from adding to it. The kernel counts
// in pages and rounds down.
func (g *Group) setMemory(size int64) error {
	d, err := g.controller("memory")
	if err != nil {
		return err
	}
	page := int64(os.Getpagesize())
	if size < page {
		return fmt.Errorf("%d bytes: less than a page of %d", size, page)
	}
	want := strconv.FormatInt(size/page*page, 10)
	limit, swap, noSwap := "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", want
	if d.v2 {
		limit, swap, noSwap = "memory.max", "memory.swap.max", "0"
	}
	if err := setExact(d.path, limit, want); err != nil {
		return err
	}
	err = setExact(d.path, swap, noSwap)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// The kernel does not count swap: the limit holds only where there is none.
	if swaps, err := os.ReadFile("/proc/swaps"); err == nil && bytes.Count(swaps, []byte("\n")) > 1 {
		return errors.New("this kernel does not count swap, and swap is on: boot with swapaccount=1, or turn swap off")
	}
	return nil
}

// setPIDs bounds the number of processes and threads.
func (g *Group) setPIDs(n int64) error {
	d, err := g.controller("pids")
	if err != nil {
		return err
	}
	return setExact(d.path, "pids.max", strconv.FormatInt(n, 10))
}

// controller returns the folder in which a controller's files are.
func (g *Group) controller(name string) (folder, error) {
	for _, d := range g.dirs {
		if slices.Contains(d.controllers, name) {
			return d, nil
		}
	}
	return folder{}, g.whyMissing(name)
}

// whyMissing says why a controller can't be used.
func (g *Group) whyMissing(name string) error {
	if !kernelHas(name) {
		return fmt.Errorf("the kernel has no %s controller, or it is switched off on its command line", name)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("the %s controller is not delegated to this user", name)
	}
	return fmt.Errorf("the %s controller is not mounted, or the group above does not hand it on", name)
}

// kernelHas reports whether a controller is built in and enabled.
func kernelHas(name string) bool {
	f, err := os.Open("/proc/cgroups")
	if err != nil {
		// Newer kernels without version 1 have no such file; then what is
		// there is known from version 2 alone.
		return true
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) == 4 && fields[0] == name {
			return fields[3] == "1"
		}
	}
	return false
}

// setExact writes a value and makes sure that the kernel took it as it is.
func setExact(dir, file, value string) error {
	path := filepath.Join(dir, file)
	if err := write(path, value); err != nil {
		return fmt.Errorf("%s: write %s: %w", path, value, err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if s := strings.TrimSpace(string(got)); s != value {
		return fmt.Errorf("%s: the kernel made %s of %s", path, s, value)
	}
	return nil
}
