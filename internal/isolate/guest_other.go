//go:build !linux

package isolate

import "time"

// A Guest is a box of somebody else's making. There is none here.
type Guest struct{ *Box }

// OpenGuest returns an error: guests need Linux.
func OpenGuest(*GuestSpec) (*Guest, error) {
	return nil, refused("guest", "sandboxes of a container daemon can be held on Linux only")
}

var errNoGuest = refused("guest", "there is none")

// Main returns nothing.
func (g *Guest) Main() (*Proc, time.Time) { return nil, time.Time{} }

// SpawnMain returns an error.
func (g *Guest) SpawnMain(*Program) (*Proc, error) { return nil, errNoGuest }

// Lost returns false.
func (g *Guest) Lost() bool { return false }

// Mark returns an error.
func (g *Guest) Mark([]byte) error { return errNoGuest }

// Serve returns an error.
func (g *Guest) Serve([]Socket, bool) error { return errNoGuest }

// Spare returns an error.
func (g *Guest) Spare(string, [4]byte, int, [][4]byte) error { return errNoGuest }

// Served returns an error.
func (g *Guest) Served() (int, error) { return 0, errNoGuest }

// PID returns 0.
func (g *Guest) PID() int { return 0 }
