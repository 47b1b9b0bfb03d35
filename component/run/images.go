//go:build unix

package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/internal/safefs"
)

// images makes all images of the row ready before anything of it runs, so that
// a processor that can't be had fails the row at once.
func (r *row) images(ctx context.Context) error {
	r.report.Steps = make([]stepReport, len(r.steps))
	for i := range r.steps {
		s := &r.steps[i]
		report := &r.report.Steps[i]
		report.Component = s.def.ID
		switch {
		case s.def.Image != nil:
			report.Image = r.reference(s)
		case s.def.Builder != nil:
			ref, err := r.makeImage(ctx, s)
			if err != nil {
				return err
			}
			report.Image = ref
		}
		log := r.gelfLog(s)
		child, err := r.child(s, log)
		if err != nil {
			return err
		}
		ref, digest, err := r.job.Prepare(ctx, child)
		if err != nil {
			return imageError(s, report.Image, log.refused(err))
		}
		if ref != "" {
			report.Image, report.Digest = ref, digest
		}
	}
	return nil
}

// imageError says that an image can't be had: the application's fault, unless
// it is the configuration that asks for what is not there.
func imageError(s *step, ref string, err error) error {
	switch caisson.KindOf(err) {
	case caisson.ErrUnsupported:
		if strings.Contains(err.Error(), "limits.") {
			err = fmt.Errorf("%w; to run components without the limits of their definitions, set component.limits to false in the configuration file", err)
		}
		if len(s.def.Command) > 0 && s.def.Network == "bridge" {
			err = fmt.Errorf("the definition of %q asks for network %q (data.network, which is bridge where nothing is said), and a command has none here: say none, or use an image; %w",
				s.def.ID, s.def.Network, err)
		}
		return at(s.name, err)
	case caisson.ErrInvalid:
		return at(s.name, err)
	}
	if ref == "" || interrupted(err) {
		return at(s.name, err)
	}
	return component.Application(fmt.Errorf("image %q can't be had: %w", shortName(ref), err))
}

// makeImage builds a step's image.
func (r *row) makeImage(ctx context.Context, s *step) (string, error) {
	var log tail
	dir := filepath.Join(r.job.Private, "build")
	// What another process has left there is of the same attempt.
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return "", safefs.Sorted(caisson.OpPrepare, dir, err)
	}
	ref, err := r.opts.Build(ctx, r.build(s), dir, &log)
	err = errors.Join(err, os.RemoveAll(dir))
	if err != nil {
		return "", component.BuildFailure(s.def.ID, log.String(), err)
	}
	return ref, nil
}

// maxBuildLog is how much of the end of a build's log is looked at.
const maxBuildLog = 1 << 20

// A tail keeps the end of what is written to it.
type tail struct{ bytes.Buffer }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	n, err := t.Buffer.Write(p)
	if over := t.Len() - maxBuildLog; over > 0 {
		t.Next(over)
	}
	return n, err
}
