package isolate

import "time"

// A guest is a sandbox that somebody else has made, such as a container
// daemon, with this program's init as its pid 1. It outlives the process that
// holds it: what was started runs on, and a later process finds it again.

// GuestArgs returns the arguments with which this program is pid 1 of a guest,
// after its own path. Socket is where it listens, inside: in a folder that it
// may write to, and that the host's process sees.
func GuestArgs(socket string) []string { return []string{guestName, socket} }

// guestName is the first argument of a guest's pid 1.
const guestName = "sandbox-guest"

// A GuestSpec says how to reach a guest and what its programs get.
type GuestSpec struct {
	// Socket is the absolute path on this host of the one that its pid 1
	// listens on. It may be of any length.
	Socket string
	// Patience is how long pid 1 may take to listen. Zero: not at all.
	Patience time.Duration
	// Files is as in Spec, and so is Seccomp: it comes on top of what the
	// sandbox has anyway.
	Files   int64
	Seccomp bool
}
