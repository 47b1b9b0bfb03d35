package mem

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/atomicfile"
)

// The files of a box in Spec.Dir, besides the handle.
const (
	startedFile = "started"   // exists once the program was started
	exitFile    = "exit.json" // how it ended
	filesFolder = "files"     // what the program can reach besides Work and Tmp
)

// A box is a sandbox of a World: what is there whoever looks at it.
type box struct {
	world        *World
	installation string
	engineName   string
	spec         engine.Spec
	programs     map[string]Program
	onExit       func(id string, argv, env []string)
	terminal     bool // execs may have one

	lan     *lan
	sockets []*socket // of its gateway
	screen  *shown    // of its own; nil: none
	tree    *tree
	log     *log

	// done is closed when verdict is set, and never written again.
	done    chan struct{}
	verdict caisson.Exit

	// destroying is held, as a semaphore, by the call of destroy that works.
	destroying chan struct{}

	mu        sync.Mutex
	changed   chan struct{} // closed and made anew when anything below changes
	started   bool
	destroyed bool
	paused    bool
	owners    map[*Engine]bool
	procs     map[*Proc]bool
	nextPID   int
	main      *Proc
	ended     bool           // main has ended; its children may linger
	reason    caisson.Reason // of the first stop
	forced    *caisson.Exit  // ordered by a Fault, or by destroy
	killTimer *time.Timer
	killAt    time.Time
	usage     usage
	keep      keeping
	servers   map[string]*shown // of programs, by their place in the work folder
}

// newBox returns a box that exists nowhere yet.
func newBox(e *Engine, spec *engine.Spec) *box {
	b := &box{
		world:        e.world,
		installation: e.opts.Installation,
		engineName:   e.opts.Name,
		spec:         *spec,
		programs:     e.opts.Programs,
		onExit:       e.opts.OnExit,
		terminal:     e.features().Terminal,
		done:         make(chan struct{}),
		destroying:   make(chan struct{}, 1),
		changed:      make(chan struct{}),
		owners:       map[*Engine]bool{e: true},
		procs:        make(map[*Proc]bool),
	}
	b.spec.Args = slices.Clone(spec.Args)
	b.spec.Env = maps.Clone(spec.Env)
	b.spec.Mounts = slices.Clone(spec.Mounts)
	b.spec.Displays = slices.Clone(spec.Displays)
	b.spec.OnExit = slices.Clone(spec.OnExit)
	b.spec.OnExitEnv = slices.Clone(spec.OnExitEnv)
	b.spec.Secrets = slices.Clone(spec.Secrets)
	for i := range b.spec.Secrets {
		b.spec.Secrets[i].Value = slices.Clone(spec.Secrets[i].Value)
	}
	return b
}

// build makes what the box has on the host: its handle first.
func (b *box) build() error {
	if err := b.join(); err != nil {
		return err
	}
	boot, err := engine.BootID()
	if err != nil {
		return err
	}
	h := &engine.Handle{Engine: b.engineName, ID: b.spec.ID, BootID: boot}
	if err := engine.WriteHandle(b.spec.Dir, h); err != nil {
		return err
	}
	if b.tree, err = newTree(&b.spec); err != nil {
		return err
	}
	b.openGateway()
	b.openScreen()
	b.log, err = openLog(&b.spec)
	return err
}

// ghost returns the box of an earlier process: nothing of it runs any more.
func ghost(e *Engine, h *engine.Handle, dir string) *box {
	b := newBox(e, &engine.Spec{ID: h.ID, Dir: dir})
	b.owners = nil
	b.ended = true
	if _, err := os.Stat(filepath.Join(dir, startedFile)); err == nil {
		b.started = true
		b.verdict = readExit(dir)
	} else {
		b.verdict = caisson.Exit{Reason: caisson.ReasonLost}
	}
	close(b.done)
	return b
}

// readExit returns the exit that an earlier process wrote.
func readExit(dir string) caisson.Exit {
	var exit caisson.Exit
	data, err := os.ReadFile(filepath.Join(dir, exitFile))
	if err != nil || json.Unmarshal(data, &exit) != nil {
		return caisson.Exit{Reason: caisson.ReasonLost, Message: "the process that ran it is gone"}
	}
	return exit
}

// own says that e sees to what follows the program's end.
func (b *box) own(e *Engine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.owners != nil && !e.closed.Load() {
		b.owners[e] = true
	}
}

// disown takes that back.
func (b *box) disown(e *Engine) {
	b.mu.Lock()
	owned := b.owners[e]
	delete(b.owners, e)
	b.mu.Unlock()
	if !owned {
		return
	}
	select {
	case <-b.done:
		b.tellNobody()
	default:
	}
}

// checkStarted tells whether there is a program.
func (b *box) checkStarted() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.destroyed:
		return b.gone(caisson.OpStart)
	case !b.started:
		return failure(caisson.OpStart, b, caisson.ErrNotFound, "no program was started")
	}
	return nil
}

func (b *box) gone(op caisson.Op) error {
	return failure(op, b, caisson.ErrAborted, "the sandbox was destroyed")
}

// start runs the main program.
func (b *box) start() error {
	b.mu.Lock()
	switch {
	case b.destroyed || b.aborted():
		b.mu.Unlock()
		return b.gone(caisson.OpStart)
	case b.started:
		b.mu.Unlock()
		return failure(caisson.OpStart, b, caisson.ErrExists, "the program was started before")
	case b.ended:
		b.mu.Unlock()
		return failure(caisson.OpStart, b, caisson.ErrUnavailable, "the process that held the sandbox is gone")
	}
	b.started = true
	b.mu.Unlock()

	if err := atomicfile.Write(filepath.Join(b.spec.Dir, startedFile), nil, 0o600); err != nil {
		b.mu.Lock()
		b.started = false
		b.mu.Unlock()
		return err
	}
	p := b.mainProc()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.usage.start = time.Now()
	b.main = p
	if b.spec.Timeout > 0 {
		b.usage.timer = time.AfterFunc(b.spec.Timeout.Std(), func() {
			b.stop(engine.Stop{Reason: caisson.ReasonTimeout, Grace: b.spec.Grace})
		})
	}
	b.run(p)
	if b.forced != nil {
		b.killAll()
	}
	return nil
}

// aborted reports whether a destroy is under way. mu is held.
func (b *box) aborted() bool {
	return b.forced != nil && b.forced.Reason == caisson.ReasonAborted
}

// signal sends a signal to the main program.
func (b *box) signal(n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.over(caisson.OpSignal); err != nil {
		return err
	}
	b.main.deliver(n)
	return nil
}

// over tells whether it is too late for the main program, or too early. mu is
// held.
func (b *box) over(op caisson.Op) error {
	switch {
	case b.destroyed || b.aborted():
		return b.gone(op)
	case b.ended:
		return failure(op, b, caisson.ErrEnded, "the program has ended")
	case b.main == nil:
		return failure(op, b, caisson.ErrEnded, "the program was not started")
	}
	return nil
}

// stop begins the program's end, or makes it quicker.
func (b *box) stop(s engine.Stop) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.over(caisson.OpSignal); err != nil {
		return err
	}
	first := b.reason == ""
	if first {
		b.reason = s.Reason
	}
	if s.Grace <= 0 {
		b.killAll()
		return nil
	}
	at := time.Now().Add(s.Grace.Std())
	if b.killTimer == nil || at.Before(b.killAt) {
		if b.killTimer != nil {
			b.killTimer.Stop()
		}
		b.killAt = at
		b.killTimer = time.AfterFunc(s.Grace.Std(), b.kill)
	}
	if first {
		b.main.deliver(stopSignal(s.Signal, b.spec.StopSignal))
	}
	return nil
}

func stopSignal(signals ...int) int {
	for _, n := range signals {
		if n != 0 {
			return n
		}
	}
	return sigTerm
}

// kill kills everything in the box.
func (b *box) kill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.killAll()
}

// killAll is kill with mu held.
func (b *box) killAll() {
	for p := range b.procs {
		p.kill(sigKill)
	}
}

// end has the program end in this way.
func (b *box) end(exit caisson.Exit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended || b.forced != nil {
		return
	}
	b.forced = &exit
	b.killAll()
}

// destroy ends and removes everything. Of several calls one works and the
// others wait for it.
func (b *box) destroy(ctx context.Context) error {
	select {
	case b.destroying <- struct{}{}:
		defer func() { <-b.destroying }()
	case <-ctx.Done():
		return ctx.Err()
	}
	b.endKeep()
	b.mu.Lock()
	if b.destroyed {
		b.mu.Unlock()
		return nil
	}
	if !b.ended && (b.forced == nil || !b.started) {
		b.forced = &caisson.Exit{Reason: caisson.ReasonAborted}
	}
	started := b.started
	b.killAll()
	b.mu.Unlock()

	if started {
		select {
		case <-b.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b.endKeep() // it may have begun meanwhile
	if err := b.awaitEmpty(ctx); err != nil {
		return err
	}
	return b.remove()
}

// remove removes what build made.
func (b *box) remove() error {
	var errs []error
	b.closeGateway()
	b.closeScreen()
	if b.log != nil {
		b.log.close()
	}
	if b.tree != nil {
		errs = append(errs, b.tree.close())
	}
	errs = append(errs, os.RemoveAll(filepath.Join(b.spec.Dir, filesFolder)))
	for _, name := range []string{startedFile, exitFile, engine.HandleFile} {
		if err := os.Remove(filepath.Join(b.spec.Dir, name)); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	b.mu.Lock()
	b.destroyed = true
	b.broadcast()
	b.mu.Unlock()
	b.world.remove(b)
	return nil
}

// broadcast wakes all who wait for a change. mu is held.
func (b *box) broadcast() {
	close(b.changed)
	b.changed = make(chan struct{})
}
