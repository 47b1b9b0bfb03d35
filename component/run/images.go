//go:build unix

package run

import "context"

// images makes all images of the row ready before anything of it runs.
func (r *row) images(ctx context.Context) error {
	r.report.Steps = make([]stepReport, len(r.steps))
	for i := range r.steps {
		s := &r.steps[i]
		report := &r.report.Steps[i]
		report.Component = s.def.ID
		if s.def.Image == nil {
			continue
		}
		report.Image = r.reference(s)
	}
	return ctx.Err()
}
