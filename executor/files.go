//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/keeper/redact"
)

// workName is the work folder's name in the files of a sandbox.
const workName = "work"

func safeOwner(o engine.Owner) *safefs.Owner {
	if os.Geteuid() != 0 {
		return nil
	}
	return &safefs.Owner{UID: o.UID, GID: o.GID}
}

// writeFiles puts the document's files of a step at their places: into the work
// folder, or beside it where they are bound to their place inside.
func (a *attendant) writeFiles(ctx context.Context, b *blueprint, st *step) error {
	if len(st.program.Files) == 0 {
		return nil
	}
	work, err := safefs.Open(a.attempt().Work(), nil)
	if err != nil {
		return safefs.Sorted(caisson.OpStageIn, "work folder", err)
	}
	defer work.Close()
	owner := safeOwner(a.record.Owner)
	outside := 0
	for _, name := range slices.Sorted(maps.Keys(st.program.Files)) {
		data := []byte(st.program.Files[name])
		rel, isInside := insideWork(name)
		switch {
		case isInside && a.record.Fork != nil && st.kind == kindMain:
			// They are there, as the original has left them.
		case isInside:
			err = errors.Join(work.MkdirAll(filepath.Dir(rel), 0o755, owner), work.WriteFile(rel, data, 0o644, owner))
		default:
			err = writeOutside(b.outside(st, outside), data)
			outside++
		}
		if err != nil {
			return safefs.Sorted(caisson.OpStageIn, "files."+name, err)
		}
	}
	return nil
}

func writeOutside(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	return os.Chmod(path, 0o644)
}

// give puts the work folder into a sandbox that can't share it.
func (a *attendant) give(ctx context.Context, sb engine.Sandbox) error {
	filer, ok := sb.(engine.Filer)
	if a.record.Sharing.Work {
		return nil
	}
	if !ok {
		return a.needsNoFiles()
	}
	work, err := safefs.Open(a.attempt().Work(), nil)
	if err != nil {
		return safefs.Sorted(caisson.OpFiles, "work folder", err)
	}
	defer work.Close()
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := work.Tar(ctx, ".", w)
		w.CloseWithError(err)
		packed <- err
	}()
	err = a.x.guard(caisson.OpFiles, func() error { return filer.Put(ctx, workName, r) })
	r.CloseWithError(io.ErrClosedPipe)
	if packErr := <-packed; err == nil && packErr != nil {
		err = safefs.Sorted(caisson.OpFiles, "work folder", packErr)
	}
	return err
}

// needsNoFiles refuses a task with files for a sandbox that can't be given any.
func (a *attendant) needsNoFiles() error {
	task := a.record.Task
	if len(task.Inputs)+len(task.Outputs)+len(task.Files) == 0 {
		return nil
	}
	return &caisson.Error{
		Op: caisson.OpFiles, Item: "inputs, outputs, files", Kind: caisson.ErrUnsupported,
		Err: errors.New("nobody can put anything into this sandbox, or take it out; leave them out"),
	}
}

// retrieve takes the work folder out of a sandbox that can't share it, in place
// of the one that it was given. It can be done again while the sandbox is there.
func (a *attendant) retrieve(ctx context.Context, st *step, sb engine.Sandbox) error {
	filer, ok := sb.(engine.Filer)
	if a.record.Sharing.Work || !ok || st.kind == kindSidecar {
		return nil
	}
	disk, err := safefs.Open(a.attempt().Disk(), nil)
	if err != nil {
		return safefs.Sorted(caisson.OpFiles, "work folder", err)
	}
	defer disk.Close()
	const fresh = "retrieved"
	if err := disk.RemoveAll(ctx, fresh); err != nil {
		return safefs.Sorted(caisson.OpFiles, "work folder", err)
	}
	if err := disk.MkdirAll(fresh, 0o700, nil); err != nil {
		return safefs.Sorted(caisson.OpFiles, "work folder", err)
	}
	if err := a.unpack(ctx, filer, disk, fresh); err != nil {
		return err
	}
	if err := disk.RemoveAll(ctx, workName); err != nil {
		return safefs.Sorted(caisson.OpFiles, "work folder", err)
	}
	return safefs.Sorted(caisson.OpFiles, "work folder", disk.Rename(fresh+"/"+workName, workName))
}

// unpack unpacks the sandbox's work folder below the folder dir.
func (a *attendant) unpack(ctx context.Context, filer engine.Filer, disk *safefs.Root, dir string) error {
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := a.x.guard(caisson.OpFiles, func() error { return filer.Tar(ctx, workName, w) })
		w.CloseWithError(err)
		sent <- err
	}()
	opts := &safefs.UntarOptions{Owner: safeOwner(a.record.Owner), MaxBytes: int64(a.record.Task.Limits.Disk)}
	err := disk.Untar(ctx, dir, r, opts)
	r.CloseWithError(io.ErrClosedPipe)
	if sendErr := <-sent; sendErr != nil && !errors.Is(sendErr, io.ErrClosedPipe) {
		return sendErr
	}
	return safefs.Sorted(caisson.OpFiles, "work folder", err)
}

// readOutput returns what the task wrote to $CAISSON_OUTPUT, with the values of
// its secrets taken out.
//
// Errors: ErrInvalid if it is larger than caisson.MaxOutput, or no text.
func (a *attendant) readOutput(work *safefs.Root) (string, error) {
	data, err := work.ReadFile(outputFile, int64(caisson.MaxOutput))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case errors.Is(err, safefs.ErrTooMany):
		err = fmt.Errorf("larger than %s: write less, or a file that is an output", caisson.MaxOutput)
		return "", &caisson.Error{Op: caisson.OpStageOut, Item: "$CAISSON_OUTPUT", Kind: caisson.ErrInvalid, Err: err}
	case err != nil:
		return "", safefs.Sorted(caisson.OpStageOut, "$CAISSON_OUTPUT", err)
	}
	text := string(data)
	if err := a.redact(&text); err != nil {
		return "", err
	}
	return strings.ToValidUTF8(text, "\uFFFD"), nil
}

// redact takes the values of the task's secrets out of texts.
func (a *attendant) redact(texts ...*string) error { return redactAll(redactable(a.secrets), texts...) }

// redactAll takes values, in all their forms, out of texts.
func redactAll(values [][]byte, texts ...*string) error {
	if len(values) == 0 {
		return nil
	}
	set, err := redact.Compile(values)
	if err != nil {
		return err
	}
	for _, text := range texts {
		var out strings.Builder
		w := set.NewWriter(func(b []byte) error { out.Write(b); return nil })
		if err := errors.Join(w.Write([]byte(*text)), w.Close()); err != nil {
			return err
		}
		*text = out.String()
	}
	return nil
}

// maxProgress is the most that is read of the progress file; it is written
// anew or appended to, and its last line counts.
const maxProgress = 4 << 10

// readProgress returns the progress that the task has told, from 0 to 1.
func readProgress(work *safefs.Root) (float64, bool) {
	data, err := work.ReadFile(progressFile, maxProgress)
	if err != nil {
		return 0, false
	}
	lines := strings.Fields(string(data))
	if len(lines) == 0 {
		return 0, false
	}
	v, err := strconv.ParseFloat(lines[len(lines)-1], 64)
	if err != nil || math.IsNaN(v) || v < 0 || v > 1 {
		return 0, false
	}
	return v, true
}

// progressStep is the least advance that is worth an event, so that no task can
// fill the journal.
const progressStep = 0.01

// watchProgress logs that the program has advanced.
func (a *attendant) watchProgress(st *step) error {
	if !a.record.Sharing.Work || st.kind == kindFinally {
		return nil
	}
	work, err := safefs.Open(a.attempt().Work(), nil)
	if err != nil {
		return nil // there is nobody to tell that it is gone but the task
	}
	defer work.Close()
	v, ok := readProgress(work)
	if !ok || (v < a.h.progress+progressStep && (v < 1 || a.h.progress >= 1)) {
		return nil
	}
	return a.append(&caisson.Event{Type: caisson.EventProgress, Step: st.name, Progress: v}, false)
}
