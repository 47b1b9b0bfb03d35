package executor

import (
	"context"
	"errors"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
)

// pulling is engine mem that brings images itself.
type pulling struct {
	*mem.Engine
	specs *[]engine.Spec
}

func (p pulling) Prepare(_ context.Context, spec *engine.Spec) error {
	*p.specs = append(*p.specs, *spec)
	return nil
}

// An image is pulled before the child that needs it is made, and nothing else
// is done.
func TestPrepare(t *testing.T) {
	for _, own := range []bool{false, true} {
		r, c := newKitchen(t)
		r.images = shelf(t.TempDir())
		var specs []engine.Spec
		r.features = func(f *engine.Features) { f.Image, f.RootFS, f.Overlay = own, !own, !own }
		r.wrap = func(e engine.Engine) engine.Engine { return pulling{e.(*mem.Engine), &specs} }
		var ref, digest string
		var absent error
		c.during = func(ctx context.Context, j *Job) (err error) {
			task := sh("true")
			task.Image = "test"
			ref, digest, err = j.Prepare(ctx, &Child{Task: task, Root: true})
			if err == nil && !own {
				task.Image = "other"
				_, _, absent = j.Prepare(ctx, &Child{Task: task})
			}
			return err
		}
		p := r.process()
		if got := p.run(composed()); !got.Success {
			t.Fatalf("result = %+v", got)
		}
		if ref != "test" {
			t.Errorf("Prepare = %q", ref)
		}
		if own && (len(specs) != 1 || specs[0].Image != "test" || !specs[0].Root || digest != "") {
			t.Errorf("the engine was to prepare %+v, digest %q", specs, digest)
		}
		if !own && (digest != "sha256:0" || len(specs) > 0 || !errors.Is(absent, caisson.ErrNotFound)) {
			t.Errorf("digest %q, specs %+v, absent image: %v", digest, specs, absent)
		}
		r.cleanComposite()
	}
}
