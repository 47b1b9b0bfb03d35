package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
)

// maxDescriptor is how far openDescriptors looks.
const maxDescriptor = 4096

// openDescriptors returns what is open and, where /proc tells, what it is. It
// opens nothing itself.
func openDescriptors() map[int]string {
	open := make(map[int]string)
	for fd := range maxDescriptor {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			continue
		}
		buf := make([]byte, 256)
		n, err := unix.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd), buf)
		if err != nil {
			n = 0
		}
		open[fd] = string(buf[:n])
	}
	return open
}

// Facts implements act.World.
func (w *world) Facts() (*act.Facts, error) {
	f := &act.Facts{
		PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(),
		Args: os.Args, Env: os.Environ(), FDs: w.fds,
		Limits: limits(), Mounts: mounts(), Processes: processes(), Namespaces: namespaces(),
	}
	var err error
	if f.Groups, err = os.Getgroups(); err != nil {
		return nil, err
	}
	if f.Dir, err = os.Getwd(); err != nil {
		return nil, err
	}
	if f.Hostname, err = os.Hostname(); err != nil {
		return nil, err
	}
	if list, err := net.Interfaces(); err == nil {
		for _, i := range list {
			f.Interfaces = append(f.Interfaces, i.Name)
		}
	}
	return f, privileges(f)
}

// privileges reads what /proc says of this process's rights.
func privileges(f *act.Facts) error {
	file, err := os.Open("/proc/self/status")
	if err != nil {
		return err
	}
	defer file.Close()
	f.Caps = make(map[string]string)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.HasPrefix(name, "Cap"):
			f.Caps[name] = value
		case name == "NoNewPrivs":
			f.NoNewPrivs = value == "1"
		case name == "Seccomp":
			f.Seccomp, _ = strconv.Atoi(value)
		}
	}
	return nil
}

func limits() map[string]uint64 {
	out := make(map[string]uint64)
	for name, resource := range map[string]int{
		"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC, "core": unix.RLIMIT_CORE,
		"memlock": unix.RLIMIT_MEMLOCK,
	} {
		var r unix.Rlimit
		if unix.Getrlimit(resource, &r) == nil {
			out[name] = r.Max
		}
	}
	return out
}

func mounts() []act.Mount {
	file, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil
	}
	defer file.Close()
	var out []act.Mount
	for lines := bufio.NewScanner(file); lines.Scan(); {
		// source target type options 0 0
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 {
			continue
		}
		out = append(out, act.Mount{
			Target:   fields[1],
			Type:     fields[2],
			ReadOnly: strings.HasPrefix(fields[3]+",", "ro,"),
		})
	}
	return out
}

func processes() map[int]string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	out := make(map[int]string)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		name, _ := os.ReadFile("/proc/" + e.Name() + "/comm")
		out[pid] = strings.TrimSpace(string(name))
	}
	return out
}

func namespaces() map[string]string {
	entries, err := os.ReadDir("/proc/self/ns")
	if err != nil {
		return nil
	}
	out := make(map[string]string)
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/ns/" + e.Name()); err == nil {
			out[e.Name()] = target
		}
	}
	return out
}
