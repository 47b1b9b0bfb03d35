package wire

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// Self returns the record of this process.
func Self() (*Record, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	pid := os.Getpid()
	start, err := startTime(pid)
	if err != nil {
		return nil, err
	}
	return &Record{Version: Version, PID: pid, StartTime: start, BootID: boot}, nil
}

// Lives reports whether the process of r is there: not only its pid.
func Lives(r *Record) bool {
	if boot, err := bootID(); err != nil || boot != r.BootID {
		return false
	}
	start, err := startTime(r.PID)
	return err == nil && start == r.StartTime
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}

// startTime returns when a process was started, in clock ticks since boot. A
// zombie counts as gone.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
