package sql

import (
	"context"
	dbsql "database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
)

const (
	// defaultConnections is enough for the loads that run side by side; a
	// server's own limit is mostly a hundred, for everybody.
	defaultConnections = 16
	// undoTime bounds how long a failed call waits to undo what it did. A
	// connection that does not even do that is given up, and the server undoes
	// it.
	undoTime = 10 * time.Second
	// busyPause is between two tries of what SQLite refuses without waiting.
	busyPause = 5 * time.Millisecond
)

// Options changes how a database is used. The zero value is usable.
type Options struct {
	// Connections is how many connections there are at most. 0: 16.
	Connections int
}

// A Storage is a database.
type Storage struct {
	d  dialect
	db *dbsql.DB
	// step, where a test sets it, is told before each part of a load.
	step func(name string)

	mu    sync.Mutex
	ready bool // the catalog is there, in this version
}

var _ storage.Storage = (*Storage)(nil)

// New returns the storage of a URL: "postgres://USER@HOST/DATABASE", with what
// PostgreSQL knows besides, or "sqlite:FILE". It connects when it is used.
// Errors: ErrInvalid.
func New(url string, opts *Options) (*Storage, error) {
	if opts == nil {
		opts = &Options{}
	}
	var d dialect
	var connector driver.Connector
	var err error
	switch {
	case strings.HasPrefix(url, "postgres://"), strings.HasPrefix(url, "postgresql://"):
		d, connector, err = newPostgres(url)
	case strings.HasPrefix(url, "sqlite:"):
		d, connector, err = newSQLite(strings.TrimPrefix(url, "sqlite:"))
	default:
		err = &caisson.Error{Kind: caisson.ErrInvalid, Err: errors.New(
			`the URL of a database begins with "postgres://" or "sqlite:"`,
		)}
	}
	if err != nil {
		return nil, err
	}
	db := dbsql.OpenDB(connector)
	n := opts.Connections
	if n <= 0 {
		n = defaultConnections
	}
	db.SetMaxOpenConns(n)
	return &Storage{d: d, db: db}, nil
}

// Name implements storage.Storage.
func (s *Storage) Name() string { return s.d.name() }

// Features implements storage.Storage.
func (s *Storage) Features() storage.Features { return s.d.features() }

// Close implements storage.Storage.
func (s *Storage) Close() error { return s.db.Close() }

// at tells a test where a load is.
func (s *Storage) at(step string) {
	if s.step != nil {
		s.step(step)
	}
}

// A session is one connection in a transaction.
type session struct {
	s    *Storage
	conn *dbsql.Conn
	bare bool // there is no catalog yet
}

// exec runs a statement; values take the place of its question marks.
func (c *session) exec(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := c.conn.ExecContext(ctx, c.s.d.rebind(query, len(args)), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// each calls f for every row that a query returns; f scans it.
func (c *session) each(ctx context.Context, f func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := c.conn.QueryContext(ctx, c.s.d.rebind(query, len(args)), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// errNone says that a query returned no row.
var errNone = errors.New("no row")

// one scans the only row of a query. Errors: errNone.
func (c *session) one(ctx context.Context, query string, args []any, into ...any) error {
	found := errNone
	err := c.each(ctx, func(scan func(...any) error) error {
		found = nil
		return scan(into...)
	}, query, args...)
	if err != nil {
		return err
	}
	return found
}

// view calls f in a transaction that sees one state of the database and changes
// nothing.
func (s *Storage) view(ctx context.Context, item string, f func(*session) error) error {
	return s.transact(ctx, item, s.d.beginView(), func(c *session) error {
		if err := s.look(ctx, c); err != nil {
			return err
		}
		return f(c)
	})
}

// change calls f in a transaction that waits for everybody else who holds lock.
func (s *Storage) change(ctx context.Context, item, lock string, f func(*session) error) error {
	release, err := s.d.enter(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := s.migrate(ctx); err != nil {
		return err
	}
	return s.locked(ctx, item, lock, f)
}

func (s *Storage) locked(ctx context.Context, item, lock string, f func(*session) error) error {
	return s.transact(ctx, item, s.d.beginChange(), func(c *session) error {
		if err := s.d.lock(ctx, c, lock); err != nil {
			return err
		}
		return f(c)
	})
}

// transact calls f in a transaction. Where anything fails, nothing has happened,
// unless the connection is lost while it is being committed.
func (s *Storage) transact(ctx context.Context, item, begin string, f func(*session) error) error {
	c, err := s.start(ctx, item, begin)
	if err != nil {
		return err
	}
	return c.finish(ctx, item, f(c))
}

// start begins a transaction, which finish ends.
func (s *Storage) start(ctx context.Context, item, begin string) (*session, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, s.sorted(ctx, item, err)
	}
	if err := s.begin(ctx, conn, begin); err != nil {
		_ = conn.Close()
		return nil, s.sorted(ctx, item, err)
	}
	return &session{s: s, conn: conn}, nil
}

// finish commits, or undoes everything if err is not nil.
func (c *session) finish(ctx context.Context, item string, err error) error {
	defer c.conn.Close()
	if err == nil {
		c.s.at("commit")
		_, err = c.conn.ExecContext(ctx, "COMMIT")
	}
	if err == nil {
		c.s.at("committed")
		return nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if _, bad := c.conn.ExecContext(undo, "ROLLBACK"); bad != nil {
		_ = c.conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	return c.s.sorted(ctx, item, err)
}

// begin starts a transaction, as soon as the database lets it.
func (s *Storage) begin(ctx context.Context, conn *dbsql.Conn, begin string) error {
	return retry(ctx, s.d.busy, func() error {
		_, err := conn.ExecContext(ctx, begin)
		return err
	})
}

// retry calls f until it fails in another way than that somebody else is in the
// way.
func retry(ctx context.Context, busy func(error) bool, f func() error) error {
	for {
		err := f()
		if err == nil || !busy(err) {
			return err
		}
		pause := time.NewTimer(busyPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}

// sorted gives an error of the database its kind.
func (s *Storage) sorted(ctx context.Context, item string, err error) error {
	var decided *caisson.Error
	if err == nil || errors.As(err, &decided) {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	kind, cause := s.d.explain(err)
	switch {
	case item == "":
		item = s.Name()
	case kind != caisson.ErrInvalid:
		// It is for the operator, who needs to know where.
		cause = fmt.Errorf("%s: %w", s.Name(), cause)
	}
	return &caisson.Error{Item: item, Kind: kind, Err: cause}
}

func invalid(item, format string, args ...any) error {
	return &caisson.Error{Item: item, Kind: caisson.ErrInvalid, Err: fmt.Errorf(format, args...)}
}
