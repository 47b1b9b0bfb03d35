//go:build unix

package server

import (
	"cmp"
	"errors"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// A phase is how far the program has come.
type phase int

const (
	created  phase = iota // nothing was started
	starting              // it is being started
	running               // it runs
	leaving               // it has ended, what it left behind has not, or the exit is not durable
	ended                 // the exit is durable
)

// A keeper is the one sandbox of this process, with its program.
type keeper struct {
	spec     *wire.Spec
	openers  map[string]Opener
	box      Box // nil once it is closed
	output   *output
	files    *files
	listener *wire.Listener
	once     *onceFiles
	oom      oomGuard

	// spawning is held while a program is started, so that none is started
	// once the sandbox is being ended.
	spawning sync.Mutex
	// using is held for reading while the box is used, and for writing while it
	// is closed.
	using sync.RWMutex
	doing atomic.Int32 // requests to the box that are under way
	// killing is held while everything is killed.
	killing sync.Mutex
	// destroying is held while the sandbox is destroyed.
	destroying sync.Mutex

	mu      sync.Mutex
	phase   phase
	main    *isolate.Proc
	began   time.Time
	timeout *time.Timer
	stop    *stopping // nil until a stop is asked for
	exit    *caisson.Exit
	usage   isolate.Stats // the last, once it has ended
	paused  bool
	doomed  bool // it is being, or was, destroyed
	conns   map[*conn]struct{}
	owners  int
	// sessions are the programs that run beside the main one, or after it, until
	// their clients are told of the end; execs is how many of them run.
	sessions map[*session]struct{}
	execs    int
	next     following

	keep keeping

	hurry chan struct{} // closed when no grace is left
	over  chan struct{} // closed when the exit is durable
	quit  chan struct{} // closed when the keeper has to end
}

// open makes the sandbox and all that the keeper needs. On error nothing is
// left.
func open(spec *wire.Spec, openers map[string]Opener) (*keeper, error) {
	if record, err := wire.ReadRecord(spec.Dir); err == nil && wire.Lives(record) {
		return nil, &caisson.Error{
			Op: caisson.OpCreate, Item: spec.Dir, Kind: caisson.ErrExists, Err: errors.New("a keeper lives there already"),
		}
	}
	k := &keeper{
		spec: spec, openers: openers,
		conns: map[*conn]struct{}{}, sessions: map[*session]struct{}{},
		hurry: make(chan struct{}),
		over:  make(chan struct{}),
		quit:  make(chan struct{}),
	}
	// The sandbox is made by another process for the most part: the time is
	// used for the rest.
	boxed := make(chan error, 1)
	go func() {
		var err error
		k.box, err = k.openBox()
		boxed <- err
	}()
	err := k.prepare()
	boxErr := <-boxed
	if err == nil && boxErr == nil {
		k.once, err = serveOnce(k.box, spec.Once)
	}
	if err == nil && boxErr == nil {
		// From here on the sandbox's init is forked and has its own score.
		k.oom = protect()
		protectMemory()
		if err = k.files.writeRecord(spec); err == nil {
			err = k.adopt()
		}
		if err == nil {
			go k.accept()
			return k, nil
		}
	}
	return nil, k.undo(cmp.Or(err, boxErr))
}

// prepare makes everything but the box.
func (k *keeper) prepare() (err error) {
	if k.output, err = newOutput(k.spec); err != nil {
		return err
	}
	if k.files, err = newFiles(k.spec.Dir); err != nil {
		return err
	}
	k.listener, err = wire.Listen(k.spec.Socket)
	return err
}

// undo takes back what open has made. The first error wins.
func (k *keeper) undo(err error) error {
	if k.listener != nil {
		err = joinUndo(err, k.listener.Close())
	}
	k.once.close()
	if k.box != nil {
		err = joinUndo(err, k.box.Close())
	}
	if k.files != nil {
		err = joinUndo(err, k.files.remove())
	}
	if k.output != nil {
		err = joinUndo(err, k.output.log.Close())
	}
	return err
}

func joinUndo(err, undoErr error) error {
	if undoErr == nil {
		return err
	}
	return errors.Join(err, undoErr)
}

// trimDelay is how long after its start a keeper gives back the memory that
// the start took: not while somebody waits for it.
const trimDelay = 300 * time.Millisecond

func (k *keeper) trimLater() { time.AfterFunc(trimDelay, debug.FreeOSMemory) }

// start starts the main program. A program that can't be executed has ended.
func (k *keeper) start() error {
	k.mu.Lock()
	switch {
	case k.doomed:
		k.mu.Unlock()
		return errDestroyed(caisson.OpStart)
	case k.phase != created:
		k.mu.Unlock()
		return failure(caisson.OpStart, caisson.ErrExists, "the program was started before")
	}
	k.phase = starting
	k.mu.Unlock()

	stdin, err := openInput(k.spec.Input)
	if err != nil {
		return k.unstarted(err)
	}
	defer stdin.Close()
	stdout, stderr, err := k.output.open()
	if err == nil {
		err = k.launchMain(stdin, stdout, stderr)
		stdout.Close()
		stderr.Close()
	}
	if err == nil {
		return nil
	}
	var execErr *isolate.ExecError
	if errors.As(err, &execErr) {
		k.failToExec(execErr)
		return nil
	}
	k.output.reset()
	return k.unstarted(err)
}

// unstarted says that the program did not start, so that it still can be.
func (k *keeper) unstarted(err error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.phase = created
	return err
}

func (k *keeper) launchMain(stdin, stdout, stderr *os.File) error {
	k.spawning.Lock()
	defer k.spawning.Unlock()
	if k.isDoomed() {
		return errDestroyed(caisson.OpStart)
	}
	// Read before the program can end, so that no time is negative.
	began := time.Now()
	proc, err := k.spawnMain(stdin, stdout, stderr)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.phase, k.main, k.began = running, proc, began
	if limit := k.spec.Timeout.Std(); limit > 0 {
		k.timeout = time.AfterFunc(limit-time.Since(began), k.timeUp)
	}
	go k.supervise(proc)
	return nil
}

// spawnWith starts a program whose children are not spared when memory runs out.
func (k *keeper) spawnWith(p *isolate.Program, stdin, stdout, stderr *os.File) (proc *isolate.Proc, err error) {
	err = k.use(func() error {
		return k.oom.lowered(func() (err error) {
			proc, err = k.box.Spawn(p, stdin, stdout, stderr)
			return err
		})
	})
	return proc, err
}

// use calls f unless the box is closed.
func (k *keeper) use(f func() error) error {
	k.using.RLock()
	defer k.using.RUnlock()
	if k.box == nil {
		return errDestroyed("")
	}
	return f()
}

func (k *keeper) isDoomed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.doomed
}

// signal sends a signal to the main program.
func (k *keeper) signal(number int) error {
	k.mu.Lock()
	phase, proc := k.phase, k.main
	k.mu.Unlock()
	switch {
	case phase < running:
		return errNotStarted(caisson.OpSignal)
	case phase > running:
		return errEnded(caisson.OpSignal)
	}
	return signalProc(proc, number)
}

// maxSignal is the last of Linux's real-time signals.
const maxSignal = 64

func signalProc(proc *isolate.Proc, number int) error {
	if number < 1 || number > maxSignal {
		return failure(caisson.OpSignal, caisson.ErrInvalid, "there is no such signal")
	}
	err := proc.Signal(number)
	if errors.Is(err, os.ErrProcessDone) {
		return errEnded(caisson.OpSignal)
	}
	return err
}

// pause halts everything in the sandbox, or continues it.
func (k *keeper) pause(on bool) error {
	// No program is being started meanwhile, and no stop begins.
	k.spawning.Lock()
	defer k.spawning.Unlock()
	k.mu.Lock()
	phase, stopping := k.phase, k.stop != nil
	k.mu.Unlock()
	switch {
	case phase < running:
		return errNotStarted(caisson.OpSignal)
	case phase > running:
		return errEnded(caisson.OpSignal)
	case on && stopping:
		return failure(caisson.OpSignal, caisson.ErrEnded, "the program is being stopped")
	}
	return k.freeze(on)
}

func (k *keeper) freeze(on bool) error {
	err := k.use(func() error { return k.box.Freeze(on) })
	if err == nil {
		k.mu.Lock()
		k.paused = on
		k.mu.Unlock()
	}
	return err
}

// stats returns what the sandbox uses now, also while it is kept, and after that
// what the program used.
func (k *keeper) stats() (usage isolate.Stats, err error) {
	k.mu.Lock()
	usage, over := k.usage, k.phase == ended && !k.keep.on
	k.mu.Unlock()
	if over {
		return usage, nil
	}
	err = k.use(func() error {
		usage, err = k.box.Stats()
		return err
	})
	return usage, err
}

// root returns the sandbox's root folder; without isolation, the host's.
func (k *keeper) root() (root *os.File, err error) {
	if k.spec.Box.None {
		return openRoot()
	}
	err = k.use(func() error {
		root, err = k.box.Root()
		return err
	})
	return root, err
}

func (k *keeper) status() *wire.Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &wire.Status{
		PID: os.Getpid(), Started: k.phase >= running, Exit: k.exit,
		Execs: k.execs, Owners: k.owners, Paused: k.paused, Kept: k.keep.on,
	}
	if k.main != nil && k.phase == running {
		s.MainPID = k.main.PID
	}
	if located, ok := k.box.(interface{ PID() int }); ok && (k.phase <= running || k.keep.on) {
		s.BoxPID = located.PID()
	}
	return s
}

func failure(op caisson.Op, kind caisson.Kind, cause string) error {
	return &caisson.Error{Op: op, Kind: kind, Err: errors.New(cause)}
}

func errDestroyed(op caisson.Op) error {
	return failure(op, caisson.ErrAborted, "the sandbox is being destroyed")
}

func errEnded(op caisson.Op) error {
	return failure(op, caisson.ErrEnded, "the program has ended")
}

func errNotStarted(op caisson.Op) error {
	return failure(op, caisson.ErrNotFound, "the program was not started")
}
