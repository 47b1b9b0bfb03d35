//go:build unix

package image

import (
	"context"
	"fmt"
	"time"

	"github.com/caissonrun/caisson"
)

// Options configures a Store.
type Options struct {
	Dir    string // of the store, absolute; made on first use
	Limits Limits // zero: the defaults
	// SetID keeps the set-id bits of files. Without it they are taken away.
	SetID bool
	// NoOverlay has root file systems always copied.
	NoOverlay bool
	GC        GCOptions // what AutoGC does
	// Sources is how images are had from outside.
	Sources Sources
}

// Limits bounds what an image may be. Zero values are the defaults.
type Limits struct {
	LayerBytes  caisson.Bytes // of a layer as it is sent
	Bytes       caisson.Bytes // of all files of an image, unpacked
	Entries     int           // of all layers together
	Layers      int
	Depth       int // of folders
	Ratio       int // how many times larger than what was sent a layer may become
	ConfigBytes caisson.Bytes
}

// A Store keeps images in one folder. It may be used by several goroutines, and
// the folder by several processes.
type Store struct {
	opts Options
}

var errNotYet = fmt.Errorf("image: %w", caisson.ErrUnsupported)

// Open opens the store. It makes nothing before it is needed.
//
// Errors: ErrInvalid for options that make no sense.
func Open(opts *Options) (*Store, error) { return &Store{opts: *opts}, nil }

// Get returns the image that req names, from the store or from outside as
// req.Pull says. When it returns, everything of it is here and checked.
//
// Errors: ErrInvalid for a reference, platform, image or digest that is wrong;
// ErrNotFound if there is no such image; ErrDenied by a registry, the
// operator's policy or a signature; ErrExhausted for a full disk;
// ErrUnavailable if a registry does not answer.
func (s *Store) Get(ctx context.Context, req *Request) (*Image, error) { return nil, errNotYet }

// RootFS unpacks the image unless that is done, and notes durably that
// lease.Owner uses it. A second call with the same owner and image returns the
// same.
//
// Errors: ErrInvalid if a layer is damaged or larger than the limits permit, or
// names what can't be; ErrExists if the owner has a lease of another image;
// ErrExhausted; ErrNotFound if the image was removed meanwhile.
func (s *Store) RootFS(ctx context.Context, img *Image, lease *Lease) (*RootFS, error) {
	return nil, errNotYet
}

// Unlease forgets the lease of owner and removes a copy that the store made for
// it. That there is none is no error.
func (s *Store) Unlease(ctx context.Context, owner string) error { return errNotYet }

// Sweep forgets the leases whose owner is not live, and removes what killed
// processes have left.
func (s *Store) Sweep(ctx context.Context, live func(owner string) bool) error { return errNotYet }

// List returns all images by name.
func (s *Store) List(ctx context.Context) ([]Record, error) { return nil, errNotYet }

// Inspect returns what is known of an image in the store, by its name or a
// digest, or by a beginning of its id that no other has. Errors: ErrNotFound;
// ErrInvalid if several have it.
func (s *Store) Inspect(ctx context.Context, name string) (*Image, *Record, error) {
	return nil, nil, errNotYet
}

// Remove forgets a name, and removes of the image what no other name and no
// lease needs. Errors: ErrNotFound; ErrExists if a lease has it and force is
// not set.
func (s *Store) Remove(ctx context.Context, name string, force bool) error { return errNotYet }

// GC removes images by opts, and everything that no name and no lease needs.
// What is in use stays.
func (s *Store) GC(ctx context.Context, opts GCOptions) (*GCResult, error) { return nil, errNotYet }

// AutoGC is GC with Options.GC if the last one was at least every ago.
func (s *Store) AutoGC(ctx context.Context, every time.Duration) error { return errNotYet }

// Modes returns what was seen to work here, best first: each was really done in
// the store's folder.
func (s *Store) Modes(ctx context.Context) ([]Mode, error) { return nil, errNotYet }
