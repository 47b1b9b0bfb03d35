package sql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
)

// look finds out whether there is a catalog that this version can read.
func (s *Storage) look(ctx context.Context, c *session) error {
	if s.isReady() {
		return nil
	}
	version, err := s.version(ctx, c)
	if err != nil {
		return err
	}
	c.bare = version == 0
	if version == len(s.d.migrations()) {
		s.setReady()
	}
	return nil
}

// version returns which version the catalog has; 0: there is none.
func (s *Storage) version(ctx context.Context, c *session) (int, error) {
	there, err := s.d.hasCatalog(ctx, c)
	if err != nil || !there {
		return 0, err
	}
	var version int
	if err := c.one(ctx, "SELECT max(version) FROM "+s.d.catalog("versions"), nil, &version); err != nil {
		return 0, err
	}
	if known := len(s.d.migrations()); version > known {
		return 0, &caisson.Error{Item: s.Name(), Kind: caisson.ErrUnsupported, Err: fmt.Errorf(
			"a newer Caisson made this storage: its catalog has version %d, this program knows %d", version, known,
		)}
	}
	return version, nil
}

// migrate brings the catalog to this version.
func (s *Storage) migrate(ctx context.Context) error {
	if s.isReady() {
		return nil
	}
	err := s.locked(ctx, "", "catalog", func(c *session) error {
		version, err := s.version(ctx, c)
		if err != nil {
			return err
		}
		steps := s.d.migrations()
		for i := version; i < len(steps); i++ {
			for _, statement := range steps[i] {
				if _, err := c.exec(ctx, statement); err != nil {
					return fmt.Errorf("making the catalog: %w", err)
				}
			}
			_, err := c.exec(ctx, "INSERT INTO "+s.d.catalog("versions")+" (version, since) VALUES (?, ?)",
				i+1, time.Now().UnixMicro())
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.setReady()
	}
	return err
}

func (s *Storage) isReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready
}

func (s *Storage) setReady() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = true
}

// An entry is what the catalog knows of a table. It goes into one JSON text:
// nothing of it is searched for by the database.
type entry struct {
	PrimaryKey     []string                      `json:"primary_key,omitempty"`
	Created        int64                         `json:"created"` // microseconds, as all times
	LastChange     int64                         `json:"last_change"`
	LastImport     int64                         `json:"last_import"`
	Rows           int64                         `json:"rows"`
	Size           int64                         `json:"size"` // bytes; -1: not known
	Types          map[string]storage.Type       `json:"types,omitempty"`
	Metadata       []storage.Metadata            `json:"metadata,omitempty"`
	ColumnMetadata map[string][]storage.Metadata `json:"column_metadata,omitempty"`
	LastNote       int64                         `json:"last_note,omitempty"` // the highest id of Metadata
}

// entry returns what the catalog knows of a table. Errors: errNone.
func (c *session) entry(ctx context.Context, id tableID) (*entry, error) {
	if c.bare {
		return nil, errNone
	}
	var text string
	err := c.one(ctx, "SELECT entry FROM "+c.s.d.catalog("tables")+" WHERE id = ?", []any{id.String()}, &text)
	if err != nil {
		return nil, err
	}
	return decode[entry](text)
}

func (c *session) putEntry(ctx context.Context, id tableID, e *entry) error {
	_, err := c.exec(ctx, "INSERT INTO "+c.s.d.catalog("tables")+" (id, entry) VALUES (?, ?)"+
		" ON CONFLICT (id) DO UPDATE SET entry = excluded.entry", id.String(), encode(e))
	return err
}

func decode[T any](text string) (*T, error) {
	v := new(T)
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return nil, &caisson.Error{Kind: caisson.ErrInternal, Err: fmt.Errorf("the catalog of the storage: %w", err)}
	}
	return v, nil
}

// encode returns v as JSON; what is kept in the catalog always has one.
func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic("caisson: bug: " + err.Error())
	}
	return string(text)
}

// describe puts together what the database and the catalog know of a table. e
// is nil for a table of somebody else.
func (r *relation) describe(e *entry) *storage.Table {
	t := &storage.Table{ID: r.id.String(), Name: r.id.table, Columns: r.names(), Rows: -1, Size: -1}
	if e == nil {
		return t
	}
	t.PrimaryKey = e.PrimaryKey
	t.Created, t.LastChange, t.LastImport = date(e.Created), date(e.LastChange), date(e.LastImport)
	t.Rows, t.Size, t.Metadata, t.ColumnMetadata = e.Rows, e.Size, e.Metadata, e.ColumnMetadata
	return t
}

func (r *relation) names() []string {
	names := make([]string, len(r.columns))
	for i, c := range r.columns {
		names[i] = c.name
	}
	return names
}

func date(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// known returns a table with its entry, which is nil where somebody else made
// the table. Errors: ErrNotFound.
func (c *session) known(ctx context.Context, id tableID) (*relation, *entry, error) {
	list, err := c.s.d.relations(ctx, c, id)
	if err != nil {
		return nil, nil, err
	}
	if len(list) == 0 {
		return nil, nil, notFound(id)
	}
	r := &list[0]
	if !r.timed {
		return r, nil, nil
	}
	e, err := c.entry(ctx, id)
	if errors.Is(err, errNone) {
		return r, nil, nil
	}
	return r, e, err
}

// note replaces the notes of the same key and provider and adds the others.
func (e *entry) note(old, added []storage.Metadata, now int64) []storage.Metadata {
	list := append([]storage.Metadata(nil), old...)
	for _, m := range added {
		m.Time = date(now)
		e.LastNote++
		m.ID = strconv.FormatInt(e.LastNote, 10)
		found := false
		for i := range list {
			if list[i].Key == m.Key && list[i].Provider == m.Provider {
				m.ID, found = list[i].ID, true
				list[i] = m
			}
		}
		if !found {
			list = append(list, m)
		}
	}
	return list
}
