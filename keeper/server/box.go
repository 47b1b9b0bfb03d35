//go:build unix

package server

import (
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// A Box is what a keeper's programs run in. Its methods are those of
// isolate.Box, which is one, and may be called from any goroutine.
type Box interface {
	Spawn(p *isolate.Program, stdin, stdout, stderr *os.File) (*isolate.Proc, error)
	Root() (*os.File, error)
	Kill() error
	Freeze(on bool) error
	Stats() (isolate.Stats, error)
	Close() error
}

// A Halter is a Box whose programs can be halted for good while others are
// started beside them: one that wire.Spec.Keep is for. isolate.Box is one.
type Halter interface {
	// Halt halts all that runs in the box, until Kill or Close ends it.
	Halt() error
}

// A Drainer is a Box whose main program's output comes by a way of the box's own,
// and may still be under way when the program has ended.
type Drainer interface {
	// Drain waits until all that was printed is copied, once nothing of the
	// program runs, and returns why something may be missing: see ErrLost.
	Drain() error
}

// A Resident is a Box whose main program does not end with the keeper: it
// belongs to somebody else, such as a container daemon, who passes its output
// on.
type Resident interface {
	Box
	Drainer
	// SpawnMain starts the main program. Its output is copied to stdout and
	// stderr, which stay the caller's.
	SpawnMain(p *isolate.Program, stdout, stderr *os.File) (*isolate.Proc, error)
	// Main returns the main program and when it began if an earlier keeper has
	// started it; otherwise nil. All its output is copied, from its beginning.
	Main(stdout, stderr *os.File) (*isolate.Proc, time.Time, error)
}

// ErrLost is part of what Drain returns where the box has ended by itself, or by
// somebody else, while the program ran.
var ErrLost = errors.New("the sandbox was ended from outside of Caisson")

// An Opener makes the box of wire.Foreign, or, with adopt, finds it again. On
// error nothing is left that it has made.
type Opener func(data json.RawMessage, adopt bool) (Box, error)

// openBox makes the box that the spec asks for.
func (k *keeper) openBox() (Box, error) {
	f := k.spec.Foreign
	if f == nil {
		box, err := isolate.Start(k.spec.Box)
		if err != nil {
			return nil, err
		}
		return box, nil
	}
	open := k.openers[f.Kind]
	if open == nil {
		return nil, failure(caisson.OpCreate, caisson.ErrUnsupported, "this keeper does not know sandboxes of kind "+f.Kind)
	}
	box, err := open(f.Data, f.Adopt)
	if err != nil {
		return nil, err
	}
	if _, ok := box.(Halter); !ok && k.spec.Keep > 0 {
		err := failure(caisson.OpCreate, caisson.ErrUnsupported, "keep: sandboxes of kind "+f.Kind+" end with their program")
		return nil, errors.Join(err, box.Close())
	}
	return box, nil
}

// spawnMain starts the main program. One that its box runs by itself has no
// input.
func (k *keeper) spawnMain(stdin, stdout, stderr *os.File) (proc *isolate.Proc, err error) {
	r, ok := k.box.(Resident)
	if !ok {
		return k.spawnWith(&k.spec.Program, stdin, stdout, stderr)
	}
	err = k.use(func() error {
		proc, err = r.SpawnMain(&k.spec.Program, stdout, stderr)
		return err
	})
	return proc, err
}

// adopt takes up a program that an earlier keeper has started. What that one
// has written to the log is not written again.
func (k *keeper) adopt() error {
	r, ok := k.box.(Resident)
	if !ok || !k.spec.Foreign.Adopt {
		return nil
	}
	k.output.skip()
	stdout, stderr, err := k.output.open()
	if err != nil {
		return err
	}
	defer stdout.Close()
	defer stderr.Close()
	proc, began, err := r.Main(stdout, stderr)
	if err != nil || proc == nil {
		k.output.reset()
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.phase, k.main, k.began = running, proc, began
	if limit := k.spec.Timeout.Std(); limit > 0 {
		k.timeout = time.AfterFunc(max(limit-time.Since(began), 0), k.timeUp)
	}
	go k.supervise(proc)
	return nil
}

// drain waits for the rest of the output where that is a Drainer's.
func (k *keeper) drain() error {
	if d, ok := k.box.(Drainer); ok {
		return d.Drain()
	}
	return nil
}

// skip has as much of each stream left out as the log holds already.
func (o *output) skip() {
	for _, s := range []tasklog.Stream{tasklog.Stdout, tasklog.Stderr} {
		o.skipped[s] = o.log.Offset(s)
	}
}

// fresh returns what of data the log does not hold yet. The caller holds mu.
func (o *output) fresh(stream tasklog.Stream, data []byte) []byte {
	n := min(o.skipped[stream], int64(len(data)))
	o.skipped[stream] -= n
	return data[n:]
}

var (
	_ Box    = (*isolate.Box)(nil)
	_ Halter = (*isolate.Box)(nil)
)
