//go:build unix

package executor

import (
	"context"
	"fmt"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/image"
)

// Prepare checks a child as Submit does, without making it, and has its image
// pulled. It returns by which name the child is to ask for the image, so that it
// gets what the operator's policies have let in, and the image's digest: empty
// where the engine brings images itself, or there is none.
//
// Errors: those of Submit, and of a pull.
func (j *Job) Prepare(ctx context.Context, c *Child) (ref, digest string, err error) {
	r, sub, err := j.child(ctx, caisson.NewTaskID(j.x.now()), "prepare", c)
	if err != nil || c.Task.Image == "" {
		return "", "", err
	}
	p, err := j.x.engine(r.Engine)
	if err != nil {
		return "", "", err
	}
	// Nobody attends to it: it only knows what a pull has to know. Whoever is
	// told of its progress knows the parent.
	a := &attendant{
		x: j.x, task: j.x.folder.Task(j.ID), record: r, steps: stepsOf(r.Task), engine: p,
		h: &history{attempt: j.Attempt}, secrets: sub.Secrets, log: j.a.log,
	}
	err = j.x.guard(caisson.OpPrepare, func() (err error) {
		ref, digest, err = a.bringImage(ctx, c.Task.Image)
		return err
	})
	if err != nil {
		return "", "", err
	}
	return ref, digest, nil
}

// bringImage pulls an image, or has the engine do it if policies let it in.
func (a *attendant) bringImage(ctx context.Context, ref string) (as, digest string, err error) {
	options, err := a.imageOptions()
	if err != nil {
		return "", "", err
	}
	if a.record.Sharing.RootFS {
		img, err := a.x.opts.Images.Get(ctx, a.request(ref, &options))
		if err != nil {
			return "", "", err
		}
		return ref, img.Digest, nil
	}
	as = ref
	if a.x.opts.Images != nil {
		if as, err = a.x.opts.Images.Permit(ctx, a.request(ref, &options)); err != nil {
			return "", "", err
		}
	}
	preparer, ok := a.engine.engine.(engine.Preparer)
	if !ok {
		return as, "", nil
	}
	spec, err := a.blueprint().spec(a.steps.main(), string(kindMain))
	if err != nil {
		return "", "", err
	}
	spec.Image = as
	if err := preparer.Prepare(ctx, spec); err != nil {
		return "", "", fmt.Errorf("image %q: %w", ref, err)
	}
	return as, digestOf(as), nil
}

// digestOf returns the digest that a reference names, or nothing.
func digestOf(ref string) string {
	parsed, err := image.ParseReference(ref)
	if err != nil {
		return ""
	}
	return parsed.Digest
}
