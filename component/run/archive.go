//go:build unix

package run

import (
	"context"
	"fmt"
	"io"

	"github.com/caissonrun/caisson/component/storage"
)

// archive keeps a copy of the data folder as it is now, without secrets, as a
// file in the storage: what debug mode is for.
func (r *row) archive(ctx context.Context, name string, d *defined) error {
	tags := []string{"debug", d.ID, "jobId:" + r.job.ID}
	return r.keep(ctx, name, tags)
}

// archiveOutput keeps a copy of the folder as the last step has left it.
func (r *row) archiveOutput(ctx context.Context) error {
	if err := r.writeConfig(&r.steps[len(r.steps)-1]); err != nil {
		return err // it was removed after the step, as it holds secrets
	}
	return r.archive(ctx, "stage_output", r.plan.main())
}

// archiveInput keeps a copy of the folder as a component would find it.
func (r *row) archiveInput(ctx context.Context) error {
	if err := r.prepare(ctx, r.mainStep()); err != nil {
		return err
	}
	return r.keep(ctx, "data", []string{r.plan.Mode, r.plan.Component, "jobId:" + r.job.ID})
}

func (r *row) mainStep() *step {
	for i := range r.steps {
		if r.steps[i].main() {
			return &r.steps[i]
		}
	}
	return &r.steps[0]
}

// keep puts an archive into the storage, once however often it is called.
func (r *row) keep(ctx context.Context, name string, tags []string) error {
	if id := r.report.ID; id != "" {
		tags = append(tags, "rowId:"+id)
	}
	values := make([]string, len(r.values))
	for i, v := range r.values {
		values[i] = string(v)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	from, to := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		to.CloseWithError(r.folder.Archive(ctx, to, values))
	}()
	file, err := r.store.PutFile(ctx, &storage.NewFile{
		Load: fmt.Sprintf("%s/%d/%d/%s", r.job.ID, r.job.Attempt, r.p.Row, name), Name: name + ".zip", Tags: tags,
	}, from)
	from.Close()
	<-done
	if err != nil {
		return at("archive "+name, err)
	}
	r.report.Archives = append(r.report.Archives, archive{Name: file.Name, File: file.ID})
	return r.say(fmt.Sprintf("%s/archive-%s", r.rowName(), name), "kept the data folder as file %d, %s", file.ID, file.Name)
}
