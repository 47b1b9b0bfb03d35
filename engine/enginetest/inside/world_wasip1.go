package main

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
)

// world is what a module of WASI preview 1 has. What that has no calls for
// fails as it does for every program there.
type world struct {
	held [][]byte // memory that Alloc uses
}

var _ act.World = (*world)(nil)

func (w *world) Stdin() io.Reader  { return os.Stdin }
func (w *world) Stdout() io.Writer { return os.Stdout }
func (w *world) Stderr() io.Writer { return os.Stderr }

func (w *world) OpenFile(path string, flag int, perm fs.FileMode) (io.ReadWriteCloser, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (w *world) ReadDir(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }
func (w *world) Lstat(path string) (fs.FileInfo, error)     { return os.Lstat(path) }
func (w *world) Mkdir(path string, perm fs.FileMode) error  { return os.Mkdir(path, perm) }
func (w *world) Remove(path string) error                   { return os.Remove(path) }
func (w *world) Rename(from, to string) error               { return os.Rename(from, to) }
func (w *world) Chmod(path string, perm fs.FileMode) error  { return os.Chmod(path, perm) }
func (w *world) Chdir(path string) error                    { return os.Chdir(path) }
func (w *world) Link(from, to string) error                 { return os.Link(from, to) }
func (w *world) Symlink(target, path string) error          { return os.Symlink(target, path) }
func (w *world) Mkfifo(string) error                        { return syscall.ENOSYS }
func (w *world) Lock(string) error                          { return syscall.ENOSYS }

func (w *world) Sleep(d time.Duration) { time.Sleep(d) }

// Spin counts the time of the clock: there is no other one.
func (w *world) Spin(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
		for range 10000 {
			_ = d
		}
	}
}

// Alloc touches every page.
func (w *world) Alloc(n int64) error {
	mem := make([]byte, n)
	for i := 0; i < len(mem); i += os.Getpagesize() {
		mem[i] = byte(i) | 1
	}
	w.held = append(w.held, mem)
	return nil
}

func (w *world) CloseFD(fd int) error { return syscall.Close(fd) }

// Notify returns a channel on which nothing comes: there are no signals.
func (w *world) Notify(...int) <-chan int { return make(chan int) }

func (w *world) Ignore(...int)   {}
func (w *world) Raise(int) error { return syscall.ENOSYS }

func (w *world) Spawn(act.SpawnOptions, []string) (act.Child, error) { return nil, syscall.ENOSYS }

func (w *world) Terminal() (cols, rows int, ok bool) { return 0, 0, false }

func (w *world) Connect(network, address string) error {
	conn, err := net.DialTimeout(network, address, 3*time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (w *world) Serve(int, string) error { return syscall.ENOSYS }
func (w *world) Loopback() error         { return syscall.ENOSYS }

// Attempt implements act.World: nothing of what it knows can be had by calls.
func (w *world) Attempt(name string) error {
	if path, ok := strings.CutPrefix(name, "open:"); ok {
		f, err := os.Open(path)
		if err == nil {
			f.Close()
		}
		return err
	}
	return fmt.Errorf("%s: %w", name, syscall.ENOSYS)
}

// Facts implements act.World.
func (w *world) Facts() (*act.Facts, error) {
	dir, err := os.Getwd()
	return &act.Facts{Args: os.Args, Env: os.Environ(), Dir: dir, FDs: map[int]string{0: "", 1: "", 2: ""}}, err
}
