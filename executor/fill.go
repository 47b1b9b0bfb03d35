//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/state"
)

// What is in a pool's folder besides a file for each sandbox.
const (
	fillLock = "fill.lock" // held by whoever fills the pool
	nextLock = "next.lock" // held by the one who waits for that
	fillWhy  = "error"     // why it could not be filled, the last time
)

// PoolInfo is what is known of a warm pool.
type PoolInfo struct {
	Name   string `json:"name"`
	Engine string `json:"engine,omitempty"` // empty: the first that can
	Image  string `json:"image,omitempty"`
	Module string `json:"module,omitempty"`
	Size   int    `json:"size"` // 0: it is not configured any more
	// Ready is how many sandboxes wait, Stale how many do that nobody can have any
	// more: `fill` replaces them.
	Ready   int       `json:"ready"`
	Stale   int       `json:"stale,omitempty"`
	Filling bool      `json:"filling,omitempty"`
	Oldest  time.Time `json:"oldest,omitzero"`
	Error   string    `json:"error,omitempty"` // why it could not be filled, the last time
}

// Pools lists the warm pools, by name, also those that have sandboxes and are not
// configured any more.
func (x *Executor) Pools(ctx context.Context) ([]PoolInfo, error) {
	names, err := x.poolNames()
	if err != nil {
		return nil, err
	}
	boot, err := x.bootID()
	if err != nil {
		return nil, stateError("boot id", caisson.ErrUnavailable, err)
	}
	list := []PoolInfo{}
	for _, name := range names {
		info := PoolInfo{Name: name}
		under := ""
		if p := x.opts.Pools[name]; p != nil {
			info.Engine, info.Image, info.Module, info.Size = p.Task.Engine, p.Task.Image, p.Task.Module, p.Size
			under = x.under(p)
		}
		ids, err := x.spares(name)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			s, err := readSpare(x.folder.Task(id))
			switch {
			case err != nil || s == nil || !s.Ready:
			case s.whole(under, boot):
				info.Ready++
				if info.Oldest.IsZero() || s.Made.Before(info.Oldest) {
					info.Oldest = s.Made
				}
			default:
				info.Stale++
			}
		}
		info.Filling, _ = lockfile.Held(filepath.Join(x.poolDir(name), fillLock))
		if why, err := os.ReadFile(filepath.Join(x.poolDir(name), fillWhy)); err == nil {
			info.Error = strings.TrimSpace(string(why))
		}
		list = append(list, info)
	}
	return list, ctx.Err()
}

// poolNames lists the names of all pools.
func (x *Executor) poolNames() ([]string, error) {
	names := slices.Collect(maps.Keys(x.opts.Pools))
	entries, err := os.ReadDir(x.folder.PoolsDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, safefs.Sorted(caisson.OpState, x.folder.PoolsDir(), err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Fill makes the sandboxes that a pool lacks, after it has removed those that no task
// can have any more, and returns how many it has made. Of several calls, in whichever
// processes, one works and one waits to look again; others return at once.
//
// Errors: ErrNotFound if there is no such pool; those of Submit and Create.
func (x *Executor) Fill(ctx context.Context, name string) (made int, err error) {
	p := x.opts.Pools[name]
	if p == nil {
		return 0, noPool(name, slices.Sorted(maps.Keys(x.opts.Pools)))
	}
	dir := x.poolDir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, safefs.Sorted(caisson.OpState, dir, err)
	}
	lock, err := fillTurn(ctx, dir)
	if lock == nil || err != nil {
		return 0, err
	}
	defer lock.Release()
	made, err = x.fill(ctx, name, p)
	why := filepath.Join(dir, fillWhy)
	if err == nil {
		_ = os.Remove(why)
		return made, nil
	}
	if ctx.Err() == nil {
		// It is for people: that it can't be kept is no reason to say something else.
		_ = os.WriteFile(why, []byte(err.Error()+"\n"), 0o600)
	}
	return made, fmt.Errorf("pool %s: %w", name, err)
}

func noPool(name string, known []string) error {
	why := "none is configured; see [warm.NAME] in docs/configuration.md"
	if len(known) > 0 {
		why = "there are: " + strings.Join(known, ", ")
	}
	return &caisson.Error{Item: fmt.Sprintf("warm pool %q", name), Kind: caisson.ErrNotFound, Err: errors.New(why)}
}

// fillTurn waits until nobody else fills the pool. It returns no lock where somebody
// waits already, who will see all that there is to be seen.
func fillTurn(ctx context.Context, dir string) (*lockfile.Lock, error) {
	next, err := lockfile.Try(filepath.Join(dir, nextLock))
	if errors.Is(err, caisson.ErrExists) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer next.Release()
	return lockfile.Acquire(ctx, filepath.Join(dir, fillLock))
}

func (x *Executor) fill(ctx context.Context, name string, p *Pool) (made int, err error) {
	for {
		r, err := x.spareRecord(ctx, p)
		if err != nil {
			return made, err
		}
		ready, err := x.weed(ctx, name, x.under(p), r)
		if err != nil || ready >= p.Size {
			return made, err
		}
		if err := x.makeSpare(ctx, name, p, r); err != nil {
			return made, err
		}
		made++
	}
}

// spareRecord is that of a task to be, if there can be such a sandbox.
func (x *Executor) spareRecord(ctx context.Context, p *Pool) (*record, error) {
	task := *p.Task
	if task.Module == "" {
		task.Cmd = []string{"true"} // it never runs
	}
	r := &record{
		Version: recordVersion, ID: caisson.NewTaskID(x.now()), Task: &task, Trusted: true,
		UID: os.Getuid(), GID: os.Getgid(), Owner: ownerOf(&task),
	}
	if err := x.check(ctx, r, &Submission{Trusted: true}); err != nil {
		return nil, err
	}
	e, err := x.engine(r.Engine)
	if err != nil {
		return nil, err
	}
	f, err := e.look(ctx, x, false)
	if err != nil {
		return nil, err
	}
	if _, ok := e.engine.(engine.Assigner); !ok || !f.Warm {
		why := "it makes sandboxes with their programs"
		for _, m := range f.Missing {
			if m.What == engine.WhatWarm {
				why = m.String()
			}
		}
		return nil, &caisson.Error{Op: caisson.OpValidate, Item: "engine " + r.Engine, Kind: caisson.ErrUnsupported, Err: errors.New(why)}
	}
	if _, ok := frame(r); !ok {
		return nil, invalid("task", errors.New("its sandbox is made for it alone"))
	}
	return r, nil
}

// weed removes the pool's sandboxes that a task such as r can't have any more, and
// returns how many are left.
func (x *Executor) weed(ctx context.Context, name, under string, r *record) (ready int, err error) {
	boot, err := x.bootID()
	if err != nil {
		return 0, err
	}
	digest, err := x.digest(ctx, r, nil)
	if err != nil {
		return 0, err
	}
	good := func(s *spare) bool { return s.fits(r, under, boot, digest) && x.waits(ctx, s) }
	return x.thin(ctx, name, good)
}

// thin removes the pool's sandboxes that are not good, and returns how many are left.
func (x *Executor) thin(ctx context.Context, name string, good func(*spare) bool) (left int, err error) {
	ids, err := x.spares(name)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		stays, err := x.thinOne(ctx, name, id, good)
		if err != nil {
			return left, err
		}
		if stays {
			left++
		}
	}
	return left, nil
}

func (x *Executor) thinOne(ctx context.Context, name, id string, good func(*spare) bool) (stays bool, err error) {
	t := x.folder.Task(id)
	if there, err := state.Exists(t.Warm()); err != nil {
		return false, err
	} else if !there {
		return false, x.unlist(name, id) // it is somebody's, or gone
	}
	lock, err := acquireThere(ctx, t)
	if lock == nil || err != nil {
		return false, err
	}
	defer lock.Release()
	if accepted, err := state.Exists(t.Document()); accepted || err != nil {
		return false, errors.Join(err, x.unlist(name, id))
	}
	s, err := readSpare(t)
	if err == nil && good(s) {
		return true, nil
	}
	return false, x.removeSpare(ctx, t)
}

// waits reports whether the sandbox is there and nothing was started in it.
func (x *Executor) waits(ctx context.Context, s *spare) bool {
	e, err := x.engine(s.Record.Engine)
	if err != nil {
		return false
	}
	limited, cancel := context.WithTimeout(ctx, x.limits.call)
	defer cancel()
	err = x.guard(caisson.OpRecover, func() error {
		sb, err := e.engine.Recover(limited, x.folder.Task(s.Record.ID).Attempt(1).Step(string(kindMain)))
		if err != nil {
			return errLost
		}
		_, err = sb.Process(limited)
		return err
	})
	return errors.Is(err, caisson.ErrNotFound)
}

// errLost says that there is no sandbox to be asked.
var errLost = &caisson.Error{Kind: caisson.ErrAborted, Err: errors.New("the sandbox is gone")}

// makeSpare makes a sandbox for a pool, and leaves nothing if it can't.
func (x *Executor) makeSpare(ctx context.Context, name string, p *Pool, r *record) (err error) {
	lock, err := x.makeFolder(ctx, r)
	if err != nil {
		return err
	}
	defer lock.Release()
	a, err := x.lookingAt(r)
	if err != nil {
		return err
	}
	s := &spare{Version: spareVersion, Pool: name, Under: x.under(p), Boot: a.boot, Made: x.now(), Record: r}
	if s.Under == "" {
		return errors.Join(x.removeFolder(ctx, a.task), &caisson.Error{
			Kind: caisson.ErrUnsupported, Err: errors.New("this program does not say what its sandboxes depend on"),
		})
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.removeSpare(context.WithoutCancel(ctx), a.task))
		}
	}()
	// What it is is durable before there is anything of it.
	if err := writeJSON(a.task.Warm(), s); err != nil {
		return err
	}
	list := filepath.Join(x.poolDir(name), r.ID)
	if err := os.WriteFile(list, nil, 0o600); err != nil {
		return safefs.Sorted(caisson.OpState, list, err)
	}
	if err := a.makeAhead(ctx); err != nil {
		return err
	}
	if r := a.places.rootOf(a.record.Task.Image); r != nil {
		s.Digest = r.Digest
	}
	s.Ready = true
	return writeJSON(a.task.Warm(), s)
}

// makeAhead makes all that the attempt's main program needs but what is the task's own.
func (a *attendant) makeAhead(ctx context.Context) error {
	if err := a.stageAll(ctx); err != nil {
		return err
	}
	if r := a.places.rootOf(a.record.Task.Image); r != nil && r.Path == "" {
		return cannot(caisson.OpCreate, "share an unpacked image here, which a pool's sandboxes do")
	}
	main := a.steps.main()
	folder, err := a.makeStepFolder(ctx, main)
	if err != nil {
		return err
	}
	sb, err := a.make(ctx, main, folder)
	if err == nil {
		a.live[folder] = sb
	}
	return err
}

// removeSpare removes a sandbox that no task has, with all that was made for it. Its
// lock is held.
func (x *Executor) removeSpare(ctx context.Context, t state.Task) error {
	s, err := readSpare(t)
	if s == nil || err != nil || s.Record == nil || s.Record.ID != t.ID {
		return errors.Join(err, x.removeFolder(ctx, t))
	}
	// Nobody takes it from here on, whatever of it is left after a crash.
	s.Ready = false
	if err := writeJSON(t.Warm(), s); err != nil {
		return err
	}
	a, err := x.lookingAt(s.Record)
	if err != nil {
		return err
	}
	if err := a.cleanAttempt(ctx); err != nil {
		return err
	}
	if err := x.removeFolder(ctx, t); err != nil {
		return err
	}
	return x.unlist(s.Pool, t.ID)
}

// lookAfterSpare removes a sandbox that was not finished, or that a reboot has ended.
// It reports whether the folder is one of a pool's.
func (x *Executor) lookAfterSpare(ctx context.Context, t state.Task) (bool, error) {
	s, err := readSpare(t)
	if s == nil || err != nil {
		return s != nil, err
	}
	boot, err := x.bootID()
	if err != nil || s.Ready && s.Boot == boot {
		return true, err
	}
	lock, err := lockfile.Try(t.Lock())
	if errors.Is(err, caisson.ErrExists) || errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return true, err
	}
	defer lock.Release()
	if accepted, err := state.Exists(t.Document()); accepted || err != nil {
		return true, err
	}
	return true, x.removeSpare(ctx, t)
}

// Drain removes a pool's sandboxes that wait, and returns how many there were. The pool
// is filled again by the next task that could have one.
//
// Errors: ErrNotFound if there is no such pool.
func (x *Executor) Drain(ctx context.Context, name string) (removed int, err error) {
	names, err := x.poolNames()
	if err != nil {
		return 0, err
	}
	if !slices.Contains(names, name) {
		return 0, noPool(name, names)
	}
	dir := x.poolDir(name)
	if there, err := exists(dir); !there || err != nil {
		return 0, err
	}
	lock, err := lockfile.Acquire(ctx, filepath.Join(dir, fillLock))
	if err != nil {
		return 0, err
	}
	defer lock.Release()
	_, err = x.thin(ctx, name, func(s *spare) bool {
		removed++
		return false
	})
	if err == nil && x.opts.Pools[name] == nil {
		err = safefs.Sorted(caisson.OpState, dir, os.RemoveAll(dir))
	}
	return removed, err
}

// refill has the pool filled that the task could have a sandbox of, by a process of its
// own: there is nobody else who would.
func (x *Executor) refill(pool string) {
	if pool == "" || len(x.opts.Fill) == 0 || x.opts.Pools[pool] == nil {
		return
	}
	dir := x.poolDir(pool)
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = x.detach(filepath.Join(dir, "fill.log"), append(slices.Clone(x.opts.Fill), pool))
	}
	if err != nil {
		x.log.Warn("fill", "pool", pool, "err", err)
	}
}
