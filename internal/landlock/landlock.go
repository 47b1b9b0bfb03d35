// Package landlock restricts what a thread, and what it starts, may do to
// files, beneath what permissions and mounts allow. It needs Linux 5.13 with
// Landlock switched on, and uses what the kernel's version of it knows.
//
// It is written against the three system calls themselves because it has to
// restrict a single thread of a program that goes on unrestricted.
package landlock

// A Rule allows access to everything below a path.
type Rule struct {
	Path  string // resolved by the calling thread; one that does not exist is left out
	Write bool   // also writing, making and removing; otherwise reading and executing only
}
