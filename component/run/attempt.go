//go:build unix

package run

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/caissonrun/caisson/component/mapping"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// An attempt is one call of Run.
type attempt struct {
	*Runner
	job     *executor.Job
	plan    *plan
	secrets *secrets
	values  [][]byte // that are taken out of logs
	store   storage.Storage
	p       *progress
}

// Run implements executor.Composite.
func (r *Runner) Run(ctx context.Context, job *executor.Job) (out *executor.Outcome, err error) {
	a := &attempt{Runner: r, job: job}
	if a.plan, a.secrets, a.values, err = unpack(job); err != nil {
		return nil, err
	}
	if a.p, err = readProgress(job.Dir, a.plan.Rows); err != nil {
		return nil, err
	}
	if !a.plan.sync() {
		if a.store, err = r.opts.Storage(a.secrets.Storage, a.plan.Dir, a.getenv); err != nil {
			return nil, err
		}
		defer a.store.Close()
	}
	return a.run(ctx)
}

// getenv looks a variable up as it was when the run was accepted.
func (a *attempt) getenv(name string) string { return a.secrets.Env[name] }

// run does the rows one after the other, and what comes after all of them.
func (a *attempt) run(ctx context.Context) (*executor.Outcome, error) {
	for i, text := range a.plan.Notes {
		if err := a.say(fmt.Sprintf("note-%d", i), "%s", text); err != nil {
			return nil, err
		}
	}
	for a.p.Failure == nil && a.p.Row < len(a.plan.Rows) {
		if err := a.row(ctx); err != nil {
			if err := a.fail(ctx, err); err != nil {
				return nil, err
			}
		}
	}
	if a.p.Failure == nil {
		if err := a.finish(ctx); err != nil {
			if err := a.fail(ctx, err); err != nil {
				return nil, err
			}
		}
	}
	if a.p.Failure != nil {
		if err := a.salvage(ctx); err != nil {
			return nil, err
		}
	}
	return a.outcome()
}

// fail makes durable why the run has failed. It returns an error where the run
// has not: this process is to leave it as it is, or it was asked to end.
func (a *attempt) fail(ctx context.Context, err error) error {
	if ctx.Err() != nil && a.job.Stopped() == nil {
		return ctx.Err()
	}
	f := failed(err)
	if stop := a.job.Stopped(); stop != nil {
		f = &failure{Fault: component.UserFault, Message: "the run was asked to end: " + string(stop.Reason)}
		if stop.Reason == caisson.ReasonTimeout {
			f.Message = "the time of the run was up"
		}
	} else if interrupted(err) {
		return err
	}
	f.Message = a.told(f)
	a.log.Info("component run failed", "task", a.job.ID, "fault", f.Fault, "err", f.Message)
	a.p.Failure = f
	return a.save()
}

// told is what people are told of a failure.
func (a *attempt) told(f *failure) string { return shorten(a.hide(f.Message)) }

// save makes the attempt's progress durable.
func (a *attempt) save() error {
	if a.saving == nil {
		return writeJSON(a.job.Dir, progressFile, a.p)
	}
	if err := a.saving(); err != nil {
		return err
	}
	if err := writeJSON(a.job.Dir, progressFile, a.p); err != nil {
		return err
	}
	return a.saving()
}

// say prints a line of the runner's own into the run's log, once.
func (a *attempt) say(key, format string, args ...any) error {
	text := strings.TrimRight(fmt.Sprintf(format, args...), "\n") + "\n"
	return a.job.Print(key, tasklog.System, text)
}

// finish does what waits until all rows have gone well.
func (a *attempt) finish(ctx context.Context) error {
	if !a.stores() {
		return nil
	}
	for i := range a.p.Rows {
		if f := a.p.Rows[i].Fetched; f != nil {
			if err := mapping.MarkFiles(ctx, a.store, f.Processed); err != nil {
				return at("processed_tags", err)
			}
		}
	}
	return a.putStates(ctx)
}

// stores reports whether the run changes the storage: a mode that only looks
// does not.
func (a *attempt) stores() bool {
	return a.plan.Mode == caisson.ComponentRunMode && !a.plan.sync()
}

// salvage loads the tables of a row that failed which are to be loaded always,
// and removes its folder. What goes wrong is only told.
func (a *attempt) salvage(ctx context.Context) error {
	if a.p.Row >= len(a.plan.Rows) {
		return nil
	}
	if a.job.Stopped() == nil && a.stores() && a.plan.main().StagingOutput != stagingNone && a.p.Phase != phaseCleanUp {
		if err := a.loadAlways(ctx); err != nil {
			if ctx.Err() != nil && a.job.Stopped() == nil {
				return ctx.Err()
			}
			a.warn("write_always: %s", err)
		}
	}
	a.p.Phase = phaseCleanUp
	if err := a.save(); err != nil {
		return err
	}
	return folder.Remove(context.WithoutCancel(ctx), a.dir())
}

// warn tells of what fails nothing.
func (a *attempt) warn(format string, args ...any) {
	row := &a.p.Rows[a.p.Row]
	text := shorten(a.hide(fmt.Sprintf(format, args...)))
	if len(row.Warnings) >= maxWarnings || a.p.Failure != nil && strings.Contains(a.p.Failure.Message, text) {
		return // that is why the run has failed: it is told already
	}
	row.Warnings = append(row.Warnings, text)
	key := fmt.Sprintf("row-%d/warning-%d", a.p.Row, len(row.Warnings))
	if err := a.say(key, "warning: %s", text); err != nil {
		a.log.Warn("component run", "task", a.job.ID, "err", err)
	}
}

// maxWarnings is how many warnings of a row are kept.
const maxWarnings = 200

// dir is the row's folder on the host: W.
func (a *attempt) dir() string { return filepath.Join(a.job.Dir, a.rowName()) }

// rowName names the row at hand in keys and paths. Its own id may be anything.
func (a *attempt) rowName() string { return fmt.Sprintf("row-%d", a.p.Row) }

// config returns the configuration of the row at hand.
func (a *attempt) config() (*component.Config, error) {
	cfg := &component.Config{}
	if err := json.Unmarshal(a.secrets.Configs[a.p.Row], cfg); err != nil {
		return nil, err
	}
	return cfg, nil
}
