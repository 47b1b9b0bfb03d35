//go:build unix

// Package lockfile is for locks between processes: flock(2) on a file, which
// the kernel gives up when the last process that has it open ends, however it
// ends.
//
// The file holds the process id of the exclusive holder, for messages only.
// A lock file may be removed by its holder: whoever waits for it notices and
// locks the file that is then at the path.
package lockfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"golang.org/x/sys/unix"
)

// How long Try goes on when the lock is held, so that a Held of somebody else,
// which takes the lock for an instant, is not taken for a holder.
const (
	tryFor  = 20 * time.Millisecond
	tryStep = time.Millisecond
	// waitStep is the longest pause between two tries of Acquire.
	waitStep = 50 * time.Millisecond
)

// A Lock is held until Release or the end of the process.
type Lock struct{ f *os.File }

// Try locks path exclusively, making the file (mode 0600) if it is not there.
// It does not wait.
//
// Errors: ErrExists, naming the holder, if another owner has it, also one in
// this process.
func Try(path string) (*Lock, error) { return try(path, unix.LOCK_EX) }

// TryShared is Try for a lock that others may share.
func TryShared(path string) (*Lock, error) { return try(path, unix.LOCK_SH) }

// Acquire is Try that waits for the lock until ctx ends.
func Acquire(ctx context.Context, path string) (*Lock, error) { return wait(ctx, path, unix.LOCK_EX) }

// AcquireShared is TryShared that waits for the lock until ctx ends.
func AcquireShared(ctx context.Context, path string) (*Lock, error) {
	return wait(ctx, path, unix.LOCK_SH)
}

// Held reports whether somebody has path locked exclusively. A file that is not
// there is not held.
func Held(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = flock(f, unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// Release gives up the lock. It can be called again.
func (l *Lock) Release() error {
	err := l.f.Close()
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}

// File returns the locked file, for a child process to inherit: the lock is
// then held until both have closed it. It belongs to the Lock.
func (l *Lock) File() *os.File { return l.f }

func try(path string, how int) (*Lock, error) {
	end := time.Now().Add(tryFor)
	for {
		l, err := once(path, how)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return l, err
		}
		if time.Now().After(end) {
			return nil, heldError(path)
		}
		time.Sleep(tryStep)
	}
}

func wait(ctx context.Context, path string, how int) (*Lock, error) {
	step := tryStep
	for {
		l, err := once(path, how)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ctx.Err(), heldError(path))
		case <-time.After(step):
			step = min(2*step, waitStep)
		}
	}
}

// once tries to lock the file that is at path, and again if it is not there
// any more once it is locked.
func once(path string, how int) (*Lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(f, how|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, err
		}
		if !current(f, path) {
			f.Close()
			continue
		}
		if how == unix.LOCK_EX {
			note(f)
		}
		return &Lock{f: f}, nil
	}
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// current reports whether f is still the file at path.
func current(f *os.File, path string) bool {
	now, err := os.Lstat(path)
	if err != nil {
		return false
	}
	mine, err := f.Stat()
	return err == nil && os.SameFile(now, mine)
}

// note writes who holds the lock. A full disk must not stop anybody from
// locking, so errors do not matter.
func note(f *os.File) {
	if f.Truncate(0) == nil {
		fmt.Fprintf(f, "%d\n", os.Getpid())
	}
}

func heldError(path string) error {
	cause := errors.New("locked by another process")
	if data, err := os.ReadFile(path); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
			cause = fmt.Errorf("locked by process %d", pid)
		}
	}
	return &caisson.Error{Item: path, Kind: caisson.ErrExists, Err: cause}
}
