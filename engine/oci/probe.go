package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
)

// maxResolv is the most of a resolv.conf that is passed on, in bytes.
const maxResolv = 64 << 10

// found is what the last Probe has found out about the host.
type found struct {
	root    bool // sandboxes can have ids of their own
	support kept.Support
	resolv  []byte
	net     kept.Nets
	// runtimes are those that the operator names, most wanted first. broken is
	// why none of them works, or nil; overlay why one on an overlay did not.
	runtimes        []candidate
	broken, overlay error
	// ungated is why one with a gateway did not, or nil.
	ungated error
	// works is what worked in it.
	works kept.Works
}

// Probe implements engine.Engine. It runs a program of the host's in a sandbox
// whose root is an empty folder.
func (e *Engine) Probe(ctx context.Context) (engine.Features, error) {
	if err := e.boxes.Open(ctx, caisson.OpProbe); err != nil {
		return engine.Features{}, err
	}
	f, err := e.survey(ctx, true)
	if err == nil {
		e.tryAll(ctx, f)
	}
	if ctx.Err() != nil {
		return engine.Features{}, ctx.Err()
	}
	if err != nil {
		f = &found{broken: err, overlay: err}
	}
	e.found.Store(f)
	e.boxes.Note(f.works)
	return e.opts.features(f), nil
}

// facts returns what the last Probe found. Before the first one it looks
// without trying: what does not work then shows when the sandbox is made.
func (e *Engine) facts() (*found, error) {
	if f := e.found.Load(); f != nil {
		return f, nil
	}
	f, err := e.survey(context.Background(), false)
	if err != nil {
		return nil, err
	}
	f.works = kept.Works{Terminal: true, Stats: f.support.Cgroup.Usable, Pause: f.support.Cgroup.Freeze, Gateway: f.served(), Keep: true, Displays: f.served()}
	e.found.Store(f)
	e.boxes.Note(f.works)
	return f, nil
}

// survey looks at the parts that a sandbox is made of. Thorough also tries what
// takes milliseconds.
func (e *Engine) survey(ctx context.Context, thorough bool) (*found, error) {
	if err := os.MkdirAll(e.opts.Runtime, 0o700); err != nil {
		return nil, fmt.Errorf("runtime folder: %w", err)
	}
	f := &found{root: e.opts.ids().Mapped(), support: kept.Examine(e.opts.Runtime, thorough)}
	f.net = kept.FindNets(ctx, e.opts.networks(), f.root, thorough)
	if file, err := os.Open("/etc/resolv.conf"); err == nil {
		f.resolv, _ = io.ReadAll(io.LimitReader(file, maxResolv))
		file.Close()
	}
	f.runtimes = e.opts.candidates(ctx, f.root, thorough)
	f.broken = f.none()
	return f, nil
}

// none is why no runtime works, or nil.
func (f *found) none() error {
	if f.chosen() != nil {
		return nil
	}
	var all []string
	for i := range f.runtimes {
		all = append(all, f.runtimes[i].broken.Error())
	}
	return errors.New(strings.Join(all, "; "))
}

// tryAll tries the runtimes: until one works, or all, where tasks may choose.
// What worked in the first one is what counts.
func (e *Engine) tryAll(ctx context.Context, f *found) {
	first := true
	for i := range f.runtimes {
		c := &f.runtimes[i]
		if !c.makes() {
			continue
		}
		c.tried = true
		one := *f
		one.runtimes = []candidate{*c}
		one.overlay = e.try(ctx, &one, true)
		if one.overlay != nil && ctx.Err() == nil {
			c.broken = e.try(ctx, &one, false)
		}
		if c.broken != nil || ctx.Err() != nil {
			continue
		}
		if first {
			f.works, f.overlay, f.ungated, first = one.works, one.overlay, one.ungated, false
		}
		if !e.opts.AllowRuntimes {
			break
		}
	}
	f.broken = f.none()
}

// served reports whether the chosen runtime makes sandboxes with a gateway.
func (f *found) served() bool {
	c := f.chosen()
	return c != nil && !guest(c.runtime)
}

// try makes a sandbox, looks around in it, and notes what works: with a gateway,
// and where that does not work, without.
func (e *Engine) try(ctx context.Context, f *found, overlay bool) error {
	if f.served() {
		f.ungated = e.tryOnce(ctx, f, overlay, true)
		if f.ungated == nil || ctx.Err() != nil {
			return f.ungated
		}
	}
	return e.tryOnce(ctx, f, overlay, false)
}

func (e *Engine) tryOnce(ctx context.Context, f *found, overlay, gateway bool) (err error) {
	terminal := false
	f.works, err = e.boxes.Try(ctx, func(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
		if err := e.probeRoot(spec, overlay); err != nil {
			return nil, err
		}
		if gateway {
			kept.AddTrial(spec)
		}
		spec.Keep = caisson.Duration(time.Minute)
		return e.create(ctx, spec, &choice{}, f)
	}, func(ctx context.Context, t *kept.Trial) error {
		said, ok, err := t.Look(ctx)
		terminal = ok
		switch {
		case err != nil:
			return err
		case guest(f.chosen().runtime):
			return verifyGuest(said)
		case gateway:
			if err := t.Served(ctx); err != nil {
				return err
			}
		}
		return kept.Verify(said)
	})
	f.works.Terminal, f.works.Gateway = terminal, gateway && err == nil
	f.works.Stats = f.works.Stats && f.support.Cgroup.Usable
	f.works.Displays = f.works.Displays && f.served()
	return err
}

// rootLinks are links into /usr on most systems and folders on the rest.
var rootLinks = []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

// probeRoot gives a probe a root of the host's programs.
func (e *Engine) probeRoot(spec *engine.Spec, overlay bool) error {
	root, changes := filepath.Join(spec.Dir, "rootfs"), filepath.Join(spec.Dir, "changes")
	for _, dir := range []string{root, changes, filepath.Join(root, "usr")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	real, err := filepath.EvalSymlinks(spec.Dir)
	if err != nil {
		return err
	}
	// Root may keep capabilities; what is verified is what everybody else has.
	spec.User = fmt.Sprintf("%d:%d", e.opts.UID, e.opts.GID)
	spec.RootFS = &engine.RootFS{Path: filepath.Join(real, "rootfs")}
	if overlay {
		spec.RootFS.Changes = filepath.Join(real, "changes")
	}
	spec.Mounts = append(spec.Mounts, engine.Mount{Type: engine.MountBind, Source: "/usr", Target: "/usr", ReadOnly: true})
	for _, p := range rootLinks {
		if target, err := os.Readlink(p); err == nil {
			if err := os.Symlink(target, filepath.Join(root, p)); err != nil {
				return err
			}
		} else if _, err := os.Stat(p); err == nil {
			spec.Mounts = append(spec.Mounts, engine.Mount{Type: engine.MountBind, Source: p, Target: p, ReadOnly: true})
		}
	}
	return nil
}
