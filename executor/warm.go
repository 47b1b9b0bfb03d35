//go:build unix

package executor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
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

// MaxPool is how many sandboxes a warm pool can hold.
const MaxPool = 100

// A Pool is a warm pool: sandboxes that are made before there are tasks for them.
// Each is the first attempt of a task to be: it lies where that task will, is given
// the task's program when there is one, and goes with it.
type Pool struct {
	// Task is what sandboxes are made for: engine, image or module, limits, network,
	// user. It has no program.
	Task *caisson.Task
	// Size is how many there are to be, 1 to MaxPool.
	Size int
}

// spareVersion is the version of warm.json that this code writes. Another one is of
// no use to anybody.
const spareVersion = 1

// A spare is warm.json: a sandbox of a pool, or one that is being made or removed.
type spare struct {
	Version int    `json:"version"`
	Pool    string `json:"pool"`
	// Under tells what the sandbox was made under: program, settings, the pool's task.
	Under string    `json:"under"`
	Boot  string    `json:"boot"`
	Made  time.Time `json:"made"`
	// Ready says that it is complete and waits. Otherwise whoever holds no lock of it
	// removes it.
	Ready bool `json:"ready"`
	// Digest is that of the image, where the executor brings it.
	Digest string  `json:"digest,omitempty"`
	Record *record `json:"record"`
}

// readSpare reads a spare; nil: there is none.
func readSpare(t state.Task) (*spare, error) {
	s := new(spare)
	err := readJSON(t.Warm(), s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, stateError(t.Warm(), caisson.ErrInvalid, err)
	}
	return s, nil
}

// frame is what of a task its sandbox is made from, as text: two tasks of which it is
// the same can have the same sandbox. Ok is false for what is made for its task alone.
func frame(r *record) (text string, ok bool) {
	if r.composite() || r.Parent != nil || r.Fork != nil || r.Root || r.gated() {
		return "", false
	}
	task := *r.Task
	for _, list := range [][]caisson.Step{task.Pre, task.Post, task.Finally} {
		for _, st := range list {
			if st.Image != "" && st.Image != task.Image {
				return "", false // it was not brought with the sandbox
			}
		}
	}
	for _, secret := range task.Secrets {
		if secret.As == caisson.SecretFile || secret.Broker != nil {
			return "", false
		}
	}
	if len(outsideFiles(&task.Program)) > 0 || len(task.Sidecars) > 0 || len(task.Mounts) > 0 || ownMachine(&task) {
		return "", false
	}
	task.Version, task.Name, task.Engine = 0, "", ""
	task.Program = caisson.Program{Image: wholeImage(r), Workdir: task.Workdir, User: task.User}
	if task.Workdir != "" && inside(task.Workdir) == caisson.WorkDir {
		task.Workdir = ""
	}
	if task.Network.Mode == caisson.NetworkNone {
		task.Network.Mode = ""
	}
	task.Inputs, task.Outputs, task.Pre, task.Post, task.Finally = nil, nil, nil, nil, nil
	task.Timeout, task.Grace, task.StopSignal = 0, 0, ""
	task.Retry, task.Success, task.Secrets = caisson.Retry{}, caisson.Success{}, nil
	data, err := json.Marshal(&task)
	return string(data), err == nil
}

// wholeImage is the task's image, wherever its document lies.
func wholeImage(r *record) string {
	const archive = "docker-archive:"
	if file, ok := strings.CutPrefix(r.Task.Image, archive); ok && !filepath.IsAbs(file) && r.BaseDir != "" {
		return archive + filepath.Join(r.BaseDir, file)
	}
	return r.Task.Image
}

// under is what a pool's sandboxes are made under now. Empty: it can't be told, and
// there are none.
func (x *Executor) under(p *Pool) string {
	program, err := identity()
	if err != nil || x.opts.Settings == "" {
		return ""
	}
	task, err := json.Marshal(p.Task)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%s", program, x.opts.Settings, os.Geteuid(), task))
	return hex.EncodeToString(sum[:])
}

// poolFor returns the name of the pool whose sandboxes are as the task's is to be.
// Empty: there is none.
func (x *Executor) poolFor(r *record) string {
	if len(x.opts.Pools) == 0 {
		return ""
	}
	want, ok := frame(r)
	if !ok {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(x.opts.Pools)) {
		p := x.opts.Pools[name]
		if p.Task.Engine != "" && p.Task.Engine != r.Engine {
			continue
		}
		if has, ok := frame(&record{Task: p.Task}); ok && has == want {
			return name
		}
	}
	return ""
}

// claim looks for a sandbox that waits for a task such as r. If there is one, r becomes
// its task, and its lock is returned. That there is none, for whatever reason, only
// means that one is made.
func (x *Executor) claim(ctx context.Context, r *record, secrets map[string][]byte) *lockfile.Lock {
	if r.Pool = x.poolFor(r); r.Pool == "" {
		return nil
	}
	ids, err := x.spares(r.Pool)
	if err != nil || len(ids) == 0 {
		return nil
	}
	boot, err := x.bootID()
	if err != nil {
		return nil
	}
	digest, err := x.digest(ctx, r, secrets)
	if err != nil {
		return nil // whoever attends to it says why
	}
	under := x.under(x.opts.Pools[r.Pool])
	for _, id := range ids {
		t := x.folder.Task(id)
		lock, err := lockfile.Try(t.Lock())
		if err != nil {
			continue
		}
		s, err := readSpare(t)
		accepted, existsErr := state.Exists(t.Document())
		if err == nil && existsErr == nil && !accepted && s.fits(r, under, boot, digest) {
			r.ID = id
			return lock
		}
		_ = lock.Release()
	}
	return nil
}

// fits reports whether the sandbox is what the task would be given.
func (s *spare) fits(r *record, under, boot, digest string) bool {
	return s.whole(under, boot) && s.Digest == digest && s.Record.Engine == r.Engine && s.Record.Sharing == r.Sharing &&
		s.Record.Owner == r.Owner && s.Record.UID == r.UID && s.Record.GID == r.GID
}

// whole reports whether the sandbox is complete, and was made under what holds now.
func (s *spare) whole(under, boot string) bool {
	return s != nil && s.Version == spareVersion && s.Ready && under != "" && s.Under == under && s.Boot == boot && s.Record != nil
}

// digest is that of the task's image as a name for it says now. Empty: it has none, or
// the engine brings it.
func (x *Executor) digest(ctx context.Context, r *record, secrets map[string][]byte) (digest string, err error) {
	if !r.Sharing.RootFS || r.Task.Image == "" {
		return "", nil
	}
	a, err := x.lookingAt(r)
	if err != nil {
		return "", err
	}
	a.secrets = secrets
	err = x.guard(caisson.OpPrepare, func() error {
		options, err := a.imageOptions()
		if err != nil {
			return err
		}
		img, err := x.opts.Images.Get(ctx, a.request(r.Task.Image, &options))
		if err == nil {
			digest = img.Digest
		}
		return err
	})
	return digest, err
}

// lookingAt is an attendant that only knows what a task's first attempt is to be: it
// has no journal.
func (x *Executor) lookingAt(r *record) (*attendant, error) {
	p, err := x.engine(r.Engine)
	if err != nil {
		return nil, err
	}
	boot, err := x.bootID()
	if err != nil {
		return nil, stateError("boot id", caisson.ErrUnavailable, err)
	}
	begun := []caisson.Event{{Type: caisson.EventAttempt, Attempt: 1, State: caisson.StateStaging, Boot: boot}}
	return &attendant{
		x: x, task: x.folder.Task(r.ID), record: r, steps: stepsOf(r.Task), engine: p, boot: boot,
		h: newHistory(begun), live: make(map[string]engine.Sandbox), log: x.log.With("task", r.ID, "engine", r.Engine),
	}, nil
}

// takeSpare reports whether the attempt has a sandbox of a pool that nobody has done
// anything with yet. It can be taken once: whoever goes on after a crash makes another.
func (a *attendant) takeSpare() (bool, error) {
	if a.record.Pool == "" || a.h.attempt != 1 {
		return false, nil
	}
	s, err := readSpare(a.task)
	if s == nil || err != nil {
		return false, err
	}
	if err := os.Remove(a.task.Warm()); err != nil {
		return false, safefs.Sorted(caisson.OpStageIn, a.task.Warm(), err)
	}
	return s.Ready && s.Boot == a.boot, nil
}

// stageSpare stages into the folders of a sandbox that waits.
func (a *attendant) stageSpare(ctx context.Context) (err error) {
	if a.places, err = readPlaces(a.attempt()); err != nil {
		return err
	}
	a.waiting = true
	if r := a.places.rootOf(wholeImage(a.record)); r != nil && r.Image != a.record.Task.Image {
		// From here on it is called as the task calls it.
		r.Image = a.record.Task.Image
		if err := a.places.write(a.attempt()); err != nil {
			return err
		}
	}
	err = a.fetch(ctx)
	a.mounted = err == nil
	return err
}

// assign gives the sandbox that waits the main program.
func (a *attendant) assign(ctx context.Context, st *step) (sb engine.Sandbox, folder string, err error) {
	a.waiting = false
	folder = tryFolder(st.name, 1)
	assigner, ok := a.engine.engine.(engine.Assigner)
	if !ok {
		return nil, "", cannot(caisson.OpCreate, "have warm pools")
	}
	defer a.clock("claim")()
	b := a.blueprint()
	if err := a.writeFiles(ctx, b, st); err != nil {
		return nil, "", err
	}
	spec, err := b.spec(st, folder)
	if err != nil {
		return nil, "", err
	}
	if err := a.rootOfSpare(ctx, st, folder, spec); err != nil {
		return nil, "", err
	}
	limited, cancel := context.WithTimeout(ctx, a.x.limits.call)
	defer cancel()
	err = a.x.guard(caisson.OpCreate, func() (err error) {
		sb, err = assigner.Assign(limited, spec)
		return err
	})
	if err == nil {
		err = a.give(ctx, sb)
	}
	return sb, folder, err
}

// rootOfSpare is giveRoot for a sandbox that has its root.
func (a *attendant) rootOfSpare(ctx context.Context, st *step, folder string, s *engine.Spec) error {
	if s.RootFS == nil {
		return nil
	}
	r := a.places.rootOf(st.program.Image)
	if r == nil || r.Config == nil || r.Path == "" {
		return cannot(caisson.OpCreate, "share an image")
	}
	options, err := a.imageOptions()
	if err != nil {
		return err
	}
	if err := merge(s, st, a.record.Task, r.Config, &options); err != nil {
		return err
	}
	changes, err := filepath.EvalSymlinks(a.attempt().Changes(folder))
	if err != nil {
		return safefs.Sorted(caisson.OpCreate, "warm pool", err)
	}
	s.RootFS = &engine.RootFS{Path: r.Path, Disk: r.Disk, Image: st.program.Image, Changes: changes}
	return a.imageVolumes(ctx, r, s)
}

// dropSpare removes the sandbox of a pool that the task was to have, if it never began.
func (a *attendant) dropSpare() error {
	if a.record.Pool == "" {
		return nil
	}
	if there, err := exists(a.task.Warm()); !there || err != nil {
		return err
	}
	first, err := a.x.lookingAt(a.record)
	if err != nil {
		return err
	}
	if err := first.cleanAttempt(context.Background()); err != nil {
		return err
	}
	return safefs.Sorted(caisson.OpDestroy, a.task.Warm(), os.Remove(a.task.Warm()))
}

// spares lists the sandboxes of a pool, also those that are being made, oldest first.
func (x *Executor) spares(pool string) ([]string, error) {
	entries, err := os.ReadDir(x.poolDir(pool))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, safefs.Sorted(caisson.OpState, x.poolDir(pool), err)
	}
	var ids []string
	for _, e := range entries {
		if caisson.CheckTaskID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// poolDir is the folder that has a file for each sandbox of a pool, by its task's id.
func (x *Executor) poolDir(name string) string { return filepath.Join(x.folder.PoolsDir(), name) }

// unlist takes a sandbox out of its pool's list.
func (x *Executor) unlist(pool, id string) error {
	err := os.Remove(filepath.Join(x.poolDir(pool), path.Base(id)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return safefs.Sorted(caisson.OpState, x.poolDir(pool), err)
}
