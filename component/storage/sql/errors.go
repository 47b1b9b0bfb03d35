package sql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/caissonrun/caisson"
)

// pgKinds are kinds by codes of PostgreSQL's appendix A: a whole code, or the
// two characters of its class. A code comes before its class. What is empty
// keeps the server's text.
var pgKinds = []struct {
	code string
	kind caisson.Kind
	text string
}{
	{"0A", caisson.ErrUnsupported, ""},
	{"08", caisson.ErrUnavailable, "the connection to the database was lost"},
	{"22", caisson.ErrInvalid, ""},
	{"23", caisson.ErrInvalid, ""},
	{"25006", caisson.ErrDenied, "the database, or this user's transactions, can only be read"},
	{"28", caisson.ErrDenied, "the server refuses this user or password"},
	{"2BP01", caisson.ErrDenied, ""}, // something of an operator depends on it
	{"3F000", caisson.ErrNotFound, ""},
	{"3D000", caisson.ErrNotFound, "there is no such database on the server"},
	{"40", caisson.ErrUnavailable, ""}, // deadlock, serialization
	{"42501", caisson.ErrDenied, ""},
	{"42P01", caisson.ErrNotFound, ""},
	{"42622", caisson.ErrInvalid, ""}, // name too long
	{"42701", caisson.ErrInvalid, ""}, // name of a system column
	{"42804", caisson.ErrInvalid, ""}, // default of another type
	{"53", caisson.ErrExhausted, ""},
	{"54", caisson.ErrInvalid, ""}, // too many columns, row or key too large
	{"55P03", caisson.ErrUnavailable, ""},
	{"57014", caisson.ErrUnavailable, ""}, // statement_timeout
	{"57", caisson.ErrUnavailable, ""},    // the server is going down or coming up
	{"58030", caisson.ErrUnavailable, ""},
}

// explain implements dialect.
func (p *postgres) explain(err error) (caisson.Kind, error) {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		kind, text := explainCode(server.Code)
		if text == "" {
			text = server.Message
		}
		return kind, fmt.Errorf("%s (code %s)", text, server.Code)
	}
	// The text of a failed connection names the user.
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) && errors.Is(err, context.DeadlineExceeded) {
		return caisson.ErrUnavailable, errors.New("no connection to the database: the server does not answer")
	}
	if connect != nil {
		return caisson.ErrUnavailable, fmt.Errorf("no connection to the database: %w", cause(connect))
	}
	if lost(err) {
		return caisson.ErrUnavailable, errors.New("the connection to the database was lost")
	}
	return caisson.ErrUnknown, err
}

func explainCode(code string) (caisson.Kind, string) {
	for _, exact := range []bool{true, false} {
		for _, k := range pgKinds {
			if k.code == code || !exact && len(k.code) == 2 && strings.HasPrefix(code, k.code) {
				return k.kind, k.text
			}
		}
	}
	return caisson.ErrUnknown, ""
}

// cause returns the innermost error, which names no user: what the operating
// system said, or TLS.
func cause(err error) error {
	for {
		var next error
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			next = e.Unwrap()
		case interface{ Unwrap() []error }:
			if all := e.Unwrap(); len(all) > 0 {
				next = all[len(all)-1]
			}
		}
		if next == nil {
			return err
		}
		err = next
	}
}

// lost tells that the connection is gone.
func lost(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, driver.ErrBadConn) ||
		strings.HasSuffix(err.Error(), "conn closed")
}

// sqliteKinds are kinds by SQLite's primary result codes.
var sqliteKinds = []struct {
	code int
	kind caisson.Kind
}{
	{lib.SQLITE_PERM, caisson.ErrDenied},
	{lib.SQLITE_READONLY, caisson.ErrDenied},
	{lib.SQLITE_AUTH, caisson.ErrDenied},
	{lib.SQLITE_CANTOPEN, caisson.ErrDenied},
	{lib.SQLITE_BUSY, caisson.ErrUnavailable},
	{lib.SQLITE_LOCKED, caisson.ErrUnavailable},
	{lib.SQLITE_IOERR, caisson.ErrUnavailable},
	{lib.SQLITE_PROTOCOL, caisson.ErrUnavailable},
	{lib.SQLITE_NOMEM, caisson.ErrExhausted},
	{lib.SQLITE_FULL, caisson.ErrExhausted},
	{lib.SQLITE_TOOBIG, caisson.ErrInvalid},
	{lib.SQLITE_CONSTRAINT, caisson.ErrInvalid},
	{lib.SQLITE_MISMATCH, caisson.ErrInvalid},
	{lib.SQLITE_NOTADB, caisson.ErrInvalid},
	{lib.SQLITE_CORRUPT, caisson.ErrInvalid},
}

// explain implements dialect.
func (q *lite) explain(err error) (caisson.Kind, error) {
	var answer *sqlite.Error
	if !errors.As(err, &answer) {
		return caisson.ErrUnknown, err
	}
	for _, k := range sqliteKinds {
		if answer.Code()&0xff == k.code {
			return k.kind, err
		}
	}
	return caisson.ErrUnknown, err
}
