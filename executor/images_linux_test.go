package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/image"
)

// rooting is engine native that takes images: it looks whether there is one,
// and runs the host's programs all the same.
type rooting struct{ networked }

func (r rooting) Probe(ctx context.Context) (engine.Features, error) {
	f, err := r.networked.Probe(ctx)
	f.RootFS, f.Overlay = true, true
	return f, err
}

func (r rooting) Create(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	own := *spec
	if own.RootFS != nil {
		leases, _ := filepath.Glob(filepath.Join(r.held, "lease-*"))
		info, err := os.Stat(own.RootFS.Changes)
		if own.RootFS.Path != shelf(r.held).tree() || len(leases) != 1 || err != nil || !info.IsDir() {
			return nil, &caisson.Error{
				Op: caisson.OpCreate, Kind: caisson.ErrInternal,
				Err: fmt.Errorf("root file system %+v, leases %q, changes %v", own.RootFS, leases, err),
			}
		}
		own.RootFS = nil
	}
	return r.networked.Create(ctx, &own)
}

// shelf is a store of one image whose leases are files in a folder.
type shelf string

var _ Images = shelf("")

func (s shelf) tree() string { return filepath.Join(filepath.Dir(string(s)), "tree") }

func (s shelf) lease(owner string) string {
	return filepath.Join(string(s), "lease-"+strings.ReplaceAll(owner, "/", "_"))
}

func (s shelf) Get(_ context.Context, req *image.Request) (*image.Image, error) {
	if req.Ref != "test" {
		return nil, &caisson.Error{Op: caisson.OpPrepare, Kind: caisson.ErrNotFound, Err: errors.New("there is only test")}
	}
	return &image.Image{Ref: req.Ref, Digest: "sha256:0", Config: image.Config{Env: []string{"FROM_IMAGE=yes"}}}, nil
}

func (s shelf) RootFS(_ context.Context, _ *image.Image, lease *image.Lease) (*image.RootFS, error) {
	err := os.WriteFile(s.lease(lease.Owner), nil, 0o600)
	if err == nil {
		err = os.MkdirAll(s.tree(), 0o755)
	}
	return &image.RootFS{Path: s.tree(), Shared: true, Mode: image.ModeOverlay}, err
}

func (s shelf) Permit(_ context.Context, req *image.Request) (string, error) { return req.Ref, nil }

func (s shelf) Unlease(_ context.Context, owner string) error {
	err := os.Remove(s.lease(owner))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (s shelf) Sweep(_ context.Context, live func(owner string) bool) error {
	leases, err := filepath.Glob(s.lease("*"))
	for _, name := range leases {
		owner := strings.ReplaceAll(strings.TrimPrefix(filepath.Base(name), "lease-"), "_", "/")
		if !live(owner) {
			err = errors.Join(err, os.Remove(name))
		}
	}
	return err
}
