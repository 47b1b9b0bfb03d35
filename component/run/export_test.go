//go:build unix

package run

// OnSave has f called before and after a run's progress is written.
func (r *Runner) OnSave(f func() error) { r.saving = f }
