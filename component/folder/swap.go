//go:build unix

package folder

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

// maxDropped is how many names of each sort are told.
const maxDropped = 100

// Dropped is what a step had in in/ and did not put into out/.
type Dropped struct {
	Tables    []string
	Files     []string
	Manifests []string // of data that was kept: tables/x.manifest
	More      int      // names that are left out here
}

// Empty reports whether nothing was dropped.
func (d *Dropped) Empty() bool { return len(d.Tables)+len(d.Files)+len(d.Manifests)+d.More == 0 }

// usedName returns where in/ of step n goes to be removed, in W.
func usedName(n int) string { return "used-" + strconv.Itoa(n) }

// Swap makes the output of step number n (from 0) the input of the next one. It
// can be called again for the same n after a crash, and then does what is left;
// the answer then is nil.
//
// Errors: ErrInvalid if the step has put something in the place of out/.
func (f *Folder) Swap(ctx context.Context, n int) (*Dropped, error) {
	var dropped *Dropped
	err := f.swap(ctx, n, &dropped)
	return dropped, safefs.Sorted(caisson.OpStageIn, "output of a step", err)
}

// swap writes down that it is done before anything goes that a repeated call
// would tell it by: until then a folder "used-N" says that in/ is moved away, and
// a missing in/ that out/ is not.
func (f *Folder) swap(ctx context.Context, n int, dropped **Dropped) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.note.Swaps <= n {
		moved, err := f.has(usedName(n))
		if err == nil && !moved {
			err = f.begin(ctx, n, dropped)
		}
		if err == nil {
			err = f.turn()
		}
		if err != nil {
			return err
		}
		f.note = note{Swaps: n + 1}
		if err := f.writeNote(); err != nil {
			return err
		}
	}
	for _, name := range []string{usedName(n), pinsName} {
		if err := f.root.RemoveAll(ctx, name); err != nil {
			return err
		}
	}
	if err := f.root.MkdirAll(pinsName, 0o700, nil); err != nil {
		return err
	}
	return f.afterSwap(ctx)
}

// begin moves in/ away.
func (f *Folder) begin(ctx context.Context, n int, dropped **Dropped) error {
	if err := f.isFolder("data/out"); err != nil {
		return err
	}
	// A step may have removed its input, or put something else there.
	if err := f.isFolder("data/in"); err != nil {
		if err := f.root.RemoveAll(ctx, "data/in"); err != nil {
			return err
		}
	}
	if err := f.mkdir("data/in"); err != nil {
		return err
	}
	d, err := f.dropped(ctx)
	if err != nil {
		return err
	}
	*dropped = d
	return f.root.Rename("data/in", usedName(n))
}

// turn makes out/ to in/, unless that is done.
func (f *Folder) turn() error {
	done, err := f.has("data/in")
	if err != nil || done {
		return err
	}
	return f.root.Rename("data/out", "data/in")
}

// afterSwap makes everything that the next step finds, and no state.
func (f *Folder) afterSwap(ctx context.Context) error {
	for _, name := range []string{"state.json", "state.yml"} {
		if err := f.root.RemoveAll(ctx, path.Join("data/in", name)); err != nil {
			return err
		}
	}
	for _, part := range []Part{Tables, Files} {
		name := path.Join("data/in", string(part))
		if f.isFolder(name) != nil {
			if err := f.root.RemoveAll(ctx, name); err != nil {
				return err
			}
		}
		if err := f.mkdir(name); err != nil {
			return err
		}
	}
	return f.fresh(ctx)
}

// has reports whether anything has the name.
func (f *Folder) has(name string) (bool, error) {
	_, err := f.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// isFolder says whether name is one. That it is not there is one, too: a step
// that has removed out/ has no output.
func (f *Folder) isFolder(name string) error {
	info, err := f.root.Stat(name)
	shown := strings.TrimPrefix(name, "data/")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f.mkdir(name)
	case err != nil:
		return err
	case info.Mode&fs.ModeSymlink != 0:
		return outputError(shown, safefs.ErrLink)
	case !info.Mode.IsDir():
		return invalid(caisson.OpStageOut, shown, "is not a folder any more")
	}
	return nil
}

// dropped compares the names in in/ and out/.
func (f *Folder) dropped(ctx context.Context) (*Dropped, error) {
	d := &Dropped{}
	for _, part := range []Part{Tables, Files} {
		had, err := f.names(ctx, path.Join("data/in", string(part)))
		if err != nil {
			return nil, err
		}
		kept, err := f.names(ctx, path.Join("data/out", string(part)))
		if err != nil {
			return nil, err
		}
		for _, name := range had {
			if _, ok := slices.BinarySearch(kept, name); !ok {
				d.add(part, name, kept)
			}
		}
	}
	return d, nil
}

// add notes a name that is not among those that were kept. A manifest whose data
// is not there either goes without saying.
func (d *Dropped) add(part Part, name string, kept []string) {
	list := &d.Tables
	if part == Files {
		list = &d.Files
	}
	if data, ok := strings.CutSuffix(name, ManifestSuffix); ok {
		if _, ok := slices.BinarySearch(kept, data); !ok {
			return
		}
		list, name = &d.Manifests, path.Join(string(part), name)
	}
	if len(*list) == maxDropped {
		d.More++
		return
	}
	*list = append(*list, name)
}

// names returns the sorted names in a folder, hidden ones left out.
func (f *Folder) names(ctx context.Context, folder string) ([]string, error) {
	var names []string
	err := f.root.Walk(ctx, folder, &safefs.WalkOptions{MaxEntries: f.opts.MaxEntries, MaxDepth: 1}, func(e *safefs.Entry) error {
		if e.Path != folder && !strings.HasPrefix(e.Name, ".") {
			names = append(names, e.Name)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil && ctx.Err() == nil {
		err = outputError(strings.TrimPrefix(folder, "data/"), err)
	}
	return names, err
}
