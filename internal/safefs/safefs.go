// Package safefs is the only way to touch a path that a task could have made.
package safefs

import (
	"context"
	"io"
	"io/fs"
	"os"
	"time"
)

// A Root is a folder that nothing done through it leads out of.
type Root struct{}

// Options configures a Root. The zero value is the strictest.
type Options struct {
	// CrossMounts permits to enter what is mounted below.
	CrossMounts bool
}

// Open opens the folder path, which is trusted.
func Open(path string, opts *Options) (*Root, error) { panic("todo") }

// FromFile makes a Root of an open folder, also one opened with O_PATH, and
// owns it from then on.
func FromFile(f *os.File, opts *Options) (*Root, error) { panic("todo") }

// Close closes the Root.
func (r *Root) Close() error { panic("todo") }

// Sub opens a folder below as a Root of its own.
func (r *Root) Sub(name string) (*Root, error) { panic("todo") }

// Info is what Stat and Walk tell about a file. Links are never followed.
type Info struct {
	Name    string // last element
	Mode    fs.FileMode
	Size    int64
	ModTime time.Time
	UID     int
	GID     int
	Links   uint64
	Dev     uint64
	Ino     uint64
	Blocks  int64 // bytes on disk
}

// Stat describes name itself.
func (r *Root) Stat(name string) (Info, error) { panic("todo") }

// Open opens a regular file for reading; anything else is an error at once.
func (r *Root) Open(name string) (*os.File, error) { panic("todo") }

// ReadFile returns a regular file's contents, of at most limit bytes.
func (r *Root) ReadFile(name string, limit int64) ([]byte, error) { panic("todo") }

// ReadLink returns a symbolic link's target.
func (r *Root) ReadLink(name string) (string, error) { panic("todo") }

// Owner is who a new file belongs to. Nil: the caller.
type Owner struct{ UID, GID int }

// MkdirAll makes a folder and those above it that are missing.
func (r *Root) MkdirAll(name string, perm fs.FileMode, owner *Owner) error { panic("todo") }

// WriteFile makes name hold data, atomically, in place of whatever was there
// but a folder.
func (r *Root) WriteFile(name string, data []byte, perm fs.FileMode, owner *Owner) error {
	panic("todo")
}

// RemoveAll removes name and everything below it. For "." it empties the root.
func (r *Root) RemoveAll(ctx context.Context, name string) error { panic("todo") }

// ChownAll gives name and everything below it to owner.
func (r *Root) ChownAll(ctx context.Context, name string, owner Owner) error { panic("todo") }

// Usage returns how many bytes on disk, and how many files, name and everything
// below it are.
func (r *Root) Usage(ctx context.Context, name string) (bytes, files int64, err error) {
	panic("todo")
}

// Entry is what Walk finds.
type Entry struct {
	Path string // relative to the Root
	Info
}

// WalkOptions bounds a walk.
type WalkOptions struct {
	MaxEntries int // 0: DefaultMaxEntries
	MaxDepth   int // 0: no bound; 1: only what is directly in the folder
}

// Walk calls f for name and everything below it, a folder before what it
// holds, in order of names. fs.SkipDir from f leaves out what a folder holds.
func (r *Root) Walk(ctx context.Context, name string, opts *WalkOptions, f func(*Entry) error) error {
	panic("todo")
}

// Open opens the entry if it is a regular file. Only during the call that it
// was passed to.
func (e *Entry) Open() (*os.File, error) { panic("todo") }

// Tar writes name, and everything below it, as a tar stream; names inside start
// with the last element of name, or nothing for ".".
func (r *Root) Tar(ctx context.Context, name string, w io.Writer) error { panic("todo") }

// UntarOptions says how Untar makes files.
type UntarOptions struct {
	Owner      *Owner // nil: the caller
	MaxBytes   int64  // of all contents; 0: no limit
	MaxEntries int    // 0: DefaultMaxEntries
}

// Untar unpacks a tar stream below the folder name.
func (r *Root) Untar(ctx context.Context, name string, rd io.Reader, opts *UntarOptions) error {
	panic("todo")
}

// FS is a Root as an fs.FS in which symbolic links lead, but never out.
type FS struct{}

// FS returns the files below r. Closing it does not close r.
func (r *Root) FS() *FS { panic("todo") }

var _ interface {
	fs.ReadDirFS
	fs.StatFS
	fs.ReadLinkFS
	io.Closer
} = (*FS)(nil)

// Open opens a regular file or folder; anything else is an error at once.
func (f *FS) Open(name string) (fs.File, error) { panic("todo") }

// ReadDir lists a folder by name.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) { panic("todo") }

// Stat describes what name leads to.
func (f *FS) Stat(name string) (fs.FileInfo, error) { panic("todo") }

// Lstat describes name itself.
func (f *FS) Lstat(name string) (fs.FileInfo, error) { panic("todo") }

// ReadLink returns a symbolic link's target.
func (f *FS) ReadLink(name string) (string, error) { panic("todo") }

// Close ends the FS.
func (f *FS) Close() error { panic("todo") }
