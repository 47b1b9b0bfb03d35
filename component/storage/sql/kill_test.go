package sql_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/sql"
	"github.com/caissonrun/caisson/internal/slowtest"
)

// A child loads what these name, and kills itself at the step of that number.
const (
	killVariable = "CAISSON_TEST_SQL_KILL"
	workVariable = "CAISSON_TEST_SQL_WORK"
	urlVariable  = "CAISSON_TEST_SQL_URL"
)

// killedRows is enough that rows are on their way to the server in several
// pieces.
const killedRows = 6_000

// A work is a load that is killed.
type work struct {
	name   string
	before []string // rows that are there
	key    []string
	// after is how many rows there are in the end.
	after int
	more  bool
	file  bool
}

var works = []work{
	{name: "create", after: killedRows},
	{name: "replace", before: []string{"old,1"}, key: []string{"id"}, after: killedRows},
	{name: "append", before: []string{"old,1"}, after: killedRows + 1, more: true},
	{name: "merge", before: []string{"old,1", "row 1,changed"}, key: []string{"id"}, after: killedRows + 1, more: true},
	{name: "file", file: true},
}

// do is the load, with at told before each of its parts.
func (w *work) do(ctx context.Context, s *sql.Storage, at func(string)) (again bool, err error) {
	if w.file {
		contents := &told{r: bytes.NewReader(bytes.Repeat([]byte("x"), 3<<20)), at: at}
		f, err := s.PutFile(ctx, &storage.NewFile{Load: "killed", Name: "f", Tags: []string{"a", "b"}}, contents)
		if err == nil && f.Size != 3<<20 {
			err = fmt.Errorf("the file has %d bytes", f.Size)
		}
		return contents.n == 0, err
	}
	l := people("killed")
	l.PrimaryKey, l.Incremental = w.key, w.more
	l.Slices = []storage.Slice{text("small.csv", "row 0,0"), {Name: "large.csv", Size: -1, Open: func() (io.ReadCloser, error) {
		var b strings.Builder
		for i := range killedRows - 1 {
			fmt.Fprintf(&b, "row %d,\"%0200d\"\n", i+1, i)
		}
		return io.NopCloser(&told{r: strings.NewReader(b.String()), at: at}), nil
	}}}
	done, err := s.Load(ctx, l)
	return err == nil && done.Again, err
}

// middle is after the first piece of the data and before the last.
const middle = 700 << 10

// A told reader tells at when it is in the middle.
type told struct {
	r  io.Reader
	n  int64
	at func(string)
}

func (r *told) Read(p []byte) (int, error) {
	if before := r.n; before < middle && before+int64(len(p)) >= middle {
		r.at("reading")
	}
	n, err := r.r.Read(p)
	r.n += int64(n)
	return n, err
}

// loadUntilKilled is the child.
func loadUntilKilled() {
	left, err := strconv.Atoi(os.Getenv(killVariable))
	if err != nil {
		panic(err)
	}
	s, err := sql.New(os.Getenv(urlVariable), nil)
	if err != nil {
		panic(err)
	}
	at := func(string) {
		if left--; left != 0 {
			return
		}
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Kill()
		}
		if err != nil {
			panic(err)
		}
		select {}
	}
	s.SetStep(at)
	for i := range works {
		if works[i].name == os.Getenv(workVariable) {
			if _, err := works[i].do(context.Background(), s, at); err != nil {
				panic(err)
			}
		}
	}
	os.Exit(0)
}

// child runs the work in a process of its own and reports whether it was killed.
func (w *work) child(t *testing.T, at string, step int) bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), killVariable+"="+strconv.Itoa(step), workVariable+"="+w.name, urlVariable+"="+at)
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) > 0 {
		t.Fatalf("the child: %v\n%s", err, out)
	}
	return err != nil
}

// TestKilled kills a loader at every step: what is there is the old or the new,
// and who repeats the load ends with the new, loaded once.
func TestKilled(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			for i := range works {
				w := &works[i]
				t.Run(w.name, func(t *testing.T) {
					if w.name != "merge" { // which has the others' steps
						slowtest.Skip(t)
					}
					at := k.url(t)
					steps := 0
					for w.killed(t, at, steps+1) {
						steps++
					}
					if steps < 4 {
						t.Errorf("there were only %d steps", steps)
					}
				})
			}
		})
	}
}

// killed kills the work at one step, and reports whether there is such a step.
func (w *work) killed(t *testing.T, at string, step int) bool {
	t.Helper()
	s := open(t, at)
	w.reset(t, s, at)
	was := w.state(t, s)
	if !w.child(t, at, step) {
		return false
	}
	is := w.state(t, s)
	again, err := w.do(t.Context(), s, func(string) {})
	if err != nil {
		t.Fatalf("killed at step %d: repeated: %v", step, err)
	}
	becomes := w.state(t, s)
	switch is {
	case was:
		if again {
			t.Errorf("killed at step %d: the load is said to be done, and it was not: %s", step, is)
		}
	case becomes:
		if !again {
			t.Errorf("killed at step %d: the load was done twice: %s", step, is)
		}
	default:
		t.Errorf("killed at step %d: there is %s, neither the old (%s) nor the new (%s)", step, is, was, becomes)
	}
	if !w.file && !strings.HasPrefix(becomes, fmt.Sprintf("%d rows", w.after)) {
		t.Errorf("killed at step %d: in the end there is %s, want %d rows", step, becomes, w.after)
	}
	return true
}

// reset makes what is there before.
func (w *work) reset(t *testing.T, s *sql.Storage, at string) {
	t.Helper()
	load(t, s, people("")) // so that there is a catalog
	schema := "caisson_"
	if strings.HasPrefix(at, "postgres") {
		schema = "caisson."
		run(t, at, `DROP TABLE IF EXISTS "in.c-main".people`)
	} else {
		run(t, at, `DROP TABLE IF EXISTS "in.c-main.people"`)
	}
	for _, table := range []string{"tables", "loads", "files", "file_tags", "chunks"} {
		run(t, at, "DELETE FROM "+schema+table)
	}
	if w.before != nil {
		l := people("before", w.before...)
		l.PrimaryKey = w.key
		load(t, s, l)
	}
}

// state is what somebody sees who looks.
func (w *work) state(t *testing.T, s *sql.Storage) string {
	t.Helper()
	if w.file {
		files, err := s.Files(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("%d files", len(files))
		for _, f := range files {
			text += fmt.Sprintf(" %s %q %d", f.Name, f.Tags, f.Size)
		}
		return text
	}
	info, err := s.Table(t.Context(), table)
	if errors.Is(err, caisson.ErrNotFound) {
		return "no table"
	}
	if err != nil {
		t.Fatal(err)
	}
	rows := export(t, s, table, nil)
	return fmt.Sprintf("%d rows, %d bytes, key %q, loaded %v", info.Rows, len(rows), info.PrimaryKey, info.LastImport.UnixMicro())
}
