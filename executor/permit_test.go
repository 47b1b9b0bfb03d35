//go:build unix

package executor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/image"
)

// A puller is an engine that pulls images by itself, and remembers which it was
// asked for.
type puller struct {
	engine.Engine
	mu     sync.Mutex
	images []string
}

func (p *puller) note(spec *engine.Spec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.images = append(p.images, spec.Image)
}

func (p *puller) Prepare(_ context.Context, spec *engine.Spec) error {
	p.note(spec)
	return nil
}

func (p *puller) Create(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	p.note(spec)
	plain := *spec
	plain.Image, plain.ImageEntrypoint = "", false
	return p.Engine.Create(ctx, &plain)
}

// policies is a store of images that has only policies.
type policies map[string]string

func (p policies) Permit(_ context.Context, req *image.Request) (string, error) {
	if as := p[req.Ref]; as != "" {
		return as, nil
	}
	return "", &caisson.Error{Op: caisson.OpPrepare, Kind: caisson.ErrDenied, Err: errors.New("rejected by policy")}
}

func (policies) Get(context.Context, *image.Request) (*image.Image, error) {
	return nil, caisson.ErrUnsupported
}

func (policies) RootFS(context.Context, *image.Image, *image.Lease) (*image.RootFS, error) {
	return nil, caisson.ErrUnsupported
}
func (policies) Unlease(context.Context, string) error                { return nil }
func (policies) Sweep(context.Context, func(owner string) bool) error { return nil }

// An engine that pulls by itself gets no other images than the policies let in,
// and those by the name that the policies say.
func TestPermit(t *testing.T) {
	r := newRig(t)
	r.features = func(f *engine.Features) { f.Image = true }
	e := &puller{}
	r.wrap = func(inner engine.Engine) engine.Engine {
		e.Engine = inner
		return e
	}
	p := r.process()
	p.opts.Images = policies{"app:1": "example.com/app@sha256:12"}
	result := p.run(&caisson.Task{Program: caisson.Program{Image: "app:1", Cmd: []string{"true"}}})
	if !result.Success {
		t.Errorf("the result is %+v", result)
	}
	if len(e.images) < 2 || slices.ContainsFunc(e.images, func(ref string) bool { return ref != "example.com/app@sha256:12" }) {
		t.Errorf("the engine was asked for %q, want the pinned one each time", e.images)
	}
	e.images = nil
	result = p.run(&caisson.Task{Program: caisson.Program{Image: "app:2", Cmd: []string{"true"}}})
	if result.Success || len(e.images) > 0 {
		t.Errorf("the engine was asked for %q in spite of the policy; the result is %+v", e.images, result)
	}
}
