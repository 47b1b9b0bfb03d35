package main

import (
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
	"github.com/caissonrun/caisson/internal/rfb"
)

// world is what a module of WASI preview 1 has. It has calls for nothing else.
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
func (w *world) Chmod(string, fs.FileMode) error            { return syscall.EPERM }
func (w *world) Chdir(path string) error                    { return os.Chdir(path) }
func (w *world) Link(from, to string) error                 { return os.Link(from, to) }
func (w *world) Symlink(target, path string) error          { return os.Symlink(target, path) }
func (w *world) Mkfifo(string) error                        { return syscall.EPERM }
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

// Dial fails: what package net has here is a network of the module's own.
func (w *world) Dial(string, string) (net.Conn, error) { return nil, syscall.EPERM }

func (w *world) Resolve(string) ([]string, error) { return nil, syscall.ENOSYS }
func (w *world) Steal(string, string) error       { return syscall.ENOSYS }

func (w *world) Serve(int, string) error { return syscall.ENOSYS }
func (w *world) Loopback() error         { return syscall.ENOSYS }

// Show implements act.World: a module can't listen.
func (w *world) Show(string, string, *rfb.Screen) error { return syscall.ENOSYS }

// Memory finds nothing: a module can't read what its own engine keeps.
func (w *world) Memory(string) ([]string, error) { return nil, nil }

// Attempt implements act.World: there is no call for any of it.
func (w *world) Attempt(string) error { return syscall.EPERM }

// Facts implements act.World. The arguments are those that were given, without
// the module's name.
func (w *world) Facts() (*act.Facts, error) {
	dir, err := os.Getwd()
	return &act.Facts{Args: os.Args[1:], Env: os.Environ(), Dir: dir, FDs: map[int]string{0: "", 1: "", 2: ""}}, err
}
