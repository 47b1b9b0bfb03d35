//go:build unix

package folder

// This file is the skeleton of what is being written; it goes away.

import (
	"context"
	"io"
	"os"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/internal/safefs"
)

// meta is what is durable about the folder besides its contents: links and the
// number of swaps.
type meta struct{}

func (f *Folder) readMeta() error { return caisson.ErrUnsupported }

// ---- what RUN writes before a step

// WriteConfig writes data/config.json (config.yml), in place of the former one:
// what component.Config.File or component.ProcessorFile returned.
func (f *Folder) WriteConfig(config *component.Value) error { return caisson.ErrUnsupported }

// CheckSecrets says whether a configuration has a secret of the image parameters
// under one of its own # keys: it would be shown to whoever can read what the
// component does with its parameters. Errors: ErrInvalid.
func CheckSecrets(config, imageParameters *component.Value) error { return caisson.ErrUnsupported }

// RemoveConfig removes it: secrets are in it.
func (f *Folder) RemoveConfig() error { return caisson.ErrUnsupported }

// WriteState writes in/state.json: the component's part of the stored state, in
// plain; {} for nil.
func (f *Folder) WriteState(state *component.Value) error { return caisson.ErrUnsupported }

// ---- what MAP writes

// CheckName says what is wrong with the name of a table or a file that somebody
// wants to have in in/ (a destination) or says to be in out/ (a source). Errors:
// ErrInvalid.
func CheckName(name string) error { return caisson.ErrUnsupported }

// Create begins a file in in/PART, such as a table with its header. It appears
// with Commit(false); the caller calls Close in any case. It may replace a former
// one. Errors: as CheckName.
func (f *Folder) Create(part Part, name string) (*safefs.Temp, error) {
	return nil, caisson.ErrUnsupported
}

// CreateSlice begins a slice of a sliced table or file, in the folder
// in/PART/NAME.
func (f *Folder) CreateSlice(part Part, name, slice string) (*safefs.Temp, error) {
	return nil, caisson.ErrUnsupported
}

// Ways says how a host's file may get into in/. A clone that shares its blocks
// comes first always, and a copy last.
type Ways struct {
	// Link permits a hard link. It is only made where the file belongs to somebody
	// else than the folder's files and nobody may write to it; the caller says
	// that the step has no rights of the host's root.
	Link bool
	// Bind permits that only a place is made for it: whoever starts the step
	// mounts what Binds returns. The step can read the file, and neither move nor
	// remove it.
	Bind bool
}

// PutFile puts the host's file path, which nobody will change, into in/PART as
// name and says how. Path is the caller's own, never a component's.
func (f *Folder) PutFile(ctx context.Context, part Part, name, path string, ways Ways) (How, error) {
	return "", caisson.ErrUnsupported
}

// How is the way a file got into the folder.
type How string

// The ways, cheapest first.
const (
	Cloned How = "clone"
	Linked How = "link"
	Bound  How = "bind"
	Copied How = "copy"
)

// A Bind is a file of the host that is to be mounted read-only.
type Bind struct {
	Source string `json:"source"` // on the host
	Target string `json:"target"` // relative to /data, such as in/tables/x
}

// Binds returns what is to be mounted for the next step. A swap drops them.
func (f *Folder) Binds() []Bind { return nil }

// PutManifest writes in/PART/NAME.manifest in the folder's format: pretty JSON.
// Times in it are as component.FormatTime writes them.
func (f *Folder) PutManifest(part Part, name string, manifest any) error {
	return caisson.ErrUnsupported
}

// Import copies the file or folder path of the host, which is the caller's, to
// name in data/, such as in/files. Links and special files in it are errors.
func (f *Folder) Import(ctx context.Context, path, name string) error { return caisson.ErrUnsupported }

// ---- what is read after a step

// Mend gives everything in the folder back to its owner and makes it readable
// and writable for him, without following a link: after each step that may have
// run as another user. Mine says which users the step may have used; nil: only
// the owner.
func (f *Folder) Mend(ctx context.Context, mine func(uid, gid int) bool) error {
	return caisson.ErrUnsupported
}

// ReadState returns out/state.json, and nil if there is none. Errors: the
// application's, if it is no JSON object or too large.
func (f *Folder) ReadState() (*component.Value, error) { return nil, caisson.ErrUnsupported }

// DropState removes out/state.json, so that no later step sees it.
func (f *Folder) DropState() error { return caisson.ErrUnsupported }

// ReadUsage returns out/usage.json; nil if there is none. Errors: the
// application's.
func (f *Folder) ReadUsage() ([]component.Usage, error) { return nil, caisson.ErrUnsupported }

// ReadResult returns out/result.json; nil if there is none. Errors: for people to
// be warned with; they fail nothing.
func (f *Folder) ReadResult() (*component.ResultDoc, error) { return nil, caisson.ErrUnsupported }

// An Item is a table or a file in out/PART.
type Item struct {
	Name     string
	Sliced   bool  // a folder of slices (tables only)
	Size     int64 // bytes, of all slices
	Manifest bool  // there is a manifest
	Slices   []Slice
}

// A Slice is a file with data: a slice, or the item itself if it is not sliced.
type Slice struct {
	Name string // relative to out/PART
	Size int64
}

// A Listing is what is in out/PART.
type Listing struct {
	Items   []Item   // by name
	Orphans []string // names of manifests without data
}

// List lists out/PART. Hidden files do not count, nor folders in out/files and
// in sliced tables.
//
// Errors: ErrInvalid if there is a link or a special file, a name that is no
// text, or more than MaxEntries.
func (f *Folder) List(ctx context.Context, part Part) (*Listing, error) {
	return nil, caisson.ErrUnsupported
}

// OpenSlice opens a slice that List has found, from its first byte. Errors:
// ErrInvalid if it is not the file any more that was listed.
func (f *Folder) OpenSlice(part Part, s *Slice) (*os.File, error) {
	return nil, caisson.ErrUnsupported
}

// TableManifest returns the manifest of the table name in out/tables. Errors:
// ErrNotFound if there is none; ErrInvalid if it is not one or is too large.
func (f *Folder) TableManifest(name string) (*component.TableManifest, error) {
	return nil, caisson.ErrUnsupported
}

// FileManifest is TableManifest for a file in out/files.
func (f *Folder) FileManifest(name string) (*component.FileManifest, error) {
	return nil, caisson.ErrUnsupported
}

// ---- between steps

// Dropped is what a step had in in/ and did not put into out/.
type Dropped struct {
	Tables    []string // without those that are manifests
	Files     []string
	Manifests []string // of data that was kept: tables/x.manifest
	More      int      // names that are left out here
}

// Swap makes the output of step number n (from 0) the input of the next one. It
// can be called again for the same n after a crash, and then does what is left.
// The answer is then nil.
func (f *Folder) Swap(ctx context.Context, n int) (*Dropped, error) {
	return nil, caisson.ErrUnsupported
}

// ---- artifacts and archives

// PutArtifact unpacks a tar stream, perhaps with gzip, into
// artifacts/in/KIND/jobs/job-JOB (kind is runs, custom or shared). More than
// MaxArtifact is an error.
func (f *Folder) PutArtifact(ctx context.Context, kind, job string, r io.Reader) error {
	return caisson.ErrUnsupported
}

// Artifact writes artifacts/out/KIND (current or shared) as tar.gz; false if
// there is nothing in it.
func (f *Folder) Artifact(ctx context.Context, kind string, w io.Writer) (bool, error) {
	return false, caisson.ErrUnsupported
}

// Archive writes the whole of data/ as a zip: stage_<i>.zip or stage_output.zip.
// In config and states what is under # keys is [hidden], and secrets are taken
// out of every file.
func (f *Folder) Archive(ctx context.Context, w io.Writer, secrets []string) error {
	return caisson.ErrUnsupported
}
