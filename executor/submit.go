//go:build unix

package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/cleanup"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/state"
	"github.com/caissonrun/caisson/keeper/redact"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/stage"
)

// A Submission is what comes with a task.
type Submission struct {
	BaseDir string            // that relative paths outside start from
	Secrets map[string][]byte // values by the names in Task.Secrets
	// Detached says that the submitter does not attend to the task: an
	// attendant is started. Otherwise the task is this executor's to attend to
	// until Close, and Recover of others leaves it alone.
	Detached bool
	// Trusted says that file: paths and binds act with the caller's rights, as
	// on the command line.
	Trusted bool
}

// Submit checks the task against the engines and makes it durable. From then
// on it ends in exactly one Result.
//
// Errors: ErrInvalid, ErrUnsupported, ErrDenied, ErrNotFound: nothing is kept.
func (x *Executor) Submit(ctx context.Context, task *caisson.Task, sub *Submission) (id string, err error) {
	r := &record{
		Version: recordVersion,
		ID:      caisson.NewTaskID(x.now()),
		Task:    task,
		BaseDir: sub.BaseDir,
		Trusted: sub.Trusted,
		UID:     os.Getuid(),
		GID:     os.Getgid(),
		Owner:   ownerOf(task),
		Secrets: len(task.Secrets) > 0,
	}
	if r.composite() {
		sub, err = x.plan(ctx, r, sub)
	} else {
		err = x.check(ctx, r, sub)
	}
	if err != nil {
		return "", err
	}
	spare := x.claim(ctx, r, sub.Secrets)
	lock, err := x.accept(ctx, r, sub, spare)
	if err != nil {
		return "", err
	}
	if spare != nil {
		if err := x.unlist(r.Pool, r.ID); err != nil {
			x.log.Warn("claim", "task", r.ID, "err", err) // who fills the pool does it
		}
	}
	x.log.Info("accepted", "task", r.ID, "engine", r.Engine)
	if !sub.Detached {
		return r.ID, x.hold(r.ID, lock)
	}
	if err := lock.Release(); err != nil {
		return r.ID, err
	}
	if err := x.spawn(r.ID); err != nil {
		// It is accepted all the same: the next command starts one.
		x.log.Warn("attendant", "task", r.ID, "err", err)
	}
	return r.ID, nil
}

// check finds out whether the task could run here, without doing anything.
func (x *Executor) check(ctx context.Context, r *record, sub *Submission) error {
	if err := x.checkSecrets(r.Task, sub.Secrets); err != nil {
		return err
	}
	if err := x.checkMounts(r); err != nil {
		return err
	}
	if err := x.checkGateway(r, sub); err != nil {
		return err
	}
	if err := x.choose(ctx, r, sub.Secrets); err != nil {
		return err
	}
	return x.checkStaging(r, sub)
}

func (x *Executor) checkSecrets(task *caisson.Task, values map[string][]byte) error {
	for name := range task.Secrets {
		value, ok := values[name]
		if !ok {
			return invalid("secrets."+name, errors.New("its value was not handed over"))
		}
		switch n := len(bytes.TrimRight(value, "\r\n")); {
		case n > 0 && n < redact.MinSecret:
			return invalid("secrets."+name, fmt.Errorf("shorter than %d bytes: it can't be told from other output", redact.MinSecret))
		case n > redact.MaxSecret:
			return invalid("secrets."+name, fmt.Errorf("longer than %d bytes", redact.MaxSecret))
		}
	}
	return nil
}

func (x *Executor) checkStaging(r *record, sub *Submission) error {
	env := stageEnv(r, sub.Secrets)
	for i := range r.Task.Inputs {
		in := &r.Task.Inputs[i]
		item := fmt.Sprintf("inputs[%d]", i)
		f, err := x.fetcher(in)
		if err == nil {
			err = x.guard(caisson.OpStageIn, func() error { return f.CheckInput(in, env) })
		}
		if err != nil {
			return at(item, err)
		}
	}
	for i := range r.Task.Outputs {
		out := &r.Task.Outputs[i]
		item := fmt.Sprintf("outputs[%d]", i)
		s, err := x.storer(out)
		if err == nil {
			err = x.guard(caisson.OpStageOut, func() error { return s.CheckOutput(out, env) })
		}
		if err != nil {
			return at(item, err)
		}
	}
	return nil
}

// fetcher returns who fetches in. Errors: ErrUnsupported.
func (x *Executor) fetcher(in *caisson.Input) (stage.Fetcher, error) {
	scheme := stage.InputScheme(in)
	if f, ok := x.stagers[scheme].(stage.Fetcher); ok {
		return f, nil
	}
	return nil, noStager(in.From, scheme)
}

// storer returns who stores out. Errors: ErrUnsupported.
func (x *Executor) storer(out *caisson.Output) (stage.Storer, error) {
	scheme := stage.OutputScheme(out)
	if s, ok := x.stagers[scheme].(stage.Storer); ok {
		return s, nil
	}
	return nil, noStager(out.To, scheme)
}

func noStager(url, scheme string) error {
	return &caisson.Error{
		Op: caisson.OpValidate, Item: fmt.Sprintf("%q", url), Kind: caisson.ErrUnsupported,
		Err: fmt.Errorf("nothing here serves %q; use file:PATH for a file of this host", scheme),
	}
}

func stageEnv(r *record, secrets map[string][]byte) *stage.Env {
	env := &stage.Env{
		BaseDir: r.BaseDir, Trusted: r.Trusted,
		UID: r.Owner.UID, GID: r.Owner.GID,
		OutUID: r.UID, OutGID: r.GID,
		Secrets: make(map[string]string, len(secrets)),
	}
	for name, value := range secrets {
		env.Secrets[name] = string(value)
	}
	return env
}

func (x *Executor) mountEnv(r *record) mount.Env {
	env := mount.Env{BaseDir: r.BaseDir, Trusted: r.Trusted, UID: r.Owner.UID, GID: r.Owner.GID}
	if p := r.Parent; p != nil {
		env.Parent = &mount.Parent{
			Dir: x.folder.Task(p.ID).Attempt(p.Attempt).Job(), Private: x.privateDir(p.ID, p.Attempt), Links: r.Links,
		}
	}
	return env
}

// accept makes the task durable and returns with its lock held. Its folder is there if
// spare, its lock, is: it has a sandbox of a warm pool, which is another task's if this
// one is not accepted.
func (x *Executor) accept(ctx context.Context, r *record, sub *Submission, spare *lockfile.Lock) (lock *lockfile.Lock, err error) {
	var undo cleanup.List
	defer undo.OnError(ctx, &err)

	// The folder, locked before anything is in it, so that nobody takes it for
	// an orphan.
	crash.Point(crash.FolderBefore)
	if lock = spare; lock == nil {
		if lock, err = x.makeFolder(ctx, r); err != nil {
			return nil, err
		}
	}
	t := x.folder.Task(r.ID)
	undo.Add(lock.Release)
	if spare == nil {
		undo.Add(func() error { return os.RemoveAll(t.Dir) })
	}
	crash.Point(crash.FolderAfter)
	if r.fill != nil {
		if err := r.fill(t); err != nil {
			return nil, err
		}
	}

	// Values of secrets, in the runtime folder.
	if r.Secrets {
		crash.Point(crash.SecretsBefore)
		undo.Add(func() error { return x.forgetSecrets(r.ID) })
		values, err := withBrokerage(sub.Secrets, r.brokerage)
		if err != nil {
			return nil, err
		}
		if err := x.writeSecrets(r.ID, values); err != nil {
			return nil, err
		}
		crash.Point(crash.SecretsAfter)
	}

	// The journal's first line, then the document: with that it is accepted.
	r.AcceptedAt = x.now()
	crash.Point(crash.AcceptedBefore)
	if err := x.logAccepted(t, r); err != nil {
		return nil, err
	}
	crash.Point(crash.AcceptedAfter)
	crash.Point(crash.TaskBefore)
	if err := writeRecord(t, r); err != nil {
		return nil, err
	}
	if err := x.folder.SyncTasks(); err != nil {
		return nil, safefs.Sorted(caisson.OpState, t.Dir, err)
	}
	crash.Point(crash.TaskAfter)
	undo.Release()
	return lock, nil
}

// makeFolder makes the task's folder and locks it. Somebody who looks for
// orphans may find the folder before it is locked: then there is another id.
func (x *Executor) makeFolder(ctx context.Context, r *record) (*lockfile.Lock, error) {
	for {
		t := x.folder.Task(r.ID)
		err := os.Mkdir(t.Dir, 0o700)
		if err == nil {
			var lock *lockfile.Lock
			if lock, err = lockfile.Try(t.Lock()); err == nil {
				return lock, nil
			}
		}
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, caisson.ErrExists) && !errors.Is(err, fs.ErrNotExist) {
			return nil, safefs.Sorted(caisson.OpState, t.Dir, err)
		}
		if exists, err := state.Exists(filepath.Dir(t.Dir)); !exists {
			return nil, safefs.Sorted(caisson.OpState, t.Dir, errors.Join(err, fs.ErrNotExist))
		}
		if r.Parent != nil {
			// Its id is known to its parent, and what is there was never accepted.
			if err := x.clearHalfMade(ctx, t); err != nil {
				return nil, err
			}
			continue
		}
		r.ID = caisson.NewTaskID(x.now())
	}
}

func (x *Executor) logAccepted(t state.Task, r *record) error {
	j, _, err := state.OpenJournal(t.Journal())
	if err != nil {
		return err
	}
	ev := &caisson.Event{Time: r.AcceptedAt, Task: r.ID, Type: caisson.EventAccepted, State: caisson.StateAccepted}
	return errors.Join(j.Append(ev, false), j.Close())
}

// hold keeps the lock of a task for Attend.
func (x *Executor) hold(id string, lock *lockfile.Lock) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return errors.Join(closedError(), lock.Release())
	}
	x.held[id] = lock
	return nil
}

// lock returns the task's lock: the one held since Submit, or a new one.
func (x *Executor) lock(t state.Task) (*lockfile.Lock, error) {
	x.mu.Lock()
	lock := x.held[t.ID]
	delete(x.held, t.ID)
	x.mu.Unlock()
	if lock != nil {
		return lock, nil
	}
	return lockfile.Try(t.Lock())
}

func closedError() error {
	return &caisson.Error{Kind: caisson.ErrUnavailable, Err: errors.New("the executor is closed")}
}
