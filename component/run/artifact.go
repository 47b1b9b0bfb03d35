//go:build unix

package run

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
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/mapping"
	"github.com/caissonrun/caisson/component/storage"
)

// Tags of artifacts. Those that end in "-" are followed by an id.
const (
	tagArtifact  = "artifact"
	tagShared    = "shared"
	tagComponent = "componentId-"
	tagConfig    = "configId-"
	tagBranch    = "branchId-"
	tagJob       = "jobId-"
)

// Artifacts are what a run has brought from earlier ones, and what it keeps for
// later ones: files of the storage.
type Artifacts struct {
	Downloaded []int64 `json:"downloaded,omitempty"`
	Uploaded   []int64 `json:"uploaded,omitempty"`
}

// hasArtifacts reports whether the component keeps artifacts in this run.
func (a *attempt) hasArtifacts() bool {
	return a.plan.main().Has(component.FeatureArtifacts) && a.stores()
}

// bringArtifacts gives the component the artifacts of earlier runs that its
// configuration asks for. One that can't be had is a warning.
func (r *row) bringArtifacts(ctx context.Context) error {
	if !r.hasArtifacts() {
		return nil
	}
	if err := r.folder.MakeArtifacts(); err != nil {
		return err
	}
	r.report.Artifacts = &Artifacts{}
	own := []string{tagArtifact, tagComponent + r.plan.Component, tagConfig + r.plan.ConfigID}
	c := &r.cfg.Artifacts
	custom := []string{tagArtifact, tagComponent + c.Custom.ComponentID, tagConfig + c.Custom.ConfigID, tagBranch + c.Custom.BranchID}
	for _, from := range []struct {
		kind   string
		choice component.ArtifactChoice
		tags   []string
	}{{"runs", c.Runs, own}, {"custom", c.Custom, custom}, {"shared", c.Shared, []string{tagArtifact, tagShared}}} {
		if !from.choice.Enabled {
			continue
		}
		if err := r.bringKind(ctx, from.kind, &from.choice, from.tags); err != nil {
			if ctx.Err() != nil {
				return err
			}
			r.warn("artifacts: %s: %s", from.kind, err)
		}
	}
	return nil
}

// bringKind brings the artifacts of one kind, newest first.
func (r *row) bringKind(ctx context.Context, kind string, choice *component.ArtifactChoice, tags []string) error {
	query := &storage.FileQuery{Tags: tags, Limit: choice.Limit}
	if kind != "shared" {
		query.NotTags = []string{tagShared}
	}
	if choice.DateSince != "" {
		since, err := mapping.ParseTime(choice.DateSince, time.Now().UTC())
		if err != nil {
			return err
		}
		query.ChangedSince = since
	}
	files, err := r.store.Files(ctx, query)
	if err != nil {
		return err
	}
	for _, f := range files {
		from, err := r.store.OpenFile(ctx, f.ID)
		if err != nil {
			return err
		}
		err = errors.Join(r.folder.PutArtifact(ctx, kind, jobOf(&f), from), from.Close())
		if err != nil {
			return fmt.Errorf("file %d: %w", f.ID, err)
		}
		r.report.Artifacts.Downloaded = append(r.report.Artifacts.Downloaded, f.ID)
	}
	return nil
}

// jobOf returns the run that an artifact is of, or else its own id.
func jobOf(f *storage.File) string {
	for _, tag := range f.Tags {
		if job, ok := strings.CutPrefix(tag, tagJob); ok {
			return job
		}
	}
	return fmt.Sprint(f.ID)
}

// keepArtifacts keeps what the component has left for later runs. What goes
// wrong is a warning.
func (r *row) keepArtifacts(ctx context.Context) error {
	if !r.hasArtifacts() {
		return nil
	}
	tags := []string{tagArtifact, tagComponent + r.plan.Component, tagConfig + r.plan.ConfigID, tagJob + r.job.ID}
	if branch := r.opts.Project.Branch; branch != "" {
		tags = append(tags, tagBranch+branch)
	}
	for kind, own := range map[string][]string{"current": nil, "shared": {tagShared}} {
		if err := r.keepKind(ctx, kind, append(own, tags...)); err != nil {
			if ctx.Err() != nil {
				return err
			}
			r.warn("artifacts: %s: %s", kind, err)
		}
	}
	return nil
}

// keepKind keeps the artifacts of one kind, if there are any.
func (r *row) keepKind(ctx context.Context, kind string, tags []string) (err error) {
	path := filepath.Join(r.job.Dir, "artifact.tar.gz")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(path)) }()
	some, err := r.folder.Artifact(ctx, kind, f)
	if err != nil || !some {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	file, err := r.store.PutFile(ctx, &storage.NewFile{
		Load: fmt.Sprintf("%s/%d/%d/artifact-%s", r.job.ID, r.job.Attempt, r.p.Row, kind), Name: "artifacts.tar.gz", Tags: tags,
	}, f)
	if err != nil {
		return err
	}
	if r.report.Artifacts == nil {
		r.report.Artifacts = &Artifacts{}
	}
	r.report.Artifacts.Uploaded = append(r.report.Artifacts.Uploaded, file.ID)
	return nil
}

// checkArtifacts refuses what is not there of artifacts.
func checkArtifacts(d *component.Definition, cfg *component.Config) error {
	if d.Has(component.FeatureArtifacts) && cfg.Artifacts.NoZip {
		return invalidf(caisson.ErrUnsupported, "artifacts.options.zip", "false is not there: artifacts are kept as archives")
	}
	return nil
}
