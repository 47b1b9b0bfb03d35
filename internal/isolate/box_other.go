//go:build !linux

package isolate

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"github.com/creack/pty"

	"github.com/caissonrun/caisson"
)

// IsInit reports whether this process is a sandbox's init: there is none here.
func IsInit() bool { return false }

// Main is pid 1 of a sandbox, which exists on Linux only.
func Main() { os.Exit(1) }

// CheckIdmap returns ErrNoIdmap: there are no idmapped mounts here.
func CheckIdmap(string) error { return ErrNoIdmap }

// startBackend implements Start. Only Linux has the means to isolate.
func startBackend(spec *Spec) (backend, error) {
	switch {
	case !spec.None:
		return nil, refused("isolation", "this system has none")
	case spec.Cgroup != nil:
		return nil, refused("cgroup", "this system has no control groups")
	case len(spec.Sockets) > 0 || spec.Everything:
		return nil, refused("gateway", "this system has no network for one sandbox alone")
	case spec.Files > 0:
		return nil, refused("files", "this system has no limit for one program alone")
	}
	if err := checkUser(spec.User); err != nil {
		return nil, err
	}
	return &sessions{spec: spec, procs: map[*Proc]int{}}, nil
}

func refused(item, why string) error {
	return &caisson.Error{Item: item, Kind: caisson.ErrUnsupported, Err: errors.New(why)}
}

// sessions is a Box whose programs are each the leader of a session. What
// leaves the process group of its program is not found again.
type sessions struct {
	spec *Spec

	mu     sync.Mutex
	procs  map[*Proc]int // to the process group
	frozen bool
	closed bool
}

// pid implements backend.
func (b *sessions) pid() int { return 0 }

// spawn implements backend.
func (b *sessions) spawn(p *Program, stdio [3]*os.File) (*Proc, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, &caisson.Error{Item: "sandbox", Kind: caisson.ErrAborted, Err: errors.New("it has ended")}
	case b.frozen:
		return nil, &caisson.Error{Item: "sandbox", Kind: caisson.ErrUnavailable, Err: errors.New("it is paused, resume it first")}
	}
	cmd, err := command(p)
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: credential(b.spec.User)}
	proc := newProc()
	if p.Terminal {
		master, slave, err := pty.Open()
		if err != nil {
			return nil, fmt.Errorf("terminal: %w", err)
		}
		defer slave.Close()
		if err := pty.Setsize(master, &pty.Winsize{Rows: max(p.Rows, 1), Cols: max(p.Cols, 1)}); err != nil {
			master.Close()
			return nil, fmt.Errorf("terminal: %w", err)
		}
		proc.Terminal, stdio = master, [3]*os.File{slave, slave, slave}
		cmd.SysProcAttr.Setctty = true
	}
	for i, to := range []func(*os.File){
		func(f *os.File) { cmd.Stdin = f }, func(f *os.File) { cmd.Stdout = f }, func(f *os.File) { cmd.Stderr = f },
	} {
		if stdio[i] != nil {
			to(stdio[i])
		}
	}
	if err := cmd.Start(); err != nil {
		if proc.Terminal != nil {
			proc.Terminal.Close()
		}
		return nil, startError(p, err)
	}
	proc.PID = cmd.Process.Pid
	proc.control(func(signal int) error { return cmd.Process.Signal(syscall.Signal(signal)) }, func() {})
	b.procs[proc] = cmd.Process.Pid
	go b.wait(cmd, proc)
	return proc, nil
}

// wait reaps one program.
func (b *sessions) wait(cmd *exec.Cmd, proc *Proc) {
	_ = cmd.Wait() // how it ended stands in its state
	code, signal := cmd.ProcessState.ExitCode(), 0
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code, signal = 0, int(status.Signal())
	}
	proc.finish(code, signal)
}

// command finds the program in its own PATH.
func command(p *Program) (*exec.Cmd, error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return nil, &ExecError{Code: 127, Err: errors.New("no command is given")}
	}
	path := p.Args[0]
	if !strings.Contains(path, "/") {
		path = ""
		for _, dir := range searchPath(p.Env) {
			if found, err := exec.LookPath(dir + "/" + p.Args[0]); err == nil {
				path = found
				break
			}
		}
	}
	if path == "" {
		return nil, &ExecError{Code: 127, Err: fmt.Errorf("%q: command not found", p.Args[0])}
	}
	dir := p.Dir
	if dir == "" {
		dir = "/"
	}
	return &exec.Cmd{Path: path, Args: p.Args, Env: append([]string{}, p.Env...), Dir: dir}, nil
}

// searchPath returns the folders of the environment's PATH.
func searchPath(env []string) []string {
	path := "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			path = value
		}
	}
	return strings.FieldsFunc(path, func(r rune) bool { return r == ':' })
}

// startError sorts what went wrong between fork and exec.
func startError(p *Program, err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR):
		return &ExecError{Code: 127, Err: fmt.Errorf("%q: %w", p.Args[0], err)}
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOMEM):
		return &caisson.Error{Item: "fork", Kind: caisson.ErrExhausted, Err: err}
	}
	return &ExecError{Code: 126, Err: fmt.Errorf("%q: %w", p.Args[0], err)}
}

// credential is the user to become, where there is a choice.
func credential(u *User) *syscall.Credential {
	if u == nil || os.Geteuid() != 0 {
		return nil
	}
	c := &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}
	for _, g := range u.Groups {
		c.Groups = append(c.Groups, uint32(g))
	}
	return c
}

// root implements backend.
func (b *sessions) root() (*os.File, error) { return os.Open("/") }

// signal sends a signal to every process group that a program began.
func (b *sessions) signal(sig syscall.Signal) error {
	var all []error
	for proc, group := range b.procs {
		if err := syscall.Kill(-group, sig); err != nil {
			// The group is empty, or holds only what is dead.
			select {
			case <-proc.done:
				delete(b.procs, proc)
			default:
				if err != syscall.ESRCH && err != syscall.EPERM {
					all = append(all, fmt.Errorf("signal group %d: %w", group, err))
				}
			}
		}
	}
	return errors.Join(all...)
}

// kill implements backend.
func (b *sessions) kill() error {
	b.mu.Lock()
	err := b.signal(syscall.SIGKILL)
	b.frozen = false
	procs := make([]*Proc, 0, len(b.procs))
	for proc := range b.procs {
		procs = append(procs, proc)
	}
	b.mu.Unlock()
	for _, proc := range procs {
		<-proc.done
	}
	return err
}

// alive implements backend.
func (b *sessions) alive() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.signal(0)
	return len(b.procs) > 0
}

// freeze implements backend.
func (b *sessions) freeze(on bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frozen = on
	if on {
		return b.signal(syscall.SIGSTOP)
	}
	return b.signal(syscall.SIGCONT)
}

// halt implements backend.
func (b *sessions) halt() error {
	return refused("keep", "without isolation there is no sandbox that could be kept")
}

// stats implements backend: nothing can be measured.
func (b *sessions) stats() (Stats, error) { return Stats{-1, -1, -1, -1, -1, -1}, nil }

// close implements backend.
func (b *sessions) close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return b.kill()
}
