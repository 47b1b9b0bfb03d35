// Package cgroup makes control groups on version 1, version 2 and hybrid
// hosts, for root and for users that a subtree is delegated to. It bounds and
// measures the processes in a group, and halts or kills all of them at once.
//
// What every function does is the same on both versions. Where a kernel
// interface differs, the file that deals with it names its page of the
// kernel's documentation: admin-guide/cgroup-v1 and admin-guide/cgroup-v2.
package cgroup

import (
	"time"

	"github.com/caissonrun/caisson"
)

// Limits is what the processes of one group may use together. Zero means no
// limit.
type Limits struct {
	CPUs   caisson.CPUs  // processor time per time
	Memory caisson.Bytes // page cache and tmpfs included; no swap on top
	PIDs   int64         // processes and threads at once
	// Devices are all devices that may be opened; nil: every one that is there.
	Devices []Device
}

// A Device is a character device, or those of one kind.
type Device struct {
	Major, Minor uint32
	AnyMinor     bool // whatever its minor number
	ReadOnly     bool // it may not be written to
}

// Support is what control groups can do for this process on this host.
type Support struct {
	Version string // "v1", "v2" or "hybrid"; empty where nothing is usable
	Usable  bool   // groups can be made, and stats read

	CPUs   bool // the limit can be set
	Memory bool // the limit can be set, swap included
	PIDs   bool // the limit can be set
	Freeze bool // processes can be halted
	FD     bool // a process can be started inside of the whole group (Group.FD)

	Missing []Missing
}

// Missing is something that control groups could do and do not here.
type Missing struct {
	What string // "memory limit"
	Why  string // "the memory controller is not delegated to this user"
	Do   string // what the operator can do about it; may be empty
}

// Stats is what the processes of a group have used. What can't be measured
// is -1.
type Stats struct {
	CPU        time.Duration // user and system
	Memory     caisson.Bytes // now
	PeakMemory caisson.Bytes
	PIDs       int64         // processes and threads now
	OOMKills   int64         // processes killed by the memory limit
	Throttled  time.Duration // held back by the cpu limit
}
