package sql

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/caissonrun/caisson"
)

// Document implements storage.Storage.
func (s *Storage) Document(ctx context.Context, name string) (data []byte, version string, err error) {
	if err := checkText("document", name); err != nil {
		return nil, "", err
	}
	err = s.view(ctx, name, func(c *session) error {
		missing := &caisson.Error{Item: name, Kind: caisson.ErrNotFound, Err: errors.New("there is no such document")}
		if c.bare {
			return missing
		}
		var n int64
		err := c.one(ctx, "SELECT data, version FROM "+s.d.catalog("documents")+" WHERE name = ?", []any{name}, &data, &n)
		if errors.Is(err, errNone) {
			return missing
		}
		version = strconv.FormatInt(n, 10)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return data, version, nil
}

// PutDocument implements storage.Storage.
func (s *Storage) PutDocument(ctx context.Context, name string, data []byte, version string) (string, error) {
	if name == "" {
		return "", invalid("document", "it has no name")
	}
	if err := checkText("document", name); err != nil {
		return "", err
	}
	changed := &caisson.Error{
		Item: name, Kind: caisson.ErrExists,
		Err: fmt.Errorf("somebody else has changed the document since version %q", version),
	}
	var old int64
	if version != "" {
		n, err := strconv.ParseInt(version, 10, 64)
		if err != nil {
			return "", changed
		}
		old = n
	}
	err := s.change(ctx, name, "document "+name, func(c *session) error {
		n, err := c.putDocument(ctx, name, data, old)
		if err == nil && n == 0 {
			return changed
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return strconv.FormatInt(old+1, 10), nil
}

// putDocument returns how many documents it wrote: 0 if the version is not old.
func (c *session) putDocument(ctx context.Context, name string, data []byte, old int64) (int64, error) {
	if data == nil {
		data = []byte{} // an empty document, not null
	}
	table := c.s.d.catalog("documents")
	if old == 0 {
		return c.exec(ctx, "INSERT INTO "+table+" (name, data, version) VALUES (?, ?, 1) ON CONFLICT DO NOTHING", name, data)
	}
	return c.exec(ctx, "UPDATE "+table+" SET data = ?, version = version + 1 WHERE name = ? AND version = ?", data, name, old)
}
