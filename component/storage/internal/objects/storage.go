package objects

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
)

// Options are a Storage's settings.
type Options struct {
	CellLimit int64 // bytes of a value; 0: 64 MiB
	// Memory is about how much a load with a key takes for the rows that it
	// compares; beyond it uses the disk. 0: 64 MiB.
	Memory int64
	// Linger is how long objects stay that were replaced, where the store can't
	// tell whether somebody reads them.
	Linger time.Duration
	Now    func() time.Time // nil: time.Now
}

// A Storage is a storage.Storage over a Store.
type Storage struct {
	store Store
	o     Options
}

var _ storage.Storage = (*Storage)(nil)

// New returns the storage in a store.
func New(store Store, o Options) *Storage {
	if o.Memory <= 0 {
		o.Memory = 64 << 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Storage{store: store, o: o}
}

// Name implements storage.Storage.
func (s *Storage) Name() string { return s.store.Name() }

// Features implements storage.Storage.
func (s *Storage) Features() storage.Features {
	return storage.Features{ChangedSince: true, FileQuery: true}
}

// Table implements storage.Storage.
func (s *Storage) Table(ctx context.Context, id string) (*storage.Table, error) {
	parsed, err := storage.ParseID(id)
	if err != nil {
		return nil, err
	}
	t, err := s.find(ctx, parsed)
	if err != nil {
		return nil, err
	}
	return t.describe(), nil
}

// Tables implements storage.Storage.
func (s *Storage) Tables(ctx context.Context) ([]storage.Table, error) {
	ids, err := s.ids(ctx)
	if err != nil {
		return nil, err
	}
	var list []storage.Table
	for _, id := range ids {
		t, err := s.Table(ctx, id)
		if errors.Is(err, caisson.ErrNotFound) {
			continue // it went meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, *t)
	}
	return list, nil
}

// Close implements storage.Storage.
func (s *Storage) Close() error { return s.store.Close() }

// now returns the time in the precision that is kept.
func (s *Storage) now() time.Time { return s.o.Now().UTC().Truncate(time.Microsecond) }

// invalid is an error that the component or its configuration has to mend.
func invalid(id storage.ID, format string, args ...any) error {
	return &caisson.Error{Item: fmt.Sprintf("table %q", id), Kind: caisson.ErrInvalid, Err: fmt.Errorf(format, args...)}
}
