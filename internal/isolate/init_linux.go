package isolate

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/landlock"
)

// IsInit reports whether this process was started by Start to be a sandbox's
// init. A main function must then call Main, before anything else.
func IsInit() bool {
	if os.Getpid() != 1 || isGuest() {
		return os.Getpid() == 1
	}
	return len(os.Args) == 1 && (os.Args[0] == initName || os.Args[0] == stageName) || isContained()
}

// Main is pid 1 of a sandbox: it builds the root view, starts programs when it
// is asked to, reaps whatever they leave behind, and ends, and everything with
// it, when its parent is gone. It does not return.
//
// Where an OCI runtime makes the sandbox, it is also pid 1 of the place where
// that runs, with a view of its own.
func Main() {
	if isGuest() {
		guestMain(os.Args[2])
	}
	p := pid1{
		conn: blocking(initSocket), orders: make(chan order, maxOrders),
		procs: map[int]uint64{}, born: make(chan struct{}, 1),
	}
	p.empty.L = &p.mu
	contained := isContained()
	if contained {
		p.sentry = letGo()
	}
	if hide(contained) == nil {
		p.serve()
	}
	os.Exit(1)
}

// hide puts init out of reach of what will run in the sandbox.
func hide(contained bool) error {
	ignoreSignals()
	name := append([]byte(initName), 0)
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
		return err
	}
	// That names this thread. The process is shown by the name of its first one,
	// which this need not be. It is for people only, so it may fail.
	if unix.Gettid() != os.Getpid() {
		_ = os.WriteFile("/proc/self/comm", name[:len(initName)], 0)
	}
	// Its memory, descriptors and root can't be opened through /proc/1.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	// The parent of a contained one is the runtime, which ends before it. What
	// binds the two to the caller is the stage's life.
	if !contained {
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return err
		}
	}
	// The caller's keys could be used by whoever inherits its keyring. A host
	// where this fails has none, or is out of them: keyctl is also refused by
	// the seccomp filter.
	_, _, _ = unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	unix.Umask(0)
	return nil
}

// ignoreSignals has no signal from inside end init. The kernel drops those for
// which pid 1 has the default action, but only while its first thread does not
// block them, as the Go runtime does for a moment with each thread and fork: then
// they would be another thread's, and end it. So they are ignored. Two are not:
// with SIGCHLD ignored there would be nothing to wait for, and by SIGURG the
// runtime interrupts its own threads; neither ends anybody.
func ignoreSignals() {
	for sig := uintptr(1); sig <= 64; sig++ {
		action := &ignored
		switch unix.Signal(sig) {
		case unix.SIGURG:
			continue
		case unix.SIGCHLD:
			action = &noAction
		}
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(action)), 0, 8, 0, 0)
	}
}

// maxOrders is how many requests may wait while one is served.
const maxOrders = 256

// A pid1 is init. The main goroutine serves requests one after another; one
// goroutine receives them and serves those at once that nothing may hold up,
// and another one reaps.
type pid1 struct {
	conn   rawConn
	orders chan order
	setup  *setup
	filter *syscall.SockFprog

	sending sync.Mutex // one frame at a time

	mu      sync.Mutex
	kills   int            // how often everything was killed
	procs   map[int]uint64 // by pid: the id of the request that started it
	reaping bool
	born    chan struct{} // tells the reaper that there is a child again
	empty   sync.Cond     // there is none left
	main    guestMainProgram
	held    holding
	sentry  bool           // the kernel is gVisor's: no descriptors can be handed out of it
	screens map[uint64]int // by request: the masters of terminals; with sentry only
}

// An order is a request that waits to be served.
type order struct {
	*frame
	kills int // what pid1.kills was when it came
}

// serve answers requests until the parent is gone.
func (p *pid1) serve() {
	go p.receive()
	for o := range p.orders {
		answer := &frame{kind: frameOK, id: o.id}
		var err error
		switch o.kind {
		case frameSetup:
			err = p.build(o.frame, answer)
		case frameSpawn:
			err = p.spawn(o, answer)
		case frameStop:
			err = signalAll(unix.SIGSTOP)
		case frameCont:
			err = signalAll(unix.SIGCONT)
		case frameGuest:
			err = p.welcome(o.frame, answer)
		case frameMain:
			err = p.spawnMain(o, answer)
		case frameMark:
			p.mark(o.frame)
			continue
		case frameStats:
			answer.body = ownStats()
		case frameResize:
			err = p.resize(o.frame)
		case frameNetwork:
			err = showNetwork(answer)
		case frameHold:
			p.held.take(o.frame)
		case frameHolding:
			err = p.held.show(o.frame, answer)
		default:
			err = errors.New("caisson: bug: an unknown request")
		}
		if p.reply(answer, err) != nil {
			return
		}
	}
}

// receive takes requests until the parent is gone. A program that is being
// started can be halted by others of the sandbox before it runs, and keeps
// serve waiting: that must not keep anyone from killing all of them.
func (p *pid1) receive() {
	defer close(p.orders)
	for {
		f, err := receive(p.conn)
		if err != nil {
			return
		}
		answer := &frame{kind: frameOK, id: f.id}
		switch f.kind {
		case frameKill:
			err = p.kill()
		case frameAlive:
			answer.body = []byte{0}
			if alive() {
				answer.body[0] = 1
			}
		case frameSignal:
			err = p.signal(f)
		default:
			// Only kill changes the count, and it is called here.
			select {
			case p.orders <- order{f, p.kills}:
				continue
			default:
				closeAll(f.fds)
				err = fmt.Errorf("%d requests wait already: %w", maxOrders, unix.EAGAIN)
			}
		}
		if p.reply(answer, err) != nil {
			return
		}
	}
}

// reply sends the answer, or the error in its place.
func (p *pid1) reply(answer *frame, err error) error {
	if err != nil {
		answer.kind, answer.body = frameError, encodeError(err)
	}
	if err := p.send(answer); err != nil {
		return err
	}
	closeAll(answer.fds)
	return nil
}

func (p *pid1) send(f *frame) error {
	p.sending.Lock()
	defer p.sending.Unlock()
	return send(p.conn, f)
}

// build makes the sandbox what the setup says.
func (p *pid1) build(f, answer *frame) error {
	if p.setup != nil {
		return errors.New("caisson: bug: a second setup")
	}
	s := decodeSetup(f.body, f.fds)
	// Only what programs need stays open.
	defer func() {
		for _, fd := range f.fds {
			if !slices.Contains(s.cgroups, fd) {
				unix.Close(fd)
			}
		}
	}()
	if len(s.filter) > 0 {
		p.filter = &syscall.SockFprog{Len: uint16(len(s.filter)), Filter: &s.filter[0]}
	}
	var err error
	switch {
	case len(s.config) > 0:
		answer.fds, err = one(buildStage(s))
	case s.contained:
		answer.fds, err = standing(s, p.sentry)
	default:
		answer.fds, err = one(buildView(s))
	}
	if err != nil {
		return err
	}
	if len(s.sockets) > 0 || s.everything {
		fds, err := OpenSockets(s.sockets, s.everything, false)
		if err != nil {
			closeAll(answer.fds)
			answer.fds = nil
			return err
		}
		answer.fds = append(answer.fds, fds...)
	}
	if p.sentry {
		s.lastCap = ownLastCap()
	}
	p.setup = s
	if s.landlock {
		return restrict(s)
	}
	return nil
}

// restrict puts this thread under Landlock's rules, for the programs that are
// forked from it. All are in one domain, so that they may signal each other.
func restrict(s *setup) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	rules := []landlock.Rule{
		{Path: "/", Write: !s.rootReadOnly},
		{Path: "/dev", Write: true},
		{Path: "/proc", Write: true},
	}
	for i := range s.mounts {
		if !s.mounts[i].ReadOnly {
			rules = append(rules, landlock.Rule{Path: s.mounts[i].Target, Write: true})
		}
	}
	return landlock.Restrict(rules)
}

// spawn starts a program, unless everything was killed since that was asked
// for.
func (p *pid1) spawn(f order, answer *frame) (err error) {
	defer closeAll(f.fds)
	if p.setup == nil {
		return errors.New("caisson: bug: a program before the setup")
	}
	program := decodeProgram(f.body)
	master, slave := -1, -1
	stdio := slices.Clone(f.fds)
	if program.Terminal {
		if master, slave, err = openTerminal(program, p.setup.uid, p.setup.gid, p.sentry); err != nil {
			return err
		}
		defer unix.Close(slave)
		stdio = []int{slave, slave, slave}
	}
	var more lifted
	defer func() { closeAll(more) }()
	for i := 3; i < len(stdio); i++ {
		if stdio[i], err = more.lift(stdio[i]); err != nil {
			return err
		}
	}
	c, err := p.child(program, stdio)
	if err != nil {
		closeAll([]int{master})
		return err
	}
	p.mu.Lock()
	if f.kills != p.kills {
		p.mu.Unlock()
		closeAll([]int{master})
		return &caisson.Error{Item: "program", Kind: caisson.ErrAborted, Err: errors.New("killed before it ran")}
	}
	_, pidfd, err := c.start(func(pid int) {
		if pid > 0 {
			p.procs[pid] = f.id
			p.main.born(f.kind, pid)
			p.wakeReaper()
		}
		p.mu.Unlock()
	})
	if err != nil {
		closeAll([]int{master})
		return err
	}
	if p.sentry {
		closeAll([]int{pidfd})
		return p.relay(f, master)
	}
	answer.fds = append(answer.fds, pidfd)
	if master >= 0 {
		answer.fds = append(answer.fds, master)
	}
	return nil
}

// child says what happens between fork and exec of a program.
func (p *pid1) child(program *Program, stdio []int) (*child, error) {
	s := p.setup
	if len(s.config) > 0 && len(stdio) >= 3 {
		return runtimeChild(program, stdio, s.cgroups)
	}
	if len(stdio) < 3 || len(stdio) > 3+MaxMore {
		return nil, errors.New("caisson: bug: a program needs three descriptors, and has some more at most")
	}
	c := &child{
		stdio: [3]int(stdio[:3]), extra: stdio[3:], terminal: program.Terminal, cgroups: s.cgroups, intoFD: -1,
		oom: s.oom, drop: !s.guest, lastCap: s.lastCap, setUser: !s.guest, uid: s.uid, gid: s.gid,
		groups: s.groups, filter: p.filter,
	}
	if s.uid == 0 {
		c.keepCaps(s.caps)
	}
	if err := c.setLimits(s.files, s.limits); err != nil {
		return nil, err
	}
	return c, c.setProgram(program)
}

// keepCaps has the program keep capabilities. Those that init does not have are
// none it could.
func (c *child) keepCaps(caps uint64) {
	c.keep = caps
	for i := range c.kept {
		half := uint32(caps >> (32 * i))
		c.kept[i] = unix.CapUserData{Effective: half, Permitted: half}
	}
}

// wakeReaper sees to it that the reaper looks for children. p.mu is held.
func (p *pid1) wakeReaper() {
	if !p.reaping {
		p.reaping = true
		go p.reap()
		return
	}
	select {
	case p.born <- struct{}{}:
	default:
	}
}

// reap reaps children, those that were handed down to pid 1 too, and tells
// the parent of those that it asked for.
func (p *pid1) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err == unix.ECHILD {
			p.mu.Lock()
			p.empty.Broadcast()
			p.mu.Unlock()
			<-p.born
			continue
		}
		if err != nil {
			continue
		}
		p.mu.Lock()
		id, ours := p.procs[pid]
		delete(p.procs, pid)
		p.main.ended(pid, status)
		p.mu.Unlock()
		if ours {
			var e encoder
			e.int(int64(status))
			// Where this fails the parent is gone, and the main goroutine knows.
			_ = p.send(&frame{kind: frameExit, id: id, body: e.buf})
		}
	}
}

// kill kills everything and waits until nothing is left. Signals to all are
// sent in one step: nothing can fork out of it.
func (p *pid1) kill() error {
	p.mu.Lock()
	p.kills++
	p.mu.Unlock()
	if err := signalAll(unix.SIGKILL); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if some, _ := children(); !some {
			return nil
		}
		p.empty.Wait()
	}
}

// signalAll sends a signal to every process but this one, pid 1.
func signalAll(sig unix.Signal) error {
	if err := unix.Kill(-1, sig); err != nil && err != unix.ESRCH {
		return fmt.Errorf("signal all: %w", err)
	}
	return nil
}

// alive reports whether a child lives. One that is dead is reaped by the other
// goroutine in a moment.
func alive() bool {
	for {
		some, dead := children()
		if !some || !dead {
			return some
		}
		runtime.Gosched()
	}
}

// children reports whether there is any child, and whether one of them waits
// to be reaped. Pid 1 is handed down every process whose parent has ended.
func children() (some, dead bool) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err == nil, info.Signo != 0
		}
	}
}

// encodeError is the body of a frameError.
func encodeError(err error) []byte {
	var e encoder
	var s *stepError
	var errno syscall.Errno
	var x *ExecError
	if errors.As(err, &s) {
		e.int(int64(s.step))
	} else {
		e.int(0)
	}
	if errors.As(err, &errno) {
		e.int(int64(errno))
	} else {
		e.int(0)
	}
	e.int(int64(kindOf(err, errno)))
	if errors.As(err, &x) {
		e.int(int64(x.Code))
	} else {
		e.int(0)
	}
	e.text(err.Error())
	return e.buf
}

// kindOf sorts what went wrong in init.
func kindOf(err error, errno syscall.Errno) caisson.Kind {
	if kind := caisson.KindOf(err); kind != caisson.ErrUnknown {
		return kind
	}
	switch errno {
	case unix.EPERM, unix.EACCES, unix.ENOSYS, unix.ENODEV, unix.EOPNOTSUPP:
		return caisson.ErrUnsupported
	case unix.ENOMEM, unix.ENOSPC, unix.EAGAIN, unix.EMFILE, unix.ENFILE, unix.EUSERS:
		return caisson.ErrExhausted
	}
	return caisson.ErrUnknown
}

// decodeError makes an error of the body of a frameError.
func decodeError(body []byte) error {
	d := decoder{body}
	step, errno, kind, code := int(d.int()), syscall.Errno(d.int()), caisson.Kind(d.int()), int(d.int())
	cause := &initError{text: d.text(), errno: errno}
	switch {
	case step != 0:
		return &stepError{step, errno}
	case code != 0:
		return &ExecError{Code: code, Err: cause}
	case kind != caisson.ErrUnknown:
		return &caisson.Error{Kind: kind, Err: cause}
	}
	return cause
}

// An initError is an error that init has sent.
type initError struct {
	text  string
	errno syscall.Errno
}

// Error implements error.
func (e *initError) Error() string { return e.text }

// Unwrap returns the error number, if there was one.
func (e *initError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}
