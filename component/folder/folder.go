//go:build unix

package folder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/internal/safefs"
)

// Limits besides those of package component.
const (
	MaxEntries  = 200_000 // files in out/tables with all slices, or in out/files, if Options do not say
	MaxFiles    = 1 << 20 // files and folders in the whole of data/ and tmp/
	MaxArtifact = 1 << 30 // bytes of all artifacts of a kind
)

// ManifestSuffix ends the name of a manifest: it lies beside what it describes.
const ManifestSuffix = ".manifest"

// A Part is one of the two places for data in in/ and out/.
type Part string

// The parts.
const (
	Tables Part = "tables"
	Files  Part = "files"
)

// Options says how a folder is made. The zero value is JSON and the caller's own
// files.
type Options struct {
	Format component.Format // of the component; empty: JSON
	// Encoding is how JSON is written: what old components need.
	Encoding component.Encoding
	// Owner is who the files belong to on disk; nil: the caller. It is what
	// mount.Request says (UID and GID) of a place that is Owned.
	Owner *safefs.Owner
	// Private is a folder of the caller's in memory, where config.json and
	// in/state.json are kept if they have secrets: values of # keys, or any where
	// Hide says so. W has empty files in their places, over which Binds mounts
	// them: a step can read them, and neither change nor remove them. It is made
	// where it is missing. Empty: they are in W.
	Private string
	Hide    bool
	// MaxEntries is how many files out/tables with all slices, or out/files, may
	// have. 0: MaxEntries.
	MaxEntries int
}

// A Folder is the data folder of one row. What puts data into in/ and what only
// reads may be called by several goroutines; no step must run meanwhile.
type Folder struct {
	root *safefs.Root // W
	path string       // of W on the host
	opts Options

	mu   sync.Mutex
	note note
}

// Make makes the folder at path, whose parent exists and is the caller's. What
// is there already is removed. After a crash, call Open or Make.
func Make(ctx context.Context, path string, opts *Options) (*Folder, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, safefs.Sorted(caisson.OpStageIn, path, err)
	}
	f, err := attach(path, opts)
	if err != nil {
		return nil, err
	}
	if err := f.fill(ctx); err != nil {
		f.Close()
		return nil, safefs.Sorted(caisson.OpStageIn, path, err)
	}
	return f, nil
}

// Open returns a folder that Make has made, perhaps in an earlier life of this
// program. Errors: ErrNotFound.
func Open(path string, opts *Options) (*Folder, error) {
	f, err := attach(path, opts)
	if err != nil {
		return nil, err
	}
	if err := f.readNote(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func attach(path string, opts *Options) (*Folder, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	root, err := safefs.Open(path, nil)
	if err != nil {
		return nil, safefs.Sorted(caisson.OpStageIn, path, err)
	}
	f := &Folder{root: root, path: path}
	if opts != nil {
		f.opts = *opts
	}
	if f.opts.Format == "" {
		f.opts.Format = component.JSON
	}
	if f.opts.MaxEntries == 0 {
		f.opts.MaxEntries = MaxEntries
	}
	return f, nil
}

// fill empties the folder and makes what is always in it.
func (f *Folder) fill(ctx context.Context) error {
	if err := f.root.RemoveAll(ctx, "."); err != nil {
		return err
	}
	for _, part := range []Part{Tables, Files} {
		if err := f.mkdir("data/in/" + string(part)); err != nil {
			return err
		}
	}
	if err := f.fresh(ctx); err != nil {
		return err
	}
	if err := f.root.MkdirAll(pinsName, 0o700, nil); err != nil {
		return err
	}
	return f.writeNote()
}

// fresh makes what each step finds new: an empty out/, in/user and /tmp.
func (f *Folder) fresh(ctx context.Context) error {
	for _, dir := range []string{"data/in/user", "tmp"} {
		if err := f.root.RemoveAll(ctx, dir); err != nil {
			return err
		}
	}
	for _, dir := range []string{"data/out/tables", "data/out/files", "data/in/user", "tmp"} {
		if err := f.mkdir(dir); err != nil {
			return err
		}
	}
	return f.root.SetMode("tmp", 0o777|fs.ModeSticky)
}

// mkdir makes a folder for steps. Anybody may write to it, because an image may
// run its program as any user; W itself lets nobody else in.
func (f *Folder) mkdir(name string) error { return f.root.MkdirAll(name, 0o777, f.opts.Owner) }

// Data returns the path on the host of what is mounted at /data.
func (f *Folder) Data() string { return filepath.Join(f.path, "data") }

// Tmp returns the path on the host of what is mounted at /tmp.
func (f *Folder) Tmp() string { return filepath.Join(f.path, "tmp") }

// Close lets go of the folder; its files stay.
func (f *Folder) Close() error { return f.root.Close() }

// Remove removes everything that is in the folder, then the folder, and closes
// it. It can be called again after a crash: see Remove the function.
func (f *Folder) Remove(ctx context.Context) error {
	err := f.root.RemoveAll(ctx, ".")
	f.Close()
	if err == nil {
		err = os.Remove(f.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return safefs.Sorted(caisson.OpDestroy, f.path, err)
}

// Remove removes the folder at path. That it is not there is no error.
func Remove(ctx context.Context, path string) error {
	f, err := attach(path, nil)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Remove(ctx)
}

// document returns the name that a document has in this folder's format.
func (f *Folder) document(name string) string { return name + f.opts.Format.Extension() }

// invalid is a user's error about something in the folder.
func invalid(op caisson.Op, item, format string, args ...any) error {
	return &caisson.Error{Op: op, Item: item, Kind: caisson.ErrInvalid, Err: fmt.Errorf(format, args...)}
}
