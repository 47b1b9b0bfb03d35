// Package thread runs what must not be done on a thread that goes on: what
// enters another namespace, above all.
package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Spend calls f on a thread of its own that ends afterwards: whatever f does to
// the thread's namespaces, nobody else sees. That is never the process's first
// thread, which can't end, and whose namespaces are what /proc/self shows of the
// whole process, to itself and to others.
func Spend(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// While this goroutine waits here, no other one gets this thread.
			err := Spend(f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		// Never unlocked: the thread ends with this goroutine.
		done <- f()
	}()
	return <-done
}
