//go:build unix

package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/schema"
)

// How long a probe's findings are believed, and how long it may take.
const (
	probeAge   = 5 * time.Minute
	probeLimit = 90 * time.Second
)

// A prober wraps an engine and remembers what its probe has found: probing
// does the real thing, which takes longer than many a task.
type prober struct {
	engine engine.Engine

	mu       sync.Mutex
	features engine.Features
	err      error
	at       time.Time // zero: never probed, or in doubt
}

// look returns what the engine can do, from memory if it is not too old: its
// own, or that of another process.
func (p *prober) look(ctx context.Context, x *Executor, fresh bool) (engine.Features, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !fresh && !p.at.IsZero() && time.Since(p.at) < probeAge {
		return p.features, p.err
	}
	kept := x.openFindings()
	if !fresh {
		if found, ok := kept.read(p.engine.Name(), time.Now()); ok {
			p.features, p.err, p.at = found.Features, nil, found.At
			return p.features, nil
		}
	}
	limited, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	p.features = engine.Features{}
	p.err = x.guard(caisson.OpProbe, func() (err error) {
		p.features, err = p.engine.Probe(limited)
		return err
	})
	if ctx.Err() != nil {
		return engine.Features{}, ctx.Err()
	}
	p.at = time.Now()
	if p.err == nil {
		kept.write(p.engine.Name(), &p.features, p.at)
	}
	if p.err != nil || !p.features.Usable {
		kept.forget(p.engine.Name())
	}
	return p.features, p.err
}

// doubt has the engine probed again, by every process, before it gets another
// task.
func (p *prober) doubt(x *Executor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = time.Time{}
	x.openFindings().forget(p.engine.Name())
}

// EngineStatus is an engine with what its probe found.
type EngineStatus struct {
	Name     string          `json:"name"`
	Features engine.Features `json:"features"`
	Error    string          `json:"error,omitempty"`
}

// Engines probes all engines, in order of preference.
func (x *Executor) Engines(ctx context.Context) ([]EngineStatus, error) {
	list := make([]EngineStatus, len(x.engines))
	var wg sync.WaitGroup
	for i, p := range x.engines {
		wg.Go(func() {
			f, err := p.look(ctx, x, true)
			list[i] = EngineStatus{Name: p.engine.Name(), Features: f}
			if err != nil {
				list[i].Error = err.Error()
			}
		})
	}
	wg.Wait()
	return list, ctx.Err()
}

// engine returns the engine by its name. Errors: ErrNotFound.
func (x *Executor) engine(name string) (*prober, error) {
	var known []string
	for _, p := range x.engines {
		if p.engine.Name() == name {
			return p, nil
		}
		known = append(known, p.engine.Name())
	}
	return nil, &caisson.Error{
		Op: caisson.OpValidate, Item: fmt.Sprintf("engine %q", name), Kind: caisson.ErrNotFound,
		Err: fmt.Errorf("there is no such engine; there are: %s", strings.Join(known, ", ")),
	}
}

// choose fills in the record's engine: the one that the task names, or the
// first preferred one that is usable and accepts all that the task asks for.
//
// Errors: ErrNotFound if there is no such engine; ErrInvalid if no engine could
// run the task; ErrUnsupported, with each engine's reason, otherwise.
func (x *Executor) choose(ctx context.Context, r *record, secrets map[string][]byte) error {
	if name := r.Task.Engine; name != "" {
		p, err := x.engine(name)
		if err != nil {
			return err
		}
		return x.fits(ctx, p, r, secrets)
	}
	var refused []error
	for _, p := range x.engines {
		if len(x.opts.Prefer) > 0 && !slices.Contains(x.opts.Prefer, p.engine.Name()) {
			continue
		}
		err := x.fits(ctx, p, r, secrets)
		if err == nil || ctx.Err() != nil || caisson.KindOf(err) == caisson.ErrInvalid {
			return err
		}
		refused = append(refused, err)
	}
	if len(refused) == 1 {
		return refused[0]
	}
	why := "none is configured; see caisson engines"
	if len(refused) > 0 {
		why = strings.ReplaceAll(errors.Join(refused...).Error(), "\n", "; ")
	}
	return &caisson.Error{Op: caisson.OpValidate, Item: "no engine can run this task", Kind: caisson.ErrUnsupported, Err: errors.New(why)}
}

// fits makes p the record's engine, or says why it can't be.
func (x *Executor) fits(ctx context.Context, p *prober, r *record, secrets map[string][]byte) error {
	f, err := p.look(ctx, x, false)
	if err == nil && !f.Usable {
		err = unusable(&f)
	}
	if err != nil {
		return at("engine "+p.engine.Name(), err)
	}
	r.Engine, r.Sharing = p.engine.Name(), sharingOf(&f, r.Task)
	err = checkForm(r.Task, &f)
	if err == nil {
		err = checkOptions(r.Task.Options, f.OptionsSchema)
	}
	if err == nil && r.served && !f.Networks.Inside {
		err = &caisson.Error{
			Op: caisson.OpValidate, Item: "network", Kind: caisson.ErrUnsupported,
			Err: errors.New("nothing of this host can serve a program on the loopback device of its sandbox"),
		}
	}
	if err == nil {
		err = x.checkEngineMounts(r)
	}
	if err == nil {
		err = x.checkImage(r, p.engine)
	}
	if err == nil {
		err = x.checkSpecs(r, &f, secrets)
	}
	if err == nil {
		err = x.checkModule(r, secrets)
	}
	if err == nil {
		err = x.checkMachine(r, secrets)
	}
	if err != nil {
		return at("engine "+p.engine.Name(), err)
	}
	return nil
}

func unusable(f *engine.Features) error {
	why := "not usable on this host; see caisson engines"
	if len(f.Missing) > 0 {
		m := f.Missing[0]
		why = fmt.Sprintf("not usable on this host: %s: %s", m.What, m.String())
	}
	return &caisson.Error{Kind: caisson.ErrUnsupported, Err: errors.New(why)}
}

// checkForm refuses a task of options alone for an engine that needs a program,
// and one with a program for an engine that has its own, before it finds fault
// with options that are not meant for it.
func checkForm(task *caisson.Task, f *engine.Features) error {
	main := &engine.Spec{Image: task.Image, Module: task.Module, Machine: task.Machine, Options: task.Options}
	main.Args, main.Run = argv(&task.Program)
	if main.OptionsAlone() && !f.Options {
		return &caisson.Error{
			Op: caisson.OpValidate, Item: "options alone", Kind: caisson.ErrUnsupported,
			Err: errors.New("this engine runs programs, and the task names none"),
		}
	}
	if f.OptionsOnly && !main.OptionsAlone() {
		return f.Check(main)
	}
	return nil
}

// checkOptions checks the task's options against the engine's schema. An engine
// without one accepts no options, which Features.Check says.
func checkOptions(options, form json.RawMessage) error {
	if len(options) == 0 || len(form) == 0 {
		return nil
	}
	compiled, err := schema.Compile(form)
	if err != nil {
		return &caisson.Error{Op: caisson.OpProbe, Item: "options schema", Kind: caisson.ErrInternal, Err: err}
	}
	if _, err := compiled.Check(options); err != nil {
		return invalid("options", err)
	}
	return nil
}

// checkSpecs checks what each step would ask of the engine.
func (x *Executor) checkSpecs(r *record, f *engine.Features, secrets map[string][]byte) error {
	if !f.ShareWork && !f.Files && len(r.Task.Inputs)+len(r.Task.Outputs) > 0 {
		return &caisson.Error{
			Op: caisson.OpValidate, Item: "inputs, outputs", Kind: caisson.ErrUnsupported,
			Err: errors.New("this engine can't exchange files with its sandboxes"),
		}
	}
	steps := stepsOf(r.Task)
	if r.Sharing.Network {
		if _, err := steps.hostNames(); err != nil {
			return err
		}
	}
	b := &blueprint{record: r, attempt: x.folder.Task(r.ID).Attempt(1), proxies: x.opts.Proxies, secrets: secrets}
	for _, st := range steps.all() {
		s, err := b.spec(&st, st.name)
		if err != nil {
			return err
		}
		if err := s.Validate(); err != nil {
			return stepError(&st, err)
		}
		if err := f.Check(s); err != nil {
			return stepError(&st, err)
		}
		if err := checkProbe(&st, r.Task, f); err != nil {
			return stepError(&st, err)
		}
	}
	return nil
}

// stepError says which step err is about, unless that goes without saying.
func stepError(st *step, err error) error {
	if st.kind == kindMain {
		return err
	}
	return at("step "+st.label(), err)
}
