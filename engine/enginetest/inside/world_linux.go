package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
	"github.com/caissonrun/caisson/internal/rfb"
)

// world is the real one.
type world struct {
	fds   map[int]string
	held  [][]byte   // memory that Alloc uses
	locks []*os.File // files that Lock holds
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
func (w *world) Chdir(path string) error                    { return os.Chdir(path) }
func (w *world) Link(from, to string) error                 { return os.Link(from, to) }
func (w *world) Symlink(target, path string) error          { return os.Symlink(target, path) }
func (w *world) Mkfifo(path string) error                   { return unix.Mkfifo(path, 0o644) }

func (w *world) Chmod(path string, perm fs.FileMode) error {
	return unix.Chmod(path, uint32(perm))
}

func (w *world) Lock(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	w.locks = append(w.locks, f)
	return unix.Flock(int(f.Fd()), unix.LOCK_EX)
}

func (w *world) Sleep(d time.Duration) { time.Sleep(d) }

func (w *world) Spin(d time.Duration) {
	for start := cpuTime(); cpuTime()-start < d; {
		for range 10000 {
			_ = d
		}
	}
}

// cpuTime returns the processor time that this process has used.
func cpuTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Alloc touches every page, since untouched ones use nothing.
func (w *world) Alloc(n int64) error {
	mem, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	for i := 0; i < len(mem); i += os.Getpagesize() {
		mem[i] = byte(i) | 1
	}
	w.held = append(w.held, mem)
	return nil
}

func (w *world) CloseFD(fd int) error { return unix.Close(fd) }

func (w *world) Notify(signals ...int) <-chan int {
	in := make(chan os.Signal, 16)
	out := make(chan int, 16)
	for _, n := range signals {
		signal.Notify(in, syscall.Signal(n))
	}
	go func() {
		for s := range in {
			out <- int(s.(syscall.Signal))
		}
	}()
	return out
}

func (w *world) Ignore(signals ...int) {
	for _, n := range signals {
		signal.Ignore(syscall.Signal(n))
	}
}

// Raise has the default action taken, also for signals that the Go runtime
// handles.
func (w *world) Raise(n int) error {
	runtime.LockOSThread()
	if n != int(unix.SIGKILL) && n != int(unix.SIGSTOP) {
		if err := defaultAction(n); err != nil {
			return err
		}
	}
	if err := unix.Tgkill(os.Getpid(), unix.Gettid(), syscall.Signal(n)); err != nil {
		return err
	}
	// A fatal signal may reach the thread a moment later.
	time.Sleep(time.Second)
	return nil
}

func (w *world) Spawn(opts act.SpawnOptions, args []string) (act.Child, error) {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	if !opts.Quiet {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: opts.Session}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd, nil
}

func (w *world) Terminal() (cols, rows int, ok bool) {
	size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, false
	}
	return int(size.Col), int(size.Row), true
}

func (w *world) Dial(network, address string) (net.Conn, error) {
	return net.DialTimeout(network, address, 3*time.Second)
}

func (w *world) Resolve(name string) ([]string, error) { return net.LookupHost(name) }

// Steal asks for an address together with whoever has it.
func (w *world) Steal(network, address string) error {
	shared := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
	}}
	const word = "stolen"
	if network == "udp" {
		c, err := shared.ListenPacket(context.Background(), network, address)
		if err == nil {
			go act.Rob(c, word)
		}
		return err
	}
	l, err := shared.Listen(context.Background(), network, address)
	if err == nil {
		go act.Answer(l, word)
	}
	return err
}

func (w *world) Serve(port int, word string) error {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	go act.Answer(l, word)
	return nil
}

func (w *world) Show(network, address string, screen *rfb.Screen) error {
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	go act.Exhibit(l, screen)
	return nil
}

func (w *world) Memory(masked string) ([]string, error) { return act.Memory("/proc/self", masked) }

func (w *world) Loopback() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	conn, err := w.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	return conn.Close()
}
