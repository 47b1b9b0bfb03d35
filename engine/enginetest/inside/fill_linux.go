package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// What follows uses memory that belongs to no process's address space. Each
// stops at fillSize, so that a host without a limit lives through it, and
// keeps what it has until the process ends.
const fillSize = 256 << 20

// fillMemfd writes to a file in memory.
func fillMemfd() error {
	fd, err := unix.MemfdCreate("caisson-attempt", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	for buf, done := make([]byte, 1<<20), 0; done < fillSize; done += len(buf) {
		if _, err := unix.Write(fd, buf); err != nil {
			return err
		}
	}
	return nil
}

// pipeSize is what an ordinary user's pipe may hold.
const pipeSize = 1 << 20

// fillPipes fills the buffers of pipes that nobody reads.
func fillPipes() error {
	for done := 0; done < fillSize; {
		var ends [2]int
		if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			return err
		}
		// It may be refused where a user has many; then it is a small one.
		_, _ = unix.FcntlInt(uintptr(ends[1]), unix.F_SETPIPE_SZ, pipeSize)
		n, err := fill(ends[1])
		if err != nil {
			return err
		}
		done += n
	}
	return nil
}

// fillSockets fills the buffers of sockets that nobody reads.
func fillSockets() error {
	for done := 0; done < fillSize; {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		n, err := fill(pair[0])
		if err != nil {
			return err
		}
		done += n
	}
	return nil
}

// fill writes until a descriptor takes no more.
func fill(fd int) (int, error) {
	buf, done := make([]byte, os.Getpagesize()), 0
	for {
		n, err := unix.Write(fd, buf)
		if err == unix.EAGAIN {
			return max(done, 1), nil
		}
		if err != nil {
			return done, err
		}
		done += n
	}
}

// threads is how many threads fillThreads asks for: more than any limit that
// an attack is tried with, and few enough for a host.
const threads = 400

// fillThreads starts threads that do nothing, in one process. A runtime that
// gets no more of them ends the program.
func fillThreads() error {
	for range threads {
		go func() {
			// A call that blocks in the kernel takes a thread of its own.
			_, _ = unix.Poll(nil, -1)
		}()
	}
	_, err := unix.Poll(nil, 2000)
	return err
}
