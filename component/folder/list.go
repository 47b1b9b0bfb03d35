//go:build unix

package folder

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
	"golang.org/x/sys/unix"
)

// An Item is a table or a file in out/PART.
type Item struct {
	Name     string
	Sliced   bool  // a folder of slices (tables only)
	Size     int64 // bytes, of all slices
	Manifest bool  // there is a manifest
	Slices   []Slice
}

// A Slice is a file with data: a slice, or the item itself if it is not sliced.
// It may be kept as JSON.
type Slice struct {
	Name string // relative to out/PART
	Size int64

	// Which file it was, and when it was last written. Zero: not known.
	Dev, Ino uint64
	Changed  time.Time
}

// A Listing is what is in out/PART.
type Listing struct {
	Items   []Item   // by name
	Orphans []string // names of manifests without data, with their suffix
}

// List lists out/PART. Hidden files do not count, nor folders in out/files and
// in sliced tables. A part that the step has removed is empty.
//
// Errors: ErrInvalid if there is a link or a special file, a name that is no
// text, or more than MaxEntries.
func (f *Folder) List(ctx context.Context, part Part) (*Listing, error) {
	l := lister{part: part, base: path.Join("data/out", string(part)), manifests: map[string]bool{}}
	opts := &safefs.WalkOptions{MaxEntries: f.opts.MaxEntries, MaxDepth: 1}
	if part == Tables {
		opts.MaxDepth = 2
	}
	err := f.root.Walk(ctx, l.base, opts, l.entry)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Listing{}, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, outputError(path.Join("out", string(part)), err)
	}
	return l.finish(), nil
}

// A lister makes a Listing of what Walk finds.
type lister struct {
	part      Part
	base      string // relative to W
	items     []Item
	manifests map[string]bool // by the name of what they describe
	order     []string        // of manifests
}

func (l *lister) entry(e *safefs.Entry) error {
	if e.Path == l.base {
		return l.whole(e)
	}
	name := e.Path[len(l.base)+1:]
	if strings.HasPrefix(e.Name, ".") {
		return skip(e)
	}
	if why := unusable(e); why != "" {
		return invalid(caisson.OpStageOut, path.Join("out", string(l.part)), "%s %s", quoted(name), why)
	}
	if strings.Contains(name, "/") {
		l.slice(e, name)
		return nil
	}
	if data, ok := strings.CutSuffix(name, ManifestSuffix); ok {
		if e.Mode.IsRegular() {
			l.manifests[data] = true
			l.order = append(l.order, data)
		}
		return skip(e)
	}
	if e.Mode.IsDir() && l.part == Files {
		return fs.SkipDir
	}
	item := Item{Name: name, Sliced: e.Mode.IsDir()}
	if !item.Sliced {
		item.Size, item.Slices = e.Size, []Slice{sliceOf(e, name)}
	}
	l.items = append(l.items, item)
	return nil
}

// whole looks at the part itself.
func (l *lister) whole(e *safefs.Entry) error {
	switch {
	case e.Mode&fs.ModeSymlink != 0:
		return safefs.ErrLink
	case !e.Mode.IsDir():
		return invalid(caisson.OpStageOut, path.Join("out", string(l.part)), "is not a folder any more")
	}
	return nil
}

// unusable says why what a component has made can't be data; "" if it can.
func unusable(e *safefs.Entry) string {
	switch {
	case e.Mode&fs.ModeSymlink != 0:
		return "is a symbolic link: a component must write the file itself"
	case !e.Mode.IsRegular() && !e.Mode.IsDir():
		return "is neither a file nor a folder"
	}
	return badName(strings.TrimSuffix(e.Name, ManifestSuffix))
}

// skip leaves out an entry with all that is in it.
func skip(e *safefs.Entry) error {
	if e.Mode.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// slice adds a file to the sliced table that was found last.
func (l *lister) slice(e *safefs.Entry, name string) {
	if !e.Mode.IsRegular() {
		return
	}
	item := &l.items[len(l.items)-1]
	item.Slices = append(item.Slices, sliceOf(e, name))
	item.Size += e.Size
}

func sliceOf(e *safefs.Entry, name string) Slice {
	return Slice{Name: name, Size: e.Size, Dev: e.Dev, Ino: e.Ino, Changed: e.ModTime}
}

// finish brings items and manifests together.
func (l *lister) finish() *Listing {
	for i := range l.items {
		item := &l.items[i]
		item.Manifest = l.manifests[item.Name]
		delete(l.manifests, item.Name)
	}
	out := &Listing{Items: l.items}
	for _, name := range l.order {
		if l.manifests[name] {
			out.Orphans = append(out.Orphans, name+ManifestSuffix)
		}
	}
	return out
}

// OpenSlice opens a slice that List has found, from its first byte. Errors:
// ErrInvalid if it is not the file any more that was listed.
func (f *Folder) OpenSlice(part Part, s *Slice) (*os.File, error) {
	target := path.Join("out", string(part), s.Name)
	file, err := f.root.Open(path.Join("data", target))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, invalid(caisson.OpStageOut, target, "was removed after its program had ended")
	}
	if err != nil {
		return nil, outputError(target, err)
	}
	if err := s.check(file); err != nil {
		file.Close()
		return nil, outputError(target, err)
	}
	return file, nil
}

// CheckSlice says whether an open slice still is as it was listed. Whoever has
// read all of it asks, because a program that got away may write to it.
func (f *Folder) CheckSlice(part Part, s *Slice, file *os.File) error {
	if err := s.check(file); err != nil {
		return outputError(path.Join("out", string(part), s.Name), err)
	}
	return nil
}

var errAfterwards = errors.New("was changed after its program had ended")

func (s *Slice) check(file *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return err
	}
	same := st.Size == s.Size
	if s.Ino != 0 {
		same = same && uint64(st.Dev) == s.Dev && uint64(st.Ino) == s.Ino && time.Unix(st.Mtim.Unix()).Equal(s.Changed)
	}
	if !same {
		return errAfterwards
	}
	return nil
}
