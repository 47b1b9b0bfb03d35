//go:build unix

package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/filecopy"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/mount/internal/shelf"
)

// DefaultOwner is who the files of a volume belong to on disk until a task of
// another user has it. Without root's rights it is the caller.
const DefaultOwner = 1000

// Info is what is known about a volume.
type Info struct {
	Name      string        `json:"name"`
	CreatedAt time.Time     `json:"created_at"`
	UsedAt    time.Time     `json:"used_at,omitzero"`
	Size      caisson.Bytes `json:"size"` // of its files on disk
	InUse     bool          `json:"in_use"`
}

// A Store keeps named volumes in one folder. Several processes may use it.
type Store struct{ shelf *shelf.Shelf }

// NewStore returns the store in dir, made on first use.
func NewStore(dir string) *Store { return &Store{shelf: shelf.New(dir, "volume")} }

// CreateOptions says what a new volume holds. At most one of Tar and Dir is
// set.
type CreateOptions struct {
	UID, GID int       // who its files belong to on disk; both 0: DefaultOwner
	Tar      io.Reader // unpacked into it; nil: nothing
	Dir      string    // a folder of the caller's whose files are copied into it; empty: none
}

// Create makes a volume. It appears with all its files or not at all. Nil
// options mean an empty one.
//
// Errors: ErrInvalid if the name is not allowed, or the archive is damaged or
// leads out of the volume; ErrExists; ErrNotFound if there is no opts.Dir;
// ErrExhausted.
func (s *Store) Create(ctx context.Context, name string, opts *CreateOptions) error {
	if opts == nil {
		opts = &CreateOptions{}
	}
	owner := shelf.Owner{UID: opts.UID, GID: opts.GID}
	if owner == (shelf.Owner{}) {
		owner = shelf.Owner{UID: DefaultOwner, GID: DefaultOwner}
	}
	var files *safefs.Owner
	if os.Geteuid() == 0 {
		files = &safefs.Owner{UID: owner.UID, GID: owner.GID}
	}
	return s.shelf.Create(ctx, name, owner, func(data *safefs.Root) error {
		if opts.Tar != nil {
			// Links mean something only where the volume is mounted; one that Export
			// has written must come back.
			return data.Untar(ctx, ".", opts.Tar, &safefs.UntarOptions{Owner: files, MaxEntries: math.MaxInt32, AnyLink: true})
		}
		if opts.Dir != "" {
			return copyFolder(ctx, data, opts.Dir, files)
		}
		return nil
	})
}

// copyFolder copies the files of a folder, its links as they are, and nothing
// special.
func copyFolder(ctx context.Context, data *safefs.Root, dir string, owner *safefs.Owner) error {
	src, err := safefs.Open(dir, &safefs.Options{CrossMounts: true})
	if err != nil {
		return err
	}
	defer src.Close()
	tree := filecopy.Tree{Src: src, From: ".", Dst: data, To: ".", Owner: owner}
	err = tree.Copy(ctx)
	var in *fs.PathError
	if errors.As(err, &in) {
		return fmt.Errorf("%s: %w", filepath.Join(dir, in.Path), in.Err)
	}
	return err
}

// List returns all volumes by name.
func (s *Store) List(ctx context.Context) ([]Info, error) {
	list, err := s.shelf.List(ctx)
	return Infos(list), err
}

// Infos makes volumes of a shelf's folders.
func Infos(list []shelf.Info) []Info {
	var infos []Info
	for _, i := range list {
		infos = append(infos, Info{
			Name: i.Name, CreatedAt: i.CreatedAt, UsedAt: i.UsedAt, Size: caisson.Bytes(i.Size), InUse: i.InUse,
		})
	}
	return infos
}

// Export writes a volume's files as a tar stream, also while a task uses it;
// what the task changes meanwhile may then be in it or not. Errors:
// ErrNotFound.
func (s *Store) Export(ctx context.Context, name string, w io.Writer) error {
	root, err := s.shelf.Open(name)
	if err != nil {
		return err
	}
	defer root.Close()
	return root.Tar(ctx, ".", w)
}

// Remove deletes a volume. Errors: ErrNotFound; ErrExists if it is in use.
func (s *Store) Remove(ctx context.Context, name string) error { return s.shelf.Remove(ctx, name) }
