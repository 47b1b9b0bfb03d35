// Package landlock restricts what the calling thread, and what it starts, may
// do to files, beneath what permissions and mounts allow. It needs Linux 5.13
// with Landlock switched on, and degrades to what the kernel knows.
package landlock

// A Rule allows access to everything below a path.
type Rule struct {
	Path  string // resolved by the calling thread; one that does not exist is left out
	Write bool   // also writing, making and removing; otherwise reading and executing only
}

// Available returns the version of Landlock's ABI, or 0 where the kernel has
// none or it is switched off.
func Available() int { panic("todo") }

// Restrict allows the calling OS thread, for good, only what rules allow, and
// where the ABI knows it no signals and abstract unix sockets to the outside.
// The thread must have no_new_privs set. It does nothing if Available is 0.
func Restrict(rules []Rule) error { panic("todo") }
