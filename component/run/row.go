//go:build unix

package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/caissonrun/caisson/component/mapping"
	"github.com/caissonrun/caisson/internal/safefs"
)

// A row is the row at hand.
type row struct {
	*attempt
	cfg    *component.Config
	folder *folder.Folder
	report *rowReport
	steps  []step
}

// row does what is left of the row at hand, and makes the next one that at hand.
func (a *attempt) row(ctx context.Context) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	r := &row{attempt: a, cfg: cfg, report: &a.p.Rows[a.p.Row]}
	r.steps = r.chain()
	defer r.close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		next, err := r.do(ctx)
		if err != nil {
			return at(rowItem(r.report.ID), err)
		}
		if next == "" {
			a.p.Row, a.p.Phase, a.p.Step = a.p.Row+1, phaseInput, 0
			return errors.Join(a.save(), a.job.Progress(float64(a.p.Row)/float64(len(a.plan.Rows))))
		}
		a.p.Phase = next
		if err := a.save(); err != nil {
			return err
		}
	}
}

// do does one phase and returns the next one, or "" after the last.
func (r *row) do(ctx context.Context) (phase, error) {
	if err := r.open(ctx); err != nil {
		return "", err
	}
	switch r.p.Phase {
	case phaseInput:
		return r.input(ctx)
	case phaseImages:
		return phaseSteps, r.images(ctx)
	case phaseSteps:
		return phaseOutput, r.runSteps(ctx)
	case phaseOutput:
		return phaseCleanUp, r.output(ctx)
	default:
		r.close()
		return "", folder.Remove(ctx, r.dir())
	}
}

// open opens the row's folder. Before the input is complete it is made anew.
func (r *row) open(ctx context.Context) (err error) {
	switch {
	case r.folder != nil || r.p.Phase == phaseCleanUp:
	case r.p.Phase == phaseInput:
		r.folder, err = folder.Make(ctx, r.dir(), r.folderOptions())
	default:
		r.folder, err = folder.Open(r.dir(), r.folderOptions())
	}
	return err
}

func (r *row) close() {
	if r.folder != nil {
		r.folder.Close()
		r.folder = nil
	}
}

func (a *attempt) folderOptions() *folder.Options {
	opts := &folder.Options{
		Format: component.Format(a.plan.main().Format), Encoding: a.opts.Encoding,
		Private: filepath.Join(a.job.Private, a.rowName()), Hide: len(a.values) > 0,
	}
	if os.Geteuid() == 0 {
		opts.Owner = &safefs.Owner{UID: a.job.Owner.UID, GID: a.job.Owner.GID}
	}
	return opts
}

// input maps the input in.
func (r *row) input(ctx context.Context) (phase, error) {
	if r.plan.sync() || r.plan.main().StagingInput == stagingNone {
		return phaseImages, nil
	}
	state, err := r.readState(ctx)
	if err != nil {
		return "", err
	}
	in := &mapping.Input{
		Storage: r.store, Folder: r.folder, Config: r.cfg.Storage.Input, State: state.Input, Strict: r.plan.Strict,
		Progress: r.progress(),
	}
	// A table that is only lent can be read, but not moved: a processor may want to.
	in.Ways.Bind = len(r.cfg.Processors.Before) == 0
	if r.plan.Mode == caisson.ComponentSandbox {
		in.Rows = mapping.SandboxRows
	}
	fetched, err := in.Run(ctx)
	if err != nil {
		return "", at("input mapping", err)
	}
	r.report.Fetched = fetched
	for i, t := range fetched.Tables {
		if err := r.say(fmt.Sprintf("%s/table-%d", r.rowName(), i), "fetched table %s", t.Table); err != nil {
			return "", err
		}
	}
	for _, text := range fetched.Warnings {
		r.warn("%s", text)
	}
	if r.plan.Mode == caisson.ComponentInput || r.plan.Mode == caisson.ComponentSandbox {
		return phaseCleanUp, r.archiveInput(ctx)
	}
	return phaseImages, nil
}

// progress returns what is told how far tables are.
func (a *attempt) progress() func(mapping.Progress) {
	tell := a.opts.Progress
	if tell == nil {
		return nil
	}
	return func(p mapping.Progress) { tell(a.job.ID, p) }
}

// output maps the output out: all of it is checked, what will be done is made
// durable, and then it is done.
func (r *row) output(ctx context.Context) error {
	if r.plan.sync() {
		return nil
	}
	if doc, err := r.folder.ReadResult(); err != nil {
		r.warn("out/result.json: %s", err)
	} else if doc != nil {
		r.report.Result = make(map[string]json.RawMessage, len(doc.Variables))
		for name, value := range doc.Variables {
			r.report.Result[r.hide(name)] = r.hideJSON(value)
		}
	}
	if r.plan.Mode == caisson.ComponentDebug {
		return r.archiveOutput(ctx)
	}
	if r.plan.main().StagingOutput == stagingNone {
		return nil
	}
	out := r.mapping()
	plan := &mapping.Plan{}
	there, err := readJSON(r.job.Dir, r.rowName()+".json", plan)
	if err != nil {
		return err
	}
	if !there {
		if plan, err = out.Plan(ctx); err != nil {
			return at("output mapping", err)
		}
		if err := writeJSON(r.job.Dir, r.rowName()+".json", plan); err != nil {
			return err
		}
	}
	if r.plan.Mode == caisson.ComponentDryRun {
		r.report.Plan = plan
		return r.printPlan(plan)
	}
	loaded, err := out.Load(ctx, plan)
	r.loaded(loaded)
	return at("output mapping", err)
}

// mapping returns the output mapping of the row at hand.
func (r *row) mapping() *mapping.Output {
	return &mapping.Output{
		Storage: r.store, Folder: r.folder, Config: r.cfg.Storage.Output, Component: r.plan.main().Definition,
		Who: mapping.Who{
			Configuration: r.plan.ConfigID, Row: r.report.ID, Branch: r.opts.Project.Branch, Run: r.job.ID,
		},
		LoadID:    fmt.Sprintf("%s/%d/%d", r.job.ID, r.job.Attempt, r.p.Row),
		DataTypes: r.dataTypes(r.cfg), Strict: r.plan.Strict, Progress: r.progress(),
	}
}

// loaded keeps what was loaded, and says so.
func (r *row) loaded(l *mapping.Loaded) {
	if l == nil {
		return
	}
	r.report.Loaded = l
	for i, t := range l.Tables {
		key := fmt.Sprintf("%s/loaded-%d", r.rowName(), i)
		if err := r.say(key, "loaded table %s: %d rows", t.Table, t.Rows); err != nil {
			r.log.Warn("component run", "task", r.job.ID, "err", err)
		}
	}
	for _, text := range l.Warnings {
		r.warn("%s", text)
	}
}

// loadAlways loads the tables that are loaded even if the run fails.
func (a *attempt) loadAlways(ctx context.Context) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	r := &row{attempt: a, cfg: cfg, report: &a.p.Rows[a.p.Row]}
	r.folder, err = folder.Open(a.dir(), a.folderOptions())
	if errors.Is(err, caisson.ErrNotFound) {
		return nil // it failed before there was one
	}
	if err != nil {
		return err
	}
	defer r.close()
	out, name := r.mapping(), r.rowName()+"-failed.json"
	out.Failed = true
	plan := &mapping.Plan{}
	there, err := readJSON(a.job.Dir, name, plan)
	if err != nil {
		return err
	}
	if !there {
		if plan, err = out.Plan(ctx); err != nil {
			return err
		}
		if err := writeJSON(a.job.Dir, name, plan); err != nil {
			return err
		}
	}
	loaded, err := out.Load(ctx, plan)
	r.loaded(loaded)
	return err
}

// printPlan prints what would be loaded to the run's stdout.
func (r *row) printPlan(p *mapping.Plan) error {
	var text strings.Builder
	for _, f := range p.Files {
		fmt.Fprintf(&text, "file %s -> %s, %d bytes, tags %s\n", f.Source, f.Name, f.File.Size, strings.Join(f.Tags, ", "))
	}
	for i := range p.Tables {
		planTable(&text, &p.Tables[i])
	}
	if text.Len() == 0 {
		text.WriteString("nothing would be loaded\n")
	}
	for _, w := range p.Warnings {
		r.warn("%s", w)
	}
	return r.job.Print(r.rowName()+"/plan", stdout, text.String())
}

// planTable prints a load, each value with where it comes from.
func planTable(text *strings.Builder, t *mapping.TableLoad) {
	size := int64(0)
	for _, s := range t.Slices {
		size += s.File.Size
	}
	what := "replace"
	switch {
	case t.New:
		what = "make"
	case t.Incremental && len(t.PrimaryKey) > 0:
		what = "merge into"
	case t.Incremental:
		what = "append to"
	}
	fmt.Fprintf(text, "table %s -> %s %s%s, %d bytes\n", t.Source, what, t.Table, origin(t, "table"), size)
	fmt.Fprintf(text, "  columns: %s%s\n", strings.Join(t.Columns, ", "), origin(t, "columns"))
	if len(t.PrimaryKey) > 0 {
		fmt.Fprintf(text, "  primary key: %s%s\n", strings.Join(t.PrimaryKey, ", "), origin(t, "primary_key"))
	}
	if t.Incremental {
		fmt.Fprintf(text, "  incremental: true%s\n", origin(t, "incremental"))
	}
	if len(t.Delete) > 0 {
		fmt.Fprintf(text, "  deletes rows first: %d conditions%s\n", len(t.Delete), origin(t, "delete"))
	}
}

func origin(t *mapping.TableLoad, key string) string {
	if o := t.Origins[key]; o != "" {
		return " (" + string(o) + ")"
	}
	return ""
}
