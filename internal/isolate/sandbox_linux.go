package isolate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/cgroup"
	"github.com/caissonrun/caisson/internal/cleanup"
)

// patience is how long init is given to answer, and processes to be gone after
// a kill. All take milliseconds, unless the kernel hangs.
const patience = 30 * time.Second

// errGone says that the sandbox is over.
var errGone = &caisson.Error{Item: "sandbox", Kind: caisson.ErrAborted, Err: errors.New("it has ended")}

// errPaused says that nothing can be done before the sandbox goes on.
var errPaused = &caisson.Error{Item: "sandbox", Kind: caisson.ErrUnavailable, Err: errors.New("it is paused, resume it first")}

// A sandbox is a Box with isolation: it holds init.
type sandbox struct {
	socket *os.File
	conn   rawConn
	stage  bool // it is where an OCI runtime runs, and init sees to that
	init   int  // pid
	pidfd  int  // of init
	folder *os.File
	group  *cgroup.Group
	inside bool          // init is in the group too, and is frozen with it
	gone   chan struct{} // closed when init, and so everything, is gone
	leave  chan struct{} // closed to let the thread that forked init go
	held   []int         // Spec.Sockets; guarded by mu

	sending sync.Mutex // one frame at a time

	mu      sync.Mutex
	lastID  uint64
	answers map[uint64]chan *frame
	procs   map[uint64]*Proc
	frozen  bool
	closed  bool
}

// startSandbox makes a sandbox.
func startSandbox(spec *Spec) (_ backend, err error) {
	if err := check(spec, os.Geteuid() == 0); err != nil {
		return nil, err
	}
	var undo cleanup.List
	defer undo.OnError(context.Background(), &err)
	b := newSandbox()

	// The group comes first, so that init can be born in it.
	b.group, err = newGroup(spec)
	if err != nil {
		return nil, err
	}
	if b.group != nil {
		undo.Add(b.group.Remove)
	}

	// Init runs from here on, and waits for what to do.
	report, err := b.fork(spec)
	if err != nil {
		return nil, err
	}
	defer unix.Close(report)
	undo.Add(b.end)
	go b.listen()

	// What it needs from the host is gathered meanwhile.
	p, err := prepare(spec, b.init, b.group)
	if err != nil {
		return nil, err
	}
	p.setup.oom = b.inside && p.root && protect(b.init)
	answer, err := b.ask(frameSetup, p.setup.encode(), p.fds)
	closeAll(p.fds)
	if err != nil {
		return nil, setupError(err, report)
	}
	if len(answer.fds) != 1+len(p.setup.sockets) {
		closeAll(answer.fds)
		return nil, errors.New("caisson: bug: init did not hand over the root and the sockets")
	}
	b.folder, b.held = os.NewFile(uintptr(answer.fds[0]), "/"), answer.fds[1:]
	if err := b.joinSockets(spec); err != nil {
		return nil, err
	}
	undo.Release()
	return b, nil
}

func newSandbox() *sandbox {
	return &sandbox{
		gone: make(chan struct{}), leave: make(chan struct{}), pidfd: -1,
		answers: map[uint64]chan *frame{}, procs: map[uint64]*Proc{},
	}
}

// newGroup makes the control group, if there is to be one.
func newGroup(spec *Spec) (*cgroup.Group, error) {
	c := spec.Cgroup
	if c == nil && len(spec.Devices) > 0 {
		return nil, unsupported("devices", "only a control group can keep programs from others; this host gives none")
	}
	if c == nil {
		return nil, nil
	}
	devices, err := deviceRules(spec)
	if err != nil {
		return nil, err
	}
	return cgroup.Create(c.Name, cgroup.Limits{CPUs: c.CPUs, Memory: c.Memory, PIDs: c.PIDs, Devices: devices})
}

// deviceRules are what a sandbox with devices of the host's may open. Without
// any, its mounts and its user namespace leave no others than the usual ones.
func deviceRules(spec *Spec) ([]cgroup.Device, error) {
	if len(spec.Devices) == 0 {
		return nil, nil
	}
	list := []cgroup.Device{
		{Major: 136, AnyMinor: true}, // terminals
		{Major: 5, Minor: 2},         // ptmx
	}
	for _, n := range nodes {
		list = append(list, cgroup.Device{Major: n.major, Minor: n.minor})
	}
	for i := range spec.Devices {
		n, err := deviceNode(spec, &spec.Devices[i])
		if err != nil {
			return nil, err
		}
		list = append(list, cgroup.Device{Major: n.major, Minor: n.minor, ReadOnly: spec.Devices[i].ReadOnly})
	}
	return list, nil
}

// listen takes what init says, until it is gone. It is the only one to reap
// init.
func (b *sandbox) listen() {
	for {
		f, err := receive(b.conn)
		if err != nil {
			break
		}
		b.take(f)
	}
	// The end of the socket may come a little before that of init, and of a
	// bug in one of them before the other: nothing may live without its parent.
	unix.PidfdSendSignal(b.pidfd, unix.SIGKILL, nil, 0)
	for {
		if _, err := unix.Wait4(b.init, nil, 0, nil); err != unix.EINTR {
			break
		}
	}
	b.mu.Lock()
	answers, procs := b.answers, b.procs
	b.answers, b.procs = nil, nil
	b.mu.Unlock()
	close(b.gone)
	for _, ch := range answers {
		close(ch)
	}
	for _, p := range procs {
		p.finish(0, int(unix.SIGKILL))
	}
}

// take passes one frame on to whom it is for.
func (b *sandbox) take(f *frame) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f.kind == frameExit {
		if p := b.procs[f.id]; p != nil {
			delete(b.procs, f.id)
			d := decoder{f.body}
			p.finish(ended(unix.WaitStatus(d.int())))
		}
		return
	}
	ch := b.answers[f.id]
	delete(b.answers, f.id)
	if ch == nil {
		closeAll(f.fds)
		return
	}
	ch <- f
}

// ask sends a request and waits for its answer.
func (b *sandbox) ask(kind byte, body []byte, fds []int) (*frame, error) {
	return b.askFor(kind, body, fds, nil)
}

// askFor is ask for a request after which init speaks of p, too.
func (b *sandbox) askFor(kind byte, body []byte, fds []int, p *Proc) (*frame, error) {
	ch := make(chan *frame, 1)
	b.mu.Lock()
	if b.answers == nil {
		b.mu.Unlock()
		return nil, errGone
	}
	if b.frozen && (b.inside || kind == frameSpawn) {
		b.mu.Unlock()
		return nil, errPaused
	}
	b.lastID++
	id := b.lastID
	b.answers[id] = ch
	if p != nil {
		b.procs[id] = p
	}
	b.mu.Unlock()

	b.sending.Lock()
	err := send(b.conn, &frame{kind: kind, id: id, body: body, fds: fds})
	b.sending.Unlock()
	if err != nil && !brokenPipe(err) {
		b.forget(id)
		return nil, err
	}
	answer, err := b.await(ch)
	if err != nil {
		b.forget(id)
	}
	return answer, err
}

// brokenPipe reports whether init did not want to hear more. The listener
// knows the rest.
func brokenPipe(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.EOF)
}

// forget drops a request.
func (b *sandbox) forget(id uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.answers, id)
	delete(b.procs, id)
}

// await waits for an answer, and turns one that is an error into one.
func (b *sandbox) await(ch chan *frame) (*frame, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case f, ok := <-ch:
		if !ok {
			return nil, errGone
		}
		if f.kind == frameError {
			return nil, decodeError(f.body)
		}
		return f, nil
	case <-timer.C:
		return nil, &caisson.Error{Item: "init", Kind: caisson.ErrUnavailable, Err: fmt.Errorf("no answer within %v", patience)}
	}
}

// pid implements backend.
func (b *sandbox) pid() int { return b.init }

// spawn implements backend.
func (b *sandbox) spawn(p *Program, stdio [3]*os.File) (*Proc, error) {
	return b.spawnWith(p, stdio, nil)
}

// spawnWith is Box.SpawnWith.
func (b *sandbox) spawnWith(p *Program, stdio [3]*os.File, more []*os.File) (*Proc, error) {
	var fds []int
	if !p.Terminal {
		null, err := devNull()
		if err != nil {
			return nil, err
		}
		defer null.Close()
		if fds, err = numbers(stdio, null); err != nil {
			return nil, err
		}
	}
	for _, f := range more {
		fds = append(fds, int(f.Fd()))
	}
	proc, err := b.launch(p, fds)
	runtime.KeepAlive(stdio)
	runtime.KeepAlive(more)
	return proc, err
}

// launch has init start a program with the descriptors.
func (b *sandbox) launch(p *Program, fds []int) (*Proc, error) {
	proc := newProc()
	answer, err := b.askFor(frameSpawn, p.encode(), fds, proc)
	if err != nil {
		return nil, spawnError(p, err)
	}
	// First the pidfd, then, where there is one, the terminal.
	if len(answer.fds) == 0 {
		return nil, errors.New("caisson: bug: init did not hand over the program")
	}
	pidfd := answer.fds[0]
	proc.PID = pidOf(pidfd)
	if len(answer.fds) > 1 {
		proc.Terminal = terminalFile(answer.fds[1])
	}
	proc.own(pidfd)
	return proc, nil
}

// pidOf returns the pid on the host of the process behind a pidfd, or 0.
func pidOf(pidfd int) int {
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, _ := strconv.Atoi(strings.TrimSpace(value))
			return max(pid, 0)
		}
	}
	return 0
}

// root implements backend.
func (b *sandbox) root() (*os.File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errGone
	}
	fd, err := unix.FcntlInt(b.folder.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "/"), nil
}

// kill implements backend.
func (b *sandbox) kill() error {
	if b.inside {
		if err := b.freeze(false); err != nil {
			return err
		}
	}
	_, err := b.ask(frameKill, nil, nil)
	if err == nil || errors.Is(err, errGone) {
		b.mu.Lock()
		b.frozen = false
		b.mu.Unlock()
		return nil
	}
	return err
}

// alive implements backend.
func (b *sandbox) alive() bool {
	b.mu.Lock()
	paused := b.frozen && b.inside
	b.mu.Unlock()
	if paused {
		return true
	}
	answer, err := b.ask(frameAlive, nil, nil)
	return err == nil && len(answer.body) == 1 && answer.body[0] == 1
}

// freeze implements backend. The freezer of version 1 is not used: what is
// frozen there can't even be killed, and would outlive a parent that is.
func (b *sandbox) freeze(on bool) error {
	b.mu.Lock()
	frozen := b.frozen
	b.mu.Unlock()
	if frozen == on {
		return nil
	}
	var err error
	kind := byte(frameCont)
	if on {
		kind = frameStop
	}
	if b.inside {
		err = b.group.Freeze(on)
	} else {
		_, err = b.ask(kind, nil, nil)
	}
	if err == nil {
		b.mu.Lock()
		b.frozen = on
		b.mu.Unlock()
	}
	return err
}

// halt implements backend. It is done by init, which a signal to all does not
// reach, in one step: nothing can fork out of it. Then, where there is a group of
// version 2, they are frozen in it, so that none can order itself a SIGCONT.
func (b *sandbox) halt() error {
	if b.inside {
		if err := b.freeze(false); err != nil {
			return err
		}
	}
	if _, err := b.ask(frameStop, nil, nil); err != nil {
		return err
	}
	b.mu.Lock()
	b.frozen = false
	b.mu.Unlock()
	if !b.inside {
		return nil
	}
	if err := b.group.Halt(b.init); !errors.Is(err, caisson.ErrUnsupported) {
		return err
	}
	return nil
}

// stats implements backend.
func (b *sandbox) stats() (Stats, error) {
	if b.group != nil {
		return groupStats(b.group)
	}
	return ungrouped(reapedBy(b.init)), nil
}

// end kills init, and so everything, and returns when it is gone.
func (b *sandbox) end() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	if err := unix.PidfdSendSignal(b.pidfd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill init: %w", err)
	}
	b.mu.Unlock()
	b.shut()
	err := b.awaitGone()
	b.mu.Lock()
	if err != nil || b.closed {
		return err
	}
	b.closed = true
	b.socket.Close()
	unix.Close(b.pidfd)
	if b.folder != nil {
		b.folder.Close()
	}
	close(b.leave)
	return nil
}

// awaitGone waits until init and everything below it is gone.
func (b *sandbox) awaitGone() error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-b.gone:
		return nil
	case <-timer.C:
		return fmt.Errorf("processes of init %d live on %v after they were killed", b.init, patience)
	}
}

// close implements backend.
func (b *sandbox) close() error {
	if err := b.end(); err != nil || b.group == nil {
		return err
	}
	return b.group.Remove()
}
