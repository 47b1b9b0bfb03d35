//go:build unix

// Package executor runs tasks from start to finish: what every engine would
// otherwise repeat lives here once.
//
// A task is a folder with a journal. Whoever holds the folder's lock attends to
// the task: reads the journal, does what comes next, and logs it before and
// after. That is all an attendant knows, so that any of them can be killed at
// any time and another one goes on: see next, which decides, and attendant,
// which does. docs/state.md says what is written when.
package executor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/state"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/stage"
)

// Options configures an Executor.
type Options struct {
	State    string // the state folder, absolute; made if it does not exist
	Runtime  string // the runtime folder of all installations, for secrets; empty: State/run
	Engines  []engine.Engine
	Prefer   []string // engine names, most wanted first; empty: all in the order of Engines
	Mounters []mount.Mounter
	Stagers  []stage.Stager
	Images   Images // nil: tasks with images go to engines that pull by themselves
	// Attend is the argv that starts an attendant; the task's id is appended.
	// Empty: nothing is started, and the caller sees to it that tasks are
	// attended to.
	Attend []string
	// AttendEnv is added to the environment of attendants, NAME=value. The rest
	// of it is what programs need of this process's, see attendEnv.
	AttendEnv []string
	// Pools are the warm pools, by name. Fill is the argv that has one filled; its name
	// is appended. Empty: the caller sees to it, by Executor.Fill.
	Pools map[string]*Pool
	Fill  []string
	// Settings is the digest of all that sandboxes depend on besides their specs and
	// the program: the configuration. Empty: there are no warm pools.
	Settings string
	// LogLimit bounds the log of a step where the task sets no limit. 0: none.
	LogLimit caisson.Bytes
	// Composite carries out tasks with a component. Nil: they are refused.
	Composite Composite
	// Proxies are the upstreams that tasks may name in their proxies, by name.
	// Whichever process attends to a task has to have them.
	Proxies map[string]http.Handler
	// Lookup finds the addresses of a name that a task's network.allow lists, or
	// that a secret is brokered to; Dial connects to one of them that was checked.
	// Roots are who is believed about the servers of brokered secrets. Nil: as on
	// this host.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	Dial   func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	Roots  *x509.CertPool
	// Progress is told how much of an input, by its number in the task, has
	// been staged; total is -1 where it is not known. Nil: nobody is told.
	Progress func(task string, input int, done, total int64)
	// Pulled is told how much of a task's image is there. Nil: nobody is told.
	Pulled func(task, ref string, p image.Progress)
	// Fingerprint is the digest of a configuration, or of whatever else what an
	// engine can do depends on. With it other processes believe for some
	// minutes what a probe has found. Empty: each one probes for itself.
	Fingerprint string
	Logger      *slog.Logger // nil: discard
}

// limits bounds calls of engines, mounters and stagers that only a bug or a
// dead host would make long, so that no task waits for ever.
type limits struct {
	create  time.Duration // Engine.Create: an image may have to be pulled
	start   time.Duration
	call    time.Duration // Recover, Stop, Signal and other short ones
	destroy time.Duration

	// stay is how long an attendant that may leave stays with a program that it
	// has started: most end soon, and it saves another attendant.
	stay time.Duration
	// staySure is the same for a program that was started before. Its keeper may
	// have started this very attendant to see to the end and will start no
	// other, so there must be no doubt that it still runs.
	staySure time.Duration
}

var defaultLimits = limits{
	create: 15 * time.Minute, start: time.Minute, call: 20 * time.Second, destroy: time.Minute,
	stay: time.Second, staySure: 15 * time.Second,
}

// An Executor runs the tasks of one state folder. Several executors, in
// several processes, may work on the same folder.
type Executor struct {
	folder   *state.Folder
	runtime  string // of this installation
	engines  []*prober
	mounters mounters
	stagers  map[string]stage.Stager
	opts     Options
	log      *slog.Logger
	limits   limits
	now      func() time.Time
	bootID   func() (string, error)
	start    func(*exec.Cmd) error // starts attendants
	hub      hub

	mu sync.Mutex
	// held are the locks of tasks that were submitted by this executor and
	// that it is still to attend to.
	held   map[string]*lockfile.Lock
	closed bool
	// ready are the functions to be called for children of composite tasks, by
	// their ids: see Child.
	ready map[string]func(netns string) error
}

// New opens the state folder. Errors: ErrDenied; ErrUnsupported if the folder
// is of a newer version; ErrExists if two engines, mounters or stagers have
// the same name.
func New(opts *Options) (*Executor, error) {
	x := &Executor{
		opts:     *opts,
		log:      opts.Logger,
		limits:   defaultLimits,
		now:      time.Now,
		bootID:   engine.BootID,
		start:    (*exec.Cmd).Start,
		mounters: make(mounters),
		stagers:  make(map[string]stage.Stager),
		held:     make(map[string]*lockfile.Lock),
		ready:    make(map[string]func(string) error),
	}
	if x.log == nil {
		x.log = slog.New(slog.DiscardHandler)
	}
	if err := x.register(); err != nil {
		return nil, err
	}
	folder, err := state.Open(opts.State)
	if err != nil {
		return nil, err
	}
	x.folder = folder
	root := opts.Runtime
	if root == "" {
		root = folder.Join("run")
	}
	x.runtime = folder.Runtime(root)
	return x, nil
}

// register sorts what was handed over by name. Engines keep their order of
// preference.
func (x *Executor) register() error {
	byName := make(map[string]*prober)
	for _, e := range x.opts.Engines {
		if byName[e.Name()] != nil {
			return duplicate("engine", e.Name())
		}
		byName[e.Name()] = &prober{engine: e}
		x.engines = append(x.engines, byName[e.Name()])
	}
	rank := func(p *prober) int {
		if i := slices.Index(x.opts.Prefer, p.engine.Name()); i >= 0 {
			return i
		}
		return len(x.opts.Prefer)
	}
	slices.SortStableFunc(x.engines, func(a, b *prober) int { return rank(a) - rank(b) })
	for _, m := range x.opts.Mounters {
		if err := x.mounters.add(m); err != nil {
			return err
		}
	}
	for _, s := range x.opts.Stagers {
		for _, scheme := range s.Schemes() {
			if x.stagers[scheme] != nil {
				return duplicate("URL scheme", scheme)
			}
			x.stagers[scheme] = s
		}
	}
	return nil
}

func duplicate(what, name string) error {
	return &caisson.Error{Op: caisson.OpConfig, Item: what, Kind: caisson.ErrExists, Err: fmt.Errorf("%q is there twice", name)}
}

// Upstreams returns the names that tasks may use as upstreams of their proxies,
// sorted.
func (x *Executor) Upstreams() []string { return slices.Sorted(maps.Keys(x.opts.Proxies)) }

// Close releases what the executor holds. Tasks run on.
func (x *Executor) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	var errs []error
	for id, lock := range x.held {
		errs = append(errs, lock.Release())
		delete(x.held, id)
	}
	return errors.Join(errs...)
}
