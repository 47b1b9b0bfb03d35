package sql_test

import (
	"bytes"
	"context"
	dbsql "database/sql"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/sql"
)

// serverVariable names the PostgreSQL that these tests run against: see
// scripts/services.
const serverVariable = "CAISSON_TEST_POSTGRES"

// TestMain lets this program be a loader that is killed.
func TestMain(m *testing.M) {
	if os.Getenv(killVariable) != "" {
		loadUntilKilled()
	}
	os.Exit(m.Run())
}

// server returns the URL of the server, and skips where there can't be one.
func server(t testing.TB) string {
	t.Helper()
	text := os.Getenv(serverVariable)
	if text == "" {
		if os.Geteuid() != 0 {
			t.Skipf("%s is not set, and an ordinary user has no server for tests", serverVariable)
		}
		t.Fatalf("%s is not set: scripts/services run starts a server for tests", serverVariable)
	}
	return text
}

// admin runs a statement on a database of the server.
func admin(t testing.TB, database, statement string) {
	t.Helper()
	db, err := dbsql.Open("pgx", database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(context.WithoutCancel(t.Context()), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// run runs a statement on a storage's database, as an operator would.
func run(t testing.TB, at, statement string) {
	t.Helper()
	if strings.HasPrefix(at, "postgres") {
		admin(t, at, statement)
		return
	}
	db, err := dbsql.Open("sqlite", strings.TrimPrefix(at, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// database makes a database that ends with the test, and returns its URL.
func database(t testing.TB) string {
	t.Helper()
	at := server(t)
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	hash := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(t.Name()))
	name := fmt.Sprintf("t%d%.40s", os.Getpid(), hash)
	admin(t, at, "CREATE DATABASE "+name)
	t.Cleanup(func() { admin(t, at, "DROP DATABASE "+name+" WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}

// A kind is one of the databases.
type kind struct {
	name string
	url  func(t testing.TB) string
}

var kinds = []kind{
	{"sqlite", func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "storage.db") }},
	{"postgres", database},
}

// each runs a test on every database.
func each(t *testing.T, f func(t *testing.T, s *sql.Storage, url string)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			at := k.url(t)
			f(t, open(t, at), at)
		})
	}
}

func open(t testing.TB, at string) *sql.Storage {
	t.Helper()
	s := unclosed(t, at)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return s
}

// unclosed is open for those who close the storage themselves.
func unclosed(t testing.TB, at string) *sql.Storage {
	t.Helper()
	s, err := sql.New(at, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// text is a slice with these lines.
func text(name string, lines ...string) storage.Slice {
	var data string
	for _, line := range lines {
		data += line + "\n"
	}
	return storage.Slice{
		Name: name, Size: int64(len(data)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(data)), nil },
	}
}

const table = "in.c-main.people"

// people is a load of id and name.
func people(id string, lines ...string) *storage.Load {
	return &storage.Load{ID: id, Table: table, Columns: []string{"id", "name"}, Slices: []storage.Slice{text("people.csv", lines...)}}
}

func load(t testing.TB, s *sql.Storage, l *storage.Load) *storage.Loaded {
	t.Helper()
	done, err := s.Load(t.Context(), l)
	if err != nil {
		t.Fatalf("Load(%s) = %v", l.ID, err)
	}
	return done
}

// export returns the answer to a query.
func export(t testing.TB, s *sql.Storage, id string, q *storage.Query) string {
	t.Helper()
	e, err := s.Export(t.Context(), id, q)
	if err != nil {
		t.Fatalf("Export(%s) = %v", id, err)
	}
	defer e.Close()
	var b bytes.Buffer
	if _, err := e.WriteTo(&b); err != nil {
		t.Fatalf("WriteTo(%s) = %v", id, err)
	}
	return b.String()
}
