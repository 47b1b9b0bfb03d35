//go:build unix

package folder

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

// The kinds of artifacts that a step is given, and those that it makes.
var (
	artifactsIn  = []string{"runs", "custom", "shared"}
	artifactsOut = []string{"current", "shared"}
)

// PutArtifact unpacks a tar stream, perhaps with gzip, into
// artifacts/in/KIND/jobs/job-JOB; the kind is runs, custom or shared. Errors:
// ErrInvalid for what is no such stream, or holds more than MaxArtifact.
func (f *Folder) PutArtifact(ctx context.Context, kind, job string, r io.Reader) error {
	if why := badName(job); why != "" || !slices.Contains(artifactsIn, kind) {
		return invalid(caisson.OpStageIn, "artifact", "kind %q, job %q: no such kind or no such name", kind, job)
	}
	dir := path.Join("data/artifacts/in", kind, "jobs", "job-"+job)
	if err := f.mkdir(dir); err != nil {
		return safefs.Sorted(caisson.OpStageIn, dir, err)
	}
	plain, err := gunzip(r)
	if err == nil {
		opts := &safefs.UntarOptions{Owner: f.opts.Owner, MaxBytes: MaxArtifact, MaxEntries: MaxFiles}
		err = f.root.Untar(ctx, dir, plain, opts)
	}
	if errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) {
		return invalid(caisson.OpStageIn, dir, "%w", err)
	}
	return safefs.Sorted(caisson.OpStageIn, dir, err)
}

// gunzip unpacks r if it begins as gzip does.
func gunzip(r io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(r)
	start, err := buffered.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(start) == 2 && start[0] == 0x1f && start[1] == 0x8b {
		return gzip.NewReader(buffered)
	}
	return buffered, nil
}

// MakeArtifacts makes the folders in which a component leaves its artifacts.
func (f *Folder) MakeArtifacts() error {
	for _, kind := range artifactsOut {
		dir := path.Join("data/artifacts/out", kind)
		if err := f.mkdir(dir); err != nil {
			return safefs.Sorted(caisson.OpStageIn, dir, err)
		}
	}
	return nil
}

// Artifact writes artifacts/out/KIND (current or shared) as tar.gz; false if
// there is nothing in it. Errors: ErrInvalid for links, special files and more
// than MaxArtifact.
func (f *Folder) Artifact(ctx context.Context, kind string, w io.Writer) (bool, error) {
	target := path.Join("artifacts/out", kind)
	if !slices.Contains(artifactsOut, kind) {
		return false, invalid(caisson.OpStageOut, target, "no such kind of artifact")
	}
	any, err := f.checkArtifact(ctx, target)
	if err != nil || !any {
		return false, err
	}
	dir, err := f.root.Sub(path.Join("data", target))
	if err != nil {
		return false, outputError(target, err)
	}
	defer dir.Close()
	zw := gzip.NewWriter(w)
	if err := dir.Tar(ctx, ".", &limited{zw, MaxArtifact + MaxArtifact/4}); err != nil {
		return false, outputError(target, err)
	}
	return true, zw.Close()
}

// checkArtifact reports whether there is anything.
func (f *Folder) checkArtifact(ctx context.Context, target string) (any bool, err error) {
	var size int64
	base := path.Join("data", target)
	err = f.root.Walk(ctx, base, &safefs.WalkOptions{MaxEntries: f.opts.MaxEntries}, func(e *safefs.Entry) error {
		switch {
		case e.Mode&fs.ModeSymlink != 0:
			return safefs.ErrLink
		case !e.Mode.IsRegular() && !e.Mode.IsDir():
			return safefs.ErrType
		}
		any = any || e.Path != base
		if size += e.Size; size > MaxArtifact {
			return invalid(caisson.OpStageOut, target, "larger than %s", caisson.Bytes(MaxArtifact))
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil && ctx.Err() == nil {
		err = outputError(target, err)
	}
	return any, err
}

// A limited writer takes so many bytes: a file may grow while it is archived.
type limited struct {
	w    io.Writer
	left int64
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, safefs.ErrTooMany
	}
	return l.w.Write(p)
}
