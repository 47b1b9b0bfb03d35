//go:build !linux

package isolate

import (
	"os"
	"time"
)

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

// Network returns an error.
func (g *Guest) Network() (*os.File, error) { return nil, errNoGuest }

// PID returns 0.
func (g *Guest) PID() int { return 0 }

// Hold returns an error.
func (g *Guest) Hold([]*os.File) error { return errNoGuest }

// Holding returns an error.
func (g *Guest) Holding() ([]*os.File, error) { return nil, errNoGuest }
