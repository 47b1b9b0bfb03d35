package volume

import (
	"context"
	"io"
	"time"

	"github.com/caissonrun/caisson"
)

// Info is what is known about a volume.
type Info struct {
	Name      string        `json:"name"`
	CreatedAt time.Time     `json:"created_at"`
	UsedAt    time.Time     `json:"used_at,omitzero"`
	Size      caisson.Bytes `json:"size"` // of its files on disk
	InUse     bool          `json:"in_use"`
}

// A Store keeps named volumes in one folder.
type Store struct{ dir string }

// NewStore returns the store in dir, made on first use.
func NewStore(dir string) *Store { return &Store{dir: dir} }

// CreateOptions says what a new volume holds.
type CreateOptions struct {
	UID, GID int       // who its files belong to on disk
	Tar      io.Reader // unpacked into it; nil: nothing
	Dir      string    // a folder of the caller's that is copied into it; empty: none
}

// Create makes a volume. Errors: ErrInvalid if the name is not allowed;
// ErrExists; ErrExhausted.
func (s *Store) Create(ctx context.Context, name string, opts *CreateOptions) error { panic("todo") }

// List returns all volumes by name.
func (s *Store) List(ctx context.Context) ([]Info, error) { panic("todo") }

// Export writes a volume's files as a tar stream. Errors: ErrNotFound.
func (s *Store) Export(ctx context.Context, name string, w io.Writer) error { panic("todo") }

// Remove deletes a volume. Errors: ErrNotFound; ErrExists if it is in use.
func (s *Store) Remove(ctx context.Context, name string) error { panic("todo") }
