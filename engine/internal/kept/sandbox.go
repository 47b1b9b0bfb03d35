package kept

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/keeper"
)

// A sandbox is a keeper with what belongs to it. It has the core interface;
// compose adds the optional ones.
type sandbox struct {
	b   *Sandboxes
	id  string
	dir string // Spec.Dir
	rec *Record
	// shown says that it has displays, if the task wants any.
	shown bool

	// client is nil where the keeper was gone when the sandbox was recovered.
	client atomic.Pointer[keeper.Client]
	// reviving is held while a new keeper takes the place of one that was
	// killed.
	reviving sync.Mutex
	// destroying is held by whoever destroys, so that others can wait for it
	// no longer than their contexts permit.
	destroying chan struct{}

	mu sync.Mutex
	// destroyed says that nothing of the sandbox is left, or soon will not be.
	destroyed bool
	// exit is how the program ended, once somebody has asked.
	exit *caisson.Exit
}

var _ engine.Sandbox = (*sandbox)(nil)

// sandbox returns a sandbox with the interfaces that the engine's features
// have. Client is nil if the keeper is gone.
func (b *Sandboxes) sandbox(id, dir string, rec *Record, client *keeper.Client) engine.Sandbox {
	s := &sandbox{b: b, id: id, dir: dir, rec: rec, destroying: make(chan struct{}, 1)}
	s.client.Store(client)
	b.links.add(s)
	if b.opts.Alone {
		return s
	}
	w := b.works.Load()
	if w == nil {
		w = &Works{Terminal: true, Stats: true, Pause: true, Gateway: true, Displays: true}
	}
	s.shown = w.Displays && rec.Isolation != None
	return compose(s, w)
}

// keeper returns the connection to the keeper, or nil.
func (s *sandbox) keeper() *keeper.Client { return s.client.Load() }

// ID implements engine.Sandbox.
func (s *sandbox) ID() string { return s.id }

// Start implements engine.Sandbox.
func (s *sandbox) Start(ctx context.Context) (engine.Process, error) {
	if err := s.alive(caisson.OpStart); err != nil {
		return nil, err
	}
	if s.keeper() == nil {
		return nil, s.lostBefore(caisson.OpStart)
	}
	if err := s.keeper().Own(ctx); err != nil {
		return nil, s.said(caisson.OpStart, err)
	}
	if err := s.keeper().Start(ctx); err != nil {
		return nil, s.said(caisson.OpStart, err)
	}
	s.rec.noteStarted()
	return &process{s}, nil
}

// lostBefore says that the keeper was lost, of a sandbox that was not
// destroyed yet.
func (s *sandbox) lostBefore(op caisson.Op) error {
	return &caisson.Error{Op: op, Item: s.id, Kind: caisson.ErrAborted, Err: errors.New("the sandbox is lost: its keeper was killed")}
}

// Process implements engine.Sandbox. Where the keeper is lost it can't be told
// whether the program was ever started; then it is reported as lost.
func (s *sandbox) Process(ctx context.Context) (engine.Process, error) {
	if err := s.alive(caisson.OpWait); err != nil {
		return nil, err
	}
	if s.keeper() == nil {
		return &process{s}, nil
	}
	status, err := s.keeper().Status(ctx)
	switch {
	case err != nil && s.gone(ctx, err):
		return &process{s}, nil
	case err != nil:
		return nil, s.said(caisson.OpWait, err)
	case !status.Started:
		return nil, &caisson.Error{Op: caisson.OpWait, Item: s.id, Kind: caisson.ErrNotFound, Err: errors.New("the program was not started")}
	}
	return &process{s}, nil
}

// Destroy implements engine.Sandbox.
func (s *sandbox) Destroy(ctx context.Context) error {
	select {
	case s.destroying <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.destroying }()
	s.mu.Lock()
	s.destroyed = true
	s.mu.Unlock()
	if err := s.endKeeper(ctx); err != nil {
		return s.said(caisson.OpDestroy, err)
	}
	if err := s.b.removeAll(ctx, s.id, s.dir, s.rec); err != nil {
		return s.said(caisson.OpDestroy, err)
	}
	return nil
}

// endKeeper has the keeper destroy what it owns, and end. One that was killed
// has left nothing that runs, but for what removeAll ends.
func (s *sandbox) endKeeper(ctx context.Context) error {
	if s.keeper() == nil {
		return nil
	}
	err := s.keeper().Destroy(ctx)
	if err != nil && ctx.Err() == nil && errors.Is(err, caisson.ErrUnavailable) {
		if again, dialErr := keeper.Dial(ctx, s.dir); dialErr == nil {
			err = errors.Join(again.Destroy(ctx), again.Close())
		} else if errors.Is(dialErr, caisson.ErrNotFound) {
			err = s.b.ended(s.id, s.rec)
		}
	}
	if err == nil {
		s.remember()
		s.b.links.drop(s.keeper())
	}
	return err
}

// remember keeps the exit, because the caller will remove its file.
func (s *sandbox) remember() {
	exit, err := keeper.ReadExit(s.dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.exit == nil {
		s.exit = &exit
	}
}

// removeAll removes what can be left of a sandbox whose keeper is gone. It can
// be called again; the handle goes last, because it names the rest.
func (b *Sandboxes) removeAll(ctx context.Context, id, dir string, rec *Record) error {
	if err := endGroup(rec.Cgroup); err != nil {
		return err
	}
	if err := rec.giveBack(ctx, b.opts.IDs); err != nil {
		return err
	}
	if err := errors.Join(b.remove(ctx, id, rec), rec.removeWork(ctx)); err != nil {
		return err
	}
	return errors.Join(b.freeSlot(rec.Installation, id), removeRun(rec.Run, dir), removeHandle(dir))
}

// alive returns ErrAborted once the sandbox is being destroyed.
func (s *sandbox) alive(op caisson.Op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.destroyed {
		return aborted(op, s.id)
	}
	return nil
}

// said describes an error of the keeper's. After Destroy there is only one.
func (s *sandbox) said(op caisson.Op, err error) error {
	if err != nil && op != caisson.OpDestroy {
		if destroyed := s.alive(op); destroyed != nil {
			return destroyed
		}
	}
	return said(op, s.id, err)
}

// gone reports whether err says that the keeper was killed.
func (s *sandbox) gone(ctx context.Context, err error) bool {
	if ctx.Err() != nil || !errors.Is(err, caisson.ErrUnavailable) {
		return false
	}
	client, err := keeper.Dial(ctx, s.dir)
	if err == nil {
		client.Close()
	}
	return errors.Is(err, caisson.ErrNotFound)
}

// base returns the sandbox behind the interfaces that compose gave it.
func base(s engine.Sandbox) *sandbox {
	return s.(interface{ core() *sandbox }).core()
}

func (s *sandbox) core() *sandbox { return s }
