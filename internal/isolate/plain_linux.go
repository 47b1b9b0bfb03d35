package isolate

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/internal/cgroup"
)

// A plain is a Box without isolation. Its programs are children of this
// process, which also becomes the parent of whatever they leave behind, so
// that everything can be found and killed.
type plain struct {
	spec  *Spec
	last  int // the number of the kernel's last capability
	group *cgroup.Group
	view  *os.File      // the mount namespace of programs; nil: this process's
	jobs  chan func()   // for the thread that forks
	done  chan struct{} // closed when the reaper has ended
	born  chan struct{} // tells the reaper that there is a child again

	mu     sync.Mutex
	procs  map[int]*Proc // by pid
	frozen bool
	closed bool
}

// startPlain makes a box without isolation.
func startPlain(spec *Spec) (backend, error) {
	if err := checkUser(spec.User); err != nil {
		return nil, err
	}
	if _, err := filesLimit(spec.Files); err != nil {
		return nil, err
	}
	var view *os.File
	if m := spec.Machine; m != nil && m.Mounts != "" {
		f, err := os.Open(m.Mounts)
		if err != nil {
			return nil, fmt.Errorf("mounts: %w", err)
		}
		view = f
	}
	group, err := newGroup(spec)
	if err != nil {
		view.Close()
		return nil, err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		view.Close()
		if group != nil {
			err = errors.Join(err, group.Remove())
		}
		return nil, fmt.Errorf("subreaper: %w", err)
	}
	b := &plain{
		spec: spec, last: lastCap(), group: group, view: view, jobs: make(chan func()), done: make(chan struct{}),
		born: make(chan struct{}, 1), procs: map[int]*Proc{},
	}
	go b.fork()
	go b.reap()
	return b, nil
}

// fork runs jobs on one thread that lives as long as the box, because the
// death of programs is bound to that of the thread that forked them.
func (b *plain) fork() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for job := range b.jobs {
		job()
	}
}

// pid implements backend.
func (b *plain) pid() int { return 0 }

// spawn implements backend.
func (b *plain) spawn(p *Program, stdio [3]*os.File) (*Proc, error) {
	c := &child{intoFD: -1, parent: os.Getpid(), lastCap: b.last}
	if err := b.fill(c, p); err != nil {
		return nil, err
	}
	var fds lifted
	defer func() { closeAll(fds) }()
	master, err := b.connect(c, p, stdio, &fds)
	if err != nil {
		return nil, err
	}
	proc := newProc()
	pidfd := -1
	if err = b.enter(c, &fds); err == nil {
		proc.PID, pidfd, err = b.start(c, proc)
	}
	if err != nil {
		closeAll([]int{master})
		return nil, spawnError(p, err)
	}
	if master >= 0 {
		proc.Terminal = terminalFile(master)
	}
	proc.own(pidfd)
	return proc, nil
}

// connect gives the child its standard descriptors. Master is -1 where there
// is no terminal.
func (b *plain) connect(c *child, p *Program, stdio [3]*os.File, fds *lifted) (master int, err error) {
	if p.Terminal {
		master, slave, err := openTerminal(p, c.uid, c.gid, false)
		if err != nil {
			return -1, err
		}
		defer unix.Close(slave)
		up, err := fds.lift(slave)
		if err != nil {
			unix.Close(master)
			return -1, err
		}
		c.terminal, c.stdio = true, [3]int{up, up, up}
		return master, nil
	}
	null, err := devNull()
	if err != nil {
		return -1, err
	}
	defer null.Close()
	given, err := numbers(stdio, null)
	if err != nil {
		return -1, err
	}
	for i, fd := range given {
		if c.stdio[i], err = fds.lift(fd); err != nil {
			return -1, err
		}
	}
	runtime.KeepAlive(stdio)
	return -1, nil
}

// fill says who the program runs as and what it executes.
func (b *plain) fill(c *child, p *Program) error {
	c.uid, c.gid = os.Getuid(), os.Getgid()
	if u := b.spec.User; u != nil && os.Geteuid() == 0 {
		c.setUser, c.drop = true, true
		c.uid, c.gid = u.UID, u.GID
		c.groups = make([]uint32, 0, len(u.Groups))
		for _, g := range u.Groups {
			c.groups = append(c.groups, uint32(g))
		}
	}
	if m := b.spec.Machine; m != nil {
		b.inMachine(c, m)
	}
	if err := c.setLimits(b.spec.Files, b.spec.Limits); err != nil {
		return err
	}
	return c.setProgram(p)
}

// inMachine says what programs of a machine's agent get, or get rid of.
func (b *plain) inMachine(c *child, m *Machine) {
	// The agent outlives whatever eats up the memory.
	c.oom = true
	if m.Privileged {
		c.gain, c.drop = true, false
		return
	}
	if b.spec.User != nil && c.uid == 0 {
		var caps uint64
		for _, n := range b.spec.Caps {
			caps |= 1 << uint(n&63)
		}
		c.keepCaps(caps)
	}
}

// enter has the child be in the control group, and among the mounts.
func (b *plain) enter(c *child, fds *lifted) (err error) {
	if b.view != nil {
		if c.mounts, err = fds.lift(int(b.view.Fd())); err != nil {
			return err
		}
	}
	if b.group == nil {
		return nil
	}
	if fd, ok := b.group.FD(); ok {
		*fds = append(*fds, fd)
		c.intoFD = fd
	}
	files, err := b.group.ThreadFiles()
	if err != nil {
		return err
	}
	defer closeFiles(files)
	for _, f := range files {
		fd, err := fds.lift(int(f.Fd()))
		if err != nil {
			return err
		}
		c.cgroups = append(c.cgroups, fd)
	}
	return nil
}

// start forks on the thread for it.
func (b *plain) start(c *child, proc *Proc) (pid, pidfd int, err error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return 0, -1, errGone
	}
	if b.frozen {
		b.mu.Unlock()
		return 0, -1, errPaused
	}
	finished := make(chan struct{})
	b.jobs <- func() {
		defer close(finished)
		// The reaper must not see a child before it is known.
		pid, pidfd, err = c.start(func(pid int) {
			if pid > 0 {
				b.procs[pid] = proc
				b.wakeReaper()
			}
			b.mu.Unlock()
		})
	}
	<-finished
	return pid, pidfd, err
}

// wakeReaper sees to it that the reaper looks for children.
func (b *plain) wakeReaper() {
	select {
	case b.born <- struct{}{}:
	default:
	}
}

// reap reaps every child of this process, until the box is closed.
func (b *plain) reap() {
	defer close(b.done)
	for range b.born {
		for {
			var status unix.WaitStatus
			pid, err := unix.Wait4(-1, &status, 0, nil)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				break
			}
			b.mu.Lock()
			proc := b.procs[pid]
			delete(b.procs, pid)
			b.mu.Unlock()
			if proc != nil {
				proc.finish(ended(status))
			}
		}
	}
}

// root implements backend: without isolation it is the host's.
func (b *plain) root() (*os.File, error) {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "/"), nil
}

// kill implements backend. Everything is halted first, so that nothing can
// start new processes faster than they are found.
func (b *plain) kill() error {
	deadline := time.Now().Add(patience)
	for {
		_ = signalBelow(unix.SIGSTOP)
		if err := signalBelow(unix.SIGKILL); err != nil {
			return err
		}
		left := below()
		if len(left) == 0 {
			return b.thaw()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v live on %v after they were killed", left, patience)
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// thaw has programs be started again, after all were killed.
func (b *plain) thaw() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.frozen && b.grouped() {
		if err := b.group.Freeze(false); err != nil {
			return err
		}
	}
	b.frozen = false
	return nil
}

// grouped reports whether programs are halted by their group. Without a machine of
// its own, that may be a group that others expect to find as they left it.
func (b *plain) grouped() bool { return b.spec.Machine != nil && b.group != nil }

// alive implements backend.
func (b *plain) alive() bool { return len(below()) > 0 }

// freeze implements backend.
func (b *plain) freeze(on bool) error {
	sig := unix.SIGCONT
	if on {
		sig = unix.SIGSTOP
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var err error
	if b.grouped() {
		err = b.group.Freeze(on)
	} else {
		err = signalBelow(sig)
	}
	if err != nil {
		return err
	}
	b.frozen = on
	return nil
}

// halt implements backend. Without isolation there is nothing to enter that is
// the program's alone, but for a machine.
func (b *plain) halt() error {
	if b.grouped() {
		// Nothing is born meanwhile: it could escape.
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.group.Halt(0)
	}
	if b.spec.Machine != nil {
		return unsupported("keep", "programs are in no control group")
	}
	return unsupported("keep", "without isolation there is no sandbox that could be kept")
}

// stats implements backend.
func (b *plain) stats() (Stats, error) {
	if b.group != nil {
		return groupStats(b.group)
	}
	return ungrouped(reapedBy(os.Getpid())), nil
}

// close implements backend.
func (b *plain) close() error {
	if err := b.kill(); err != nil {
		return err
	}
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.jobs)
		close(b.born)
	}
	b.mu.Unlock()
	<-b.done
	b.view.Close()
	if b.group == nil {
		return nil
	}
	return b.group.Remove()
}
