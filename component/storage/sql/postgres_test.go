package sql_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/sql"
)

// TestTypes holds that native types are made, checked, and read as text, and
// that what is empty is null where the type is not text.
func TestTypes(t *testing.T) {
	at := database(t)
	s := open(t, at)
	types := map[string]storage.Type{
		"s": {Base: "STRING", Length: "255"}, "i": {Base: "INTEGER"}, "n": {Base: "NUMERIC", Length: "10,2"}, "f": {Base: "FLOAT"},
		"b": {Base: "BOOLEAN"}, "d": {Base: "DATE"}, "t": {Base: "TIMESTAMP", NotNull: true, Default: "2020-01-01"},
	}
	columns := []string{"s", "i", "n", "f", "b", "d", "t", "x"}
	typed := func(id string, lines ...string) *storage.Load {
		return &storage.Load{ID: id, Table: table, Columns: columns, Types: types, Incremental: true, Slices: []storage.Slice{text("a.csv", lines...)}}
	}
	load(t, s, typed("1", `a,1,1.50,0.1,true,2020-02-29,2020-02-29 12:00:00,y`, `"","","","","","",2021-01-01,""`))
	wantRows(t, s, nil, `"a","1","1.50","0.1","true","2020-02-29","2020-02-29 12:00:00","y"`, `"","","","","","","2021-01-01 00:00:00",""`)
	wantRows(t, s, &storage.Query{Columns: []string{"x"}, WhereColumn: "i", WhereValues: []string{"1", "x"}}, `"y"`)
	admin(t, at, `DO $$ BEGIN ASSERT (SELECT sum(i) = 1 AND count(i) = 1 FROM "in.c-main"."people"); END $$`)

	_, err := s.Load(t.Context(), typed("2", `a,1,1,1,true,2020-01-01,2020-01-01,x`, `a,one,1,1,true,2020-01-01,2020-01-01,x`))
	wantError(t, err, caisson.ErrInvalid, "a.csv: line 2", `column "i"`, `"one"`)
	_, err = s.Load(t.Context(), typed("3", `a,1,1,1,true,2020-01-01,,x`))
	wantError(t, err, caisson.ErrInvalid, `"t"`)
	types["i"] = storage.Type{Base: "FLOAT"}
	_, err = s.Load(t.Context(), typed("4", `a,1,1,1,true,2020-01-01,2020-01-01,x`))
	wantError(t, err, caisson.ErrInvalid, `"i"`, "INTEGER", "FLOAT")
	for _, bad := range []storage.Type{{Base: "VARIANT"}, {Base: "NUMERIC", Length: "1) DEFAULT (1"}} {
		_, err = s.Load(t.Context(), &storage.Load{ID: "5", Table: "in.c-main.other", Columns: []string{"a"}, Types: map[string]storage.Type{"a": bad}})
		wantError(t, err, caisson.ErrInvalid, `"a"`)
	}
}

// TestNameLimit holds that PostgreSQL does not cut names quietly.
func TestNameLimit(t *testing.T) {
	s := open(t, database(t))
	long := strings.Repeat("x", 64)
	for _, l := range []*storage.Load{
		{ID: "1", Table: "in.c-main." + long, Columns: []string{"a"}},
		{ID: "2", Table: "in.c-" + long + ".a", Columns: []string{"a"}},
		{ID: "3", Table: table, Columns: []string{long}},
		{ID: "4", Table: table, Columns: []string{"a"}, AddColumns: []string{strings.Repeat("ř", 32)}},
	} {
		_, err := s.Load(t.Context(), l)
		wantError(t, err, caisson.ErrInvalid, "63", "PostgreSQL")
	}
	load(t, s, &storage.Load{ID: "5", Table: "in.c-main." + long[1:], Columns: []string{long[1:]}, PrimaryKey: []string{long[1:]}})
	for _, id := range []string{"in.c-main." + long, "in.c-" + long + ".a"} {
		_, err := s.Table(t.Context(), id)
		wantError(t, err, caisson.ErrNotFound)
		_, err = s.Export(t.Context(), id, nil)
		wantError(t, err, caisson.ErrNotFound)
	}
}

func TestSystemColumn(t *testing.T) {
	s := open(t, database(t))
	_, err := s.Load(t.Context(), &storage.Load{ID: "1", Table: table, Columns: []string{"ctid"}})
	wantError(t, err, caisson.ErrInvalid, "ctid")
	l := people("3", strings.Repeat("0123456789abcdef", 10_000)+",x")
	l.PrimaryKey = []string{"id"}
	if _, err = s.Load(t.Context(), l); err != nil && !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("a key that is too long: %v", err)
	}
}

// TestManyColumns holds that a table has as many columns as the database can
// take, and that more are the user's error.
func TestManyColumns(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		wide := func(id string, n int) *storage.Load {
			l := &storage.Load{ID: id, Table: "in.c-main.t" + id, PrimaryKey: []string{"c0"}, Incremental: true}
			for i := range n {
				l.Columns = append(l.Columns, fmt.Sprint("c", i))
			}
			l.Slices = []storage.Slice{text("a.csv", strings.Repeat("1,", n-1)+"1")}
			return l
		}
		for _, id := range []string{"1", "2"} {
			l := wide(id, 1500)
			l.Table = table
			if done := load(t, s, l); done.Table.Rows != 1 {
				t.Errorf("%d rows, want 1", done.Table.Rows)
			}
		}
		if got := strings.Count(export(t, s, table, nil), "\"1\""); got != 1500 {
			t.Errorf("%d values come back, want 1500", got)
		}
		_, err := s.Load(t.Context(), wide("3", 2100))
		wantError(t, err, caisson.ErrInvalid, "99 columns")
	})
}

// TestOthersTables holds that tables and views of an operator can be read and
// are never changed.
func TestOthersTables(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, at string) {
		name := `"in.c-crm.customers"`
		if strings.HasPrefix(at, "postgres") {
			name = `"in.c-crm"."customers"`
			admin(t, at, `CREATE SCHEMA "in.c-crm"`)
		}
		run(t, at, "CREATE TABLE "+name+" (id integer, name text)")
		run(t, at, "INSERT INTO "+name+" VALUES (1, 'Anna'), (2, NULL)")
		view := strings.Replace(name, "customers", "named", 1)
		run(t, at, "CREATE VIEW "+view+" AS SELECT id, name FROM "+name+" WHERE name IS NOT NULL")
		if got := export(t, s, "in.c-crm.customers", nil); got != "\"id\",\"name\"\n\"1\",\"Anna\"\n\"2\",\"\"\n" {
			t.Errorf("Export = %q", got)
		}
		if got := export(t, s, "in.c-crm.named", &storage.Query{WhereColumn: "id", WhereValues: []string{"1"}}); got != "\"id\",\"name\"\n\"1\",\"Anna\"\n" {
			t.Errorf("Export of the view = %q", got)
		}
		tables, err := s.Tables(t.Context())
		if err != nil || len(tables) != 2 || tables[0].Rows != -1 || !tables[0].LastImport.IsZero() {
			t.Errorf("Tables = %+v, %v", tables, err)
		}
		_, err = s.Export(t.Context(), "in.c-crm.customers", &storage.Query{ChangedSince: time.Now()})
		wantError(t, err, caisson.ErrUnsupported, "in.c-crm.customers", "changed_since")
		for _, id := range []string{"in.c-crm.customers", "in.c-crm.named"} {
			l := people("1", "3,x")
			l.Table, l.Incremental = id, true
			_, err = s.Load(t.Context(), l)
			wantError(t, err, caisson.ErrDenied, id)
		}
	})
}

// TestOperatorsThings holds that a full load leaves what an operator has put
// onto a table.
func TestOperatorsThings(t *testing.T) {
	at := database(t)
	s := open(t, at)
	load(t, s, people("1", "1,Anna"))
	admin(t, at, `CREATE VIEW public.v AS SELECT name FROM "in.c-main".people`)
	admin(t, at, `CREATE INDEX mine ON "in.c-main".people (name)`)
	load(t, s, people("2", "1,Ben"))
	admin(t, at, `DO $$ BEGIN ASSERT (SELECT name = 'Ben' FROM public.v); ASSERT to_regclass('"in.c-main".mine') IS NOT NULL; END $$`)
	// A row that the operator adds has the time of that.
	before, err := s.Table(t.Context(), table)
	if err != nil {
		t.Fatal(err)
	}
	admin(t, at, `INSERT INTO "in.c-main".people (id, name) VALUES ('9', 'By hand')`)
	wantRows(t, s, &storage.Query{ChangedSince: before.LastImport}, `"9","By hand"`)
	// A table that the operator drops is made anew.
	admin(t, at, `DROP TABLE "in.c-main".people CASCADE`)
	_, err = s.Table(t.Context(), table)
	wantError(t, err, caisson.ErrNotFound)
	if done := load(t, s, people("3", "1,Cleo")); done.Table.Rows != 1 {
		t.Errorf("Loaded = %+v", done)
	}
}

// TestRights holds that errors tell a limited user what it may not do.
func TestRights(t *testing.T) {
	at := database(t)
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	role := fmt.Sprintf("r%d", os.Getpid())
	admin(t, at, "CREATE ROLE "+role+" LOGIN PASSWORD 'pa55word'")
	t.Cleanup(func() { admin(t, at, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
	u.User = url.UserPassword(role, "pa55word")
	limited := open(t, u.String())
	_, err = limited.Load(t.Context(), people("1", "1,Anna"))
	wantError(t, err, caisson.ErrDenied, "permission denied for database")
	_, err = limited.Export(t.Context(), table, nil)
	wantError(t, err, caisson.ErrNotFound)

	s := open(t, at)
	load(t, s, people("1", "1,Anna"))
	_, err = limited.Export(t.Context(), table, nil)
	wantError(t, err, caisson.ErrDenied, `schema in.c-main`)
	admin(t, at, `GRANT USAGE ON SCHEMA "in.c-main", caisson TO `+role+`; GRANT SELECT ON ALL TABLES IN SCHEMA "in.c-main", caisson TO `+role)
	wantRows(t, limited, nil, `"1","Anna"`)
	_, err = limited.Load(t.Context(), people("2", "1,Anna"))
	wantError(t, err, caisson.ErrDenied, "permission denied for table")
	_, err = limited.PutDocument(t.Context(), "a", nil, "")
	wantError(t, err, caisson.ErrDenied, "documents")
	_, err = limited.PutFile(t.Context(), &storage.NewFile{Name: "a"}, bytes.NewReader([]byte("a")))
	wantError(t, err, caisson.ErrDenied, "chunks")

	admin(t, at, "ALTER ROLE "+role+" SET default_transaction_read_only = on")
	_, err = open(t, u.String()).Load(t.Context(), people("2", "1,Anna"))
	wantError(t, err, caisson.ErrDenied, "only be read")
}

// TestNoCredentials holds that no error and no name shows them.
func TestNoCredentials(t *testing.T) {
	at, err := url.Parse(server(t))
	if err != nil {
		t.Fatal(err)
	}
	hidden := []string{"us3rname", "s3cret", "an0ther", "pw="}
	for _, text := range []string{
		"postgres://us3rname:s3cret@" + at.Host + "/nothing?sslmode=disable",
		"postgres://us3rname:s3cret@127.0.0.1:1/db?password=an0ther",
		"postgres://us3rname:s3cret@127.0.0.1:1/db?sslmode=s3cret",
		"postgres://us3rname:s3cret@host:port:7/db",
		"postgres://us3rname:s3cret%zz@host/db",
		"postgres://us3rname:s3cret@127.0.0.1:1/db?connect_timeout=s3cret",
		"postgresql://127.0.0.1:1/db?user=us3rname&password=s3cret&sslkey=/pw=",
	} {
		s, err := sql.New(text, nil)
		shown := ""
		if err == nil {
			_, err = s.Tables(t.Context())
			shown = s.Name()
			_ = s.Close()
		}
		if err == nil {
			t.Errorf("%s: no error", text)
			continue
		}
		for _, h := range hidden {
			if strings.Contains(shown+err.Error(), h) {
				t.Errorf("%q shows %q: %q, %q", text, h, shown, err)
			}
		}
	}
}

// TestSilentServer holds that a server that accepts and says nothing is
// unavailable, and that the error shows no credentials.
func TestSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := open(t, "postgres://us3rname:s3cret@"+l.Addr().String()+"/db?sslmode=disable&connect_timeout=1")
	_, err = s.Tables(t.Context())
	wantError(t, err, caisson.ErrUnavailable, "does not answer")
	if strings.Contains(err.Error(), "us3rname") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the error shows credentials: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Tables(ctx); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "us3rname") {
		t.Errorf("cancelled: %v", err)
	}
}

// TestConnectionLost holds that a load whose connection ends is unavailable,
// leaves nothing, and can be repeated.
func TestConnectionLost(t *testing.T) {
	at := database(t)
	for _, incremental := range []bool{false, true} {
		for _, step := range []string{"prepared", "deleted", "slice", "filled", "commit"} {
			t.Run(fmt.Sprintf("%s_%v", step, incremental), func(t *testing.T) {
				admin(t, at, dropAll)
				s := open(t, at)
				load(t, s, people("1", "1,Anna"))
				s.SetStep(func(name string) {
					if name == step {
						s.SetStep(nil)
						admin(t, at, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'caisson' AND state LIKE '%in transaction%'")
					}
				})
				l := people("2", "2,Ben")
				l.Incremental = incremental
				_, err := s.Load(t.Context(), l)
				wantError(t, err, caisson.ErrUnavailable)
				wantRows(t, s, nil, `"1","Anna"`)
				if done := load(t, s, l); done.Again {
					t.Error("the load was done")
				}
			})
		}
	}
}

// TestCancelled holds that a load that is cancelled ends with the context's
// error and leaves nothing.
func TestCancelled(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		load(t, s, people("1", "1,Anna"))
		for _, step := range []string{"bucket", "prepared", "slice", "filled"} {
			ctx, cancel := context.WithCancel(t.Context())
			s.SetStep(func(name string) {
				if name == step {
					cancel()
				}
			})
			_, err := s.Load(ctx, people("2", "2,Ben"))
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Load that is cancelled at %s = %v", step, err)
			}
			cancel()
			s.SetStep(nil)
			wantRows(t, s, nil, `"1","Anna"`)
		}
		load(t, s, people("2", "2,Ben"))
	})
}

// TestNewerCatalog holds that what a newer Caisson made is not touched.
func TestNewerCatalog(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, at string) {
		load(t, s, people("1", "1,Anna"))
		versions := "caisson_versions"
		if strings.HasPrefix(at, "postgres") {
			versions = "caisson.versions"
		}
		run(t, at, fmt.Sprintf("INSERT INTO %s VALUES (%d, 0)", versions, s.Migrations()+1))
		again := open(t, at)
		_, err := again.Load(t.Context(), people("2", "1,Anna"))
		wantError(t, err, caisson.ErrUnsupported, "newer")
		_, err = again.Tables(t.Context())
		wantError(t, err, caisson.ErrUnsupported, "newer")
	})
}

// TestMigration holds that a later version brings the catalog up to date once,
// whole or not at all, and that what is in it stays.
func TestMigration(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, at string) {
		load(t, s, people("1", "1,Anna"))
		half := "CREATE TABLE caisson_half (a integer)"
		if strings.HasPrefix(at, "postgres") {
			half = "CREATE TABLE caisson.half (a integer)"
		}
		broken := open(t, at)
		broken.Migrate(half, "CREATE NONSENSE")
		if _, err := broken.Load(t.Context(), people("2", "2,Ben")); err == nil {
			t.Error("a migration that fails has no error")
		}
		later := open(t, at)
		later.Migrate(half)
		wantRows(t, later, nil, `"1","Anna"`)
		if !load(t, later, people("1", "1,Anna")).Again {
			t.Error("the migration forgot a load")
		}
		again := open(t, at)
		again.Migrate(half)
		load(t, again, people("2", "2,Ben"))
		wantRows(t, again, nil, `"2","Ben"`)
		_, err := open(t, at).Tables(t.Context())
		wantError(t, err, caisson.ErrUnsupported, "newer")
	})
}

// TestForeignKey holds that a table that an operator's refers to is still
// loaded, as far as the operator's key lets it.
func TestForeignKey(t *testing.T) {
	at := database(t)
	s := open(t, at)
	l := people("1", "1,Anna")
	l.PrimaryKey = []string{"id"}
	load(t, s, l)
	admin(t, at, `CREATE TABLE public.orders (person text REFERENCES "in.c-main".people (id) DEFERRABLE INITIALLY DEFERRED)`)
	admin(t, at, `INSERT INTO public.orders VALUES ('1')`)
	load(t, s, people("2", "1,Ben", "2,Cleo"))
	wantRows(t, s, nil, `"1","Ben"`, `"2","Cleo"`)
	_, err := s.Load(t.Context(), people("3", "2,Cleo"))
	wantError(t, err, caisson.ErrInvalid, "foreign key")
	wantRows(t, s, nil, `"1","Ben"`, `"2","Cleo"`)
}

func TestUnknownURL(t *testing.T) {
	for _, text := range []string{"", "mysql://host/db", "sqlite:", "postgres://", "/a/file"} {
		_, err := sql.New(text, nil)
		wantError(t, err, caisson.ErrInvalid)
	}
}
