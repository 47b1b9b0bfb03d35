package objects

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/csv"
	"github.com/caissonrun/caisson/internal/crash"
)

// tries is how often a load is done anew because somebody else changed the
// table meanwhile.
const tries = 20

// recordLimit is how large TABLE.json may be, in bytes: less than what a store
// reads.
const recordLimit = 32 << 20

// Load implements storage.Storage.
func (s *Storage) Load(ctx context.Context, l *storage.Load) (*storage.Loaded, error) {
	id, err := storage.ParseID(l.Table)
	if err != nil {
		return nil, err
	}
	if err := checkLoad(id, l); err != nil {
		return nil, err
	}
	release, err := s.store.Lock(ctx, id.String())
	if err != nil {
		return nil, err
	}
	defer release()
	for try := 1; ; try++ {
		done, err := s.attempt(ctx, id, l)
		if err == nil || !errors.Is(err, caisson.ErrExists) {
			return done, full(id, err)
		}
		if try == tries {
			return nil, &caisson.Error{Item: fmt.Sprintf("table %q", id), Kind: caisson.ErrUnavailable, Err: fmt.Errorf(
				"others changed it %d times while it was loaded: %w", try, err,
			)}
		}
	}
}

// full gives the kind to a disk that is full, wherever rows were put aside.
func full(id storage.ID, err error) error {
	if caisson.KindOf(err) == caisson.ErrUnknown && noSpace(err) {
		return &caisson.Error{Item: fmt.Sprintf("table %q", id), Kind: caisson.ErrExhausted, Err: err}
	}
	return err
}

func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

func checkLoad(id storage.ID, l *storage.Load) error {
	if err := checkColumns(id, l.Columns); err != nil {
		return err
	}
	for _, c := range l.AddColumns {
		if c == "" || strings.EqualFold(c, "_timestamp") {
			return invalid(id, "column %q can't be added", c)
		}
	}
	if l.ID == "" {
		return &caisson.Error{Item: fmt.Sprintf("table %q", id), Kind: caisson.ErrInternal, Err: errors.New("a load without an id")}
	}
	return csv.Check(l.Delimiter, l.Enclosure)
}

// attempt does a load once. Errors: ErrExists if the table changed meanwhile.
func (s *Storage) attempt(ctx context.Context, id storage.ID, l *storage.Load) (*storage.Loaded, error) {
	old, err := s.find(ctx, id)
	if errors.Is(err, caisson.ErrNotFound) {
		old, err = &table{id: id}, nil
	}
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(old.record.Loads, func(d done) bool { return d.ID == l.ID }); i >= 0 {
		d := old.record.Loads[i]
		return &storage.Loaded{Table: *old.describe(), Rows: d.Rows, Warnings: d.Warnings, Again: true}, s.show(old)
	}
	// What people see is what the table is before it becomes another one.
	if err := s.show(old); err != nil {
		return nil, err
	}
	b, err := s.plan(old, l)
	if err != nil {
		return nil, err
	}
	defer b.close()
	if err := b.run(ctx); err != nil {
		return nil, err
	}
	next, err := s.commit(ctx, b)
	if err != nil {
		return nil, err
	}
	return &storage.Loaded{Table: *next.describe(), Rows: b.loaded, Warnings: b.warnings}, nil
}

// commit makes what was built the table.
func (s *Storage) commit(ctx context.Context, b *build) (*table, error) {
	if err := s.bucket(ctx, b); err != nil {
		return nil, err
	}
	next := &table{id: b.old.id, record: b.record()}
	data, err := json.MarshalIndent(&next.record, "", "  ")
	if err != nil {
		return nil, err
	}
	if len(data) > recordLimit {
		return nil, invalid(next.id, "its description, mostly metadata, is larger than %s", caisson.Bytes(recordLimit))
	}
	crash.Point(crash.TableBefore)
	next.version, err = s.store.Put(ctx, recordKey(next.id), append(data, '\n'), b.old.version)
	// Somebody else's record, or a disk that is full, says that this one is not
	// there. Of any other error nobody knows, and so whether what was built is named
	// all the same. A later load sweeps it, if not.
	b.committed = !errors.Is(err, caisson.ErrExists) && !noSpace(err)
	if err != nil {
		return nil, err
	}
	crash.Point(crash.TableAfter)
	// From here on the load is done, whatever happens.
	if err := s.show(next); err != nil {
		b.warnings = append(b.warnings, fmt.Sprintf("table %q is loaded, but the file that people see is the former one: %v", next.id, err))
	}
	crash.Point(crash.TableShown)
	// What is left over is removed by the next load if it can't be now.
	_ = s.store.Sweep(ctx, folder(next.id), next.record.names)
	return next, nil
}

// show puts the table where people look for it.
func (s *Storage) show(t *table) error {
	shelf, ok := s.store.(Shelf)
	if !ok || t.theirs || t.version == "" {
		return nil
	}
	seen, _, err := shelf.Shown(t.id)
	if err == nil && seen == t.record.Print {
		return nil
	}
	if err != nil && !errors.Is(err, caisson.ErrNotFound) {
		return err
	}
	return shelf.Show(t.id, folder(t.id)+"/"+t.record.Data)
}

// names reports whether an object of the table's folder is used.
func (r *record) names(name string) bool {
	return name == r.Data || name == r.Stamps && name != "" ||
		slices.ContainsFunc(r.Replaced, func(o replaced) bool { return o.Name == name })
}

// bucketRecord is .bucket.json.
type bucketRecord struct {
	Format   int                `json:"format"`
	Created  time.Time          `json:"created"`
	Metadata []storage.Metadata `json:"metadata,omitempty"`
}

// bucket makes the bucket if it is not there.
func (s *Storage) bucket(ctx context.Context, b *build) error {
	id := b.old.id
	key := id.Stage + "/" + id.Bucket + "/.bucket.json"
	if _, _, err := s.store.Get(ctx, key); !errors.Is(err, caisson.ErrNotFound) {
		return err
	}
	now := s.now()
	data, err := json.MarshalIndent(bucketRecord{Format: format, Created: now, Metadata: merge(nil, b.l.BucketMetadata, now)}, "", "  ")
	if err != nil {
		return err
	}
	if _, err = s.store.Put(ctx, key, append(data, '\n'), ""); errors.Is(err, caisson.ErrExists) {
		return nil
	}
	return err
}

// merge returns old with what is new: it replaces what has the same key and
// provider.
func merge(old, changes []storage.Metadata, now time.Time) []storage.Metadata {
	list := slices.Clone(old)
	for _, m := range changes {
		if m.Time.IsZero() {
			m.Time = now
		}
		i := slices.IndexFunc(list, func(o storage.Metadata) bool { return o.Key == m.Key && o.Provider == m.Provider })
		if i >= 0 {
			m.ID = list[i].ID
			list[i] = m
			continue
		}
		if m.ID == "" {
			m.ID = fmt.Sprint(len(list) + 1) // nothing is ever removed
		}
		list = append(list, m)
	}
	return list
}
