//go:build unix

package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/machine"
)

const (
	// kvmTime and tcgTime are how long a guest may take until its agent answers, and
	// that of a probe to have done everything. With KVM that is a second, and on an
	// emulated processor three to ten.
	kvmTime = 10 * time.Second
	tcgTime = time.Minute
	// maxResolv is the most of a resolv.conf that is passed on, in bytes.
	maxResolv = 64 << 10
)

// Probe implements engine.Engine. It boots a guest and runs programs in it, unless
// it is known that this works: see base.
func (e *Engine) Probe(ctx context.Context) (engine.Features, error) {
	if err := e.boxes.Open(ctx, caisson.OpProbe); err != nil {
		return engine.Features{}, err
	}
	h, err := e.survey(ctx)
	if err != nil {
		return engine.Features{}, err
	}
	e.mu.Lock()
	e.host = h
	e.mu.Unlock()
	if t := e.opts.chosen(h); t != nil {
		e.boxes.Note(t.Works)
	}
	return e.opts.features(h), nil
}

// facts returns what the last Probe found, or else probes.
func (e *Engine) facts(ctx context.Context) (*host, error) {
	e.mu.Lock()
	h := e.host
	e.mu.Unlock()
	if h != nil {
		return h, nil
	}
	if _, err := e.Probe(ctx); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.host, nil
}

// survey looks at the host, and boots guests until one kind of machine works.
//
// Errors: only the context's; what does not work is host.broken.
func (e *Engine) survey(ctx context.Context) (*host, error) {
	h := &host{root: e.opts.ids().Mapped()}
	err := os.MkdirAll(e.opts.Runtime, 0o700)
	if err == nil {
		h.support = kept.Examine(e.opts.Runtime, false)
		if file, openErr := os.Open("/etc/resolv.conf"); openErr == nil {
			h.resolv, _ = io.ReadAll(io.LimitReader(file, maxResolv))
			file.Close()
		}
		e.opts.findNetworks(ctx, h)
		h.base, err = e.base(ctx, "")
	}
	if err == nil {
		err = e.tryAll(ctx, h)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	h.broken = err
	return h, nil
}

// base returns what guests with a kernel boot from, which is made if it is not
// there yet.
func (e *Engine) base(ctx context.Context, chosen string) (*base, error) {
	if err := e.opts.openCache(); err != nil {
		return nil, err
	}
	s, err := e.opts.look(chosen)
	if err != nil {
		return nil, err
	}
	under, err := surroundings()
	if err != nil {
		return nil, err
	}
	b, err := e.opts.readBase(s, under)
	if err != nil {
		return nil, err
	}
	if b != nil {
		return b, b.check()
	}
	lock, err := e.opts.lockBase(ctx, s.of)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	// Somebody else may have been quicker.
	if b, err = e.opts.readBase(s, under); b == nil && err == nil {
		b, err = e.opts.makeBase(ctx, s, under)
	}
	if err == nil {
		err = b.check()
	}
	return b, err
}

// chosen returns the most wanted kind of machine that works, or nil.
func (o *Options) chosen(h *host) *tried {
	if h.base == nil {
		return nil
	}
	for _, accel := range o.Accels {
		for _, kind := range o.Types {
			if t := h.base.known(accel, kind, time.Now()); t != nil && t.Missing == "" {
				return t
			}
		}
	}
	return nil
}

// tryAll tries kinds of machines until one works.
//
// Errors: why none does.
func (e *Engine) tryAll(ctx context.Context, h *host) error {
	var all []string
	for _, accel := range e.opts.Accels {
		for _, kind := range e.opts.Types {
			t, err := e.tried(ctx, h, accel, kind)
			if err != nil {
				return err
			}
			if t.Missing == "" {
				return nil
			}
			if !slices.Contains(all, accel+": "+t.Missing) {
				all = append(all, accel+": "+t.Missing)
			}
			// A host whose KVM runs nothing would cost the time for each type.
			if accel == machine.KVM && kind != machine.MicroVM && t.Took > 0 {
				break
			}
		}
	}
	return errors.New("no guest boots here: " + strings.Join(all, "; "))
}

// tried returns whether a kind of machine works, by trying it unless that is
// known.
//
// Errors: those of the context and of files: it was not tried.
func (e *Engine) tried(ctx context.Context, h *host, accel, kind string) (*tried, error) {
	if t := h.base.known(accel, kind, time.Now()); t != nil {
		return t, nil
	}
	lock, err := e.opts.lockBase(ctx, h.base.Of)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	// Somebody else may have been quicker.
	if s, err := e.opts.look(""); err == nil && s.of == h.base.Of {
		if again, err := e.opts.readBase(s, h.base.Under); err == nil && again != nil {
			h.base.note(again.Boots...)
		}
	}
	if t := h.base.known(accel, kind, time.Now()); t != nil {
		return t, nil
	}
	t := tried{Accel: accel, Type: kind}
	if t.Missing = h.lacking(accel, kind); t.Missing == "" {
		began := time.Now()
		t.Works, err = e.try(ctx, h, accel, kind)
		t.Took = time.Since(began)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			t.Missing = err.Error()
		}
	}
	t.At = time.Now()
	h.base.note(t)
	if err := e.opts.writeBase(h.base); err != nil {
		return nil, err
	}
	return h.base.known(accel, kind, t.At), nil
}

// lacking says what of a kind of machine is not even there.
func (h *host) lacking(accel, kind string) string {
	q := h.base.QEMU
	switch {
	case !slices.Contains(q.Accels, accel):
		return fmt.Sprintf("QEMU %s has no accelerator %s", q.Version, accel)
	case q.Machines[kind] == "":
		return fmt.Sprintf("QEMU %s has no machine %s", q.Version, kind)
	case accel != machine.KVM:
		return ""
	case q.Arch != runtime.GOARCH:
		return "KVM runs machines of this host's processor only"
	}
	if _, err := kvmGroup(h.root); err != nil {
		return err.Error()
	}
	return ""
}

// bootTime is how long a guest may take until its agent answers.
func (o *Options) bootTime(accel string) time.Duration {
	switch {
	case o.BootTime > 0:
		return o.BootTime
	case accel == machine.KVM:
		return kvmTime
	}
	return tcgTime
}

// try makes a sandbox on a kind of machine as a task's would be, of a disk with one
// tiny program, and looks what works in it.
func (e *Engine) try(ctx context.Context, h *host, accel, kind string) (kept.Works, error) {
	terminal, gateway := false, false
	program := "/" + tinyName
	works, err := e.boxes.TryProgram(ctx, &kept.Trying{
		Waits: []string{program, "wait"}, Ends: []string{program}, Limit: e.opts.bootTime(accel),
	}, func(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
		tree, disk, err := tinyDisk(ctx, spec.Dir)
		if err != nil {
			return nil, err
		}
		spec.RootFS = &engine.RootFS{Path: tree, Disk: disk, Changes: filepath.Join(spec.Dir, "changes")}
		spec.Work = filepath.Join(spec.Dir, "work")
		for _, dir := range []string{spec.RootFS.Changes, spec.Work} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				return nil, err
			}
		}
		if !h.base.shares() {
			spec.Work = ""
		}
		spec.Keep = caisson.Duration(time.Minute)
		kept.AddTrial(spec)
		return e.create(ctx, spec, &choice{}, &making{host: h, base: h.base, accel: accel, kind: kind})
	}, func(ctx context.Context, t *kept.Trial) error {
		_, err := t.Run(ctx, program)
		terminal = err == nil
		if err == nil {
			gateway = t.Carried(ctx, program, "to", "anywhere") == nil
		}
		return err
	})
	works.Terminal, works.Gateway = terminal, gateway && err == nil
	return works, err
}
