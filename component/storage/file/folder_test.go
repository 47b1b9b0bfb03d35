//go:build unix

package file_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/file"
	"github.com/caissonrun/caisson/component/storage/storagetest"
)

const people = "in.c-main.people"

// add is a load of rows "id|name" that stay beside those that are there.
func add(id, rows string) *storage.Load {
	return &storage.Load{
		ID: id, Table: people, Columns: []string{"id", "name"}, Incremental: true,
		Slices: []storage.Slice{storagetest.Slice("rows.csv", []byte(rows))},
	}
}

func do(t *testing.T, s storage.Storage, l *storage.Load) *storage.Loaded {
	t.Helper()
	done, err := s.Load(t.Context(), l)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return done
}

func export(t *testing.T, s storage.Storage, q *storage.Query) string {
	t.Helper()
	x, err := s.Export(t.Context(), people, q)
	if err != nil {
		t.Fatalf("Export: %v", err)
	}
	defer x.Close()
	var b bytes.Buffer
	if _, err := x.WriteTo(&b); err != nil {
		t.Fatalf("WriteTo: %v", err)
	}
	return b.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	// As an editor does it: a new file in the place of the old one.
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// People find tables and files as files.
func TestReadable(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	defer s.Close()
	do(t, s, add("1", "1,Ada\n"))
	do(t, s, add("2", "2,\"Bob \"\"B\"\"\"\n"))
	want := "\"id\",\"name\"\n\"1\",\"Ada\"\n\"2\",\"Bob \"\"B\"\"\"\n"
	if got := read(t, filepath.Join(dir, "in/c-main/people.csv")); got != want {
		t.Errorf("people.csv holds %q, want %q", got, want)
	}
	if got := read(t, filepath.Join(dir, "in/c-main/people.json")); !strings.Contains(got, `"id": "in.c-main.people"`) {
		t.Errorf("people.json holds %q", got)
	}
	if _, err := s.PutFile(t.Context(), &storage.NewFile{Load: "f", Name: "../a b/ü.txt", Tags: []string{"x"}}, strings.NewReader("hello")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, "files/1_.._a_b_ü.txt")); got != "hello" {
		t.Errorf("the file holds %q", got)
	}
	if got := read(t, filepath.Join(dir, "files/1.json")); !strings.Contains(got, `"../a b/ü.txt"`) {
		t.Errorf("its description is %q", got)
	}
}

// A storage that nobody has written to is not made.
func TestNotMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := open(t, dir, nil)
	if list, err := s.Tables(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("Tables = %v, %v", list, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat = %v, want that it is not there", err)
	}
}

// A CSV that people put there is a table, and one in the place of a table is
// that table from then on.
func TestPeoplesOwn(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	defer s.Close()
	path := filepath.Join(dir, "in/c-main/people.csv")
	write(t, path, "\xef\xbb\xbfid,name\r\n1,Ada\r\n2,\"Bob\"\r\n")
	table, err := s.Table(t.Context(), people)
	if err != nil || fmt.Sprint(table.Columns) != "[id name]" || table.Rows != -1 {
		t.Fatalf("Table = %+v, %v", table, err)
	}
	if list, err := s.Tables(t.Context()); err != nil || len(list) != 1 || list[0].ID != people {
		t.Errorf("Tables = %+v, %v", list, err)
	}
	if got, want := export(t, s, nil), "\"id\",\"name\"\n\"1\",\"Ada\"\n\"2\",\"Bob\"\n"; got != want {
		t.Errorf("Export = %q, want %q", got, want)
	}
	l := add("1", "2,Bill\n3,Cyd\n")
	l.PrimaryKey, l.SetPrimaryKey = []string{"id"}, true
	do(t, s, l)
	want := "\"id\",\"name\"\n\"1\",\"Ada\"\n\"2\",\"Bill\"\n\"3\",\"Cyd\"\n"
	if got := export(t, s, nil); got != want {
		t.Errorf("after a load: %q, want %q", got, want)
	}
	// The rows that people wrote were changed when their file was.
	if got := export(t, s, &storage.Query{ChangedSince: table.LastImport}); strings.Contains(got, "Ada") || !strings.Contains(got, "Bill") {
		t.Errorf("changed since: %q", got)
	}

	write(t, path, "name,id,city\nZoe,9,Rome\n")
	table, err = s.Table(t.Context(), people)
	if err != nil || fmt.Sprint(table.Columns, table.PrimaryKey) != "[name id city] [id]" {
		t.Fatalf("Table = %+v, %v", table, err)
	}
	if !do(t, s, l).Again {
		t.Error("a load that was done is done again because people changed the table")
	}
	l = add("2", "9,Zoe\n10,Yan\n")
	l.AddColumns = []string{"city"}
	do(t, s, l)
	if got, want := export(t, s, nil), "\"name\",\"id\",\"city\"\n\"Zoe\",\"9\",\"\"\n\"Yan\",\"10\",\"\"\n"; got != want {
		t.Errorf("after a load: %q, want %q", got, want)
	}

	for text, want := range map[string]string{"": "no header", "a,a\n": "twice", "a,\"b\n": "does not end", "a\nb,c\n": "line 2"} {
		write(t, path, text)
		x, err := s.Export(t.Context(), people, nil)
		if err == nil {
			_, err = x.WriteTo(io.Discard)
			x.Close()
		}
		if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("with %q: %v, want ErrInvalid with %q", text, err, want)
		}
	}
}

// Removing both files removes the table.
func TestRemoved(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	defer s.Close()
	do(t, s, add("1", "1,Ada\n"))
	for _, name := range []string{"people.csv", "people.json"} {
		if err := os.Remove(filepath.Join(dir, "in/c-main", name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Table(t.Context(), people); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Table = %v, want ErrNotFound", err)
	}
	do(t, s, add("1", "2,Bob\n"))
	if got := export(t, s, nil); strings.Contains(got, "Ada") {
		t.Errorf("rows of the table that was removed are back: %q", got)
	}
	if left, err := leftover(dir); err != nil || len(left) != 1 { // s is open: its lock
		t.Errorf("left is %q, %v", left, err)
	}
}

// Where people removed what is hidden, or copied what they see alone, the table
// is what they see.
func TestHiddenRemoved(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	defer s.Close()
	l := add("1", "1,Ada\n")
	l.PrimaryKey = []string{"id"}
	do(t, s, l)
	do(t, s, add("2", "2,Bob\n"))
	if err := os.RemoveAll(filepath.Join(dir, "in/c-main/.people")); err != nil {
		t.Fatal(err)
	}
	if got, want := export(t, s, nil), "\"id\",\"name\"\n\"1\",\"Ada\"\n\"2\",\"Bob\"\n"; got != want {
		t.Errorf("Export = %q, want %q", got, want)
	}
	if !do(t, s, add("2", "2,Bob\n")).Again {
		t.Error("a load is forgotten")
	}
	do(t, s, add("3", "2,Bill\n"))
	if got, want := export(t, s, nil), "\"id\",\"name\"\n\"1\",\"Ada\"\n\"2\",\"Bill\"\n"; got != want {
		t.Errorf("Export = %q, want %q", got, want)
	}
}

// An Export's file stays, with the same contents, until the Export is closed,
// and goes with the next load after that.
func TestHeld(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir, nil), open(t, dir, nil)
	defer s.Close()
	defer other.Close()
	do(t, s, add("1", "1,Ada\n"))
	x, err := s.Export(t.Context(), people, nil)
	if err != nil || x.File == "" {
		t.Fatalf("Export = %+v, %v, want one with a File", x, err)
	}
	want := read(t, x.File)
	do(t, other, add("2", "2,Bob\n"))
	do(t, s, add("3", "3,Cyd\n"))
	if got := read(t, x.File); got != want {
		t.Errorf("File holds %q, want %q", got, want)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
	do(t, other, add("4", "4,Dan\n"))
	if _, err := os.Stat(x.File); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat = %v, want that the version is gone", err)
	}
}

// What is stored can't be written to by who gets it as it is.
func TestNotWritable(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	defer s.Close()
	do(t, s, add("1", "1,Ada\n"))
	info, err := os.Stat(filepath.Join(dir, "in/c-main/people.csv"))
	if err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("mode = %v, %v, want 0444", info.Mode(), err)
	}
}

// Versions of the same size that are written at the same moment are told apart.
func TestSameSize(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	defer s.Close()
	for i := range 20 {
		l := add(fmt.Sprint(i), fmt.Sprintf("%d,x\n", i%10))
		l.Incremental = false
		do(t, s, l)
		if got := read(t, filepath.Join(dir, "in/c-main/people.csv")); !strings.Contains(got, fmt.Sprintf("\"%d\"", i%10)) {
			t.Fatalf("after load %d people see %q", i, got)
		}
	}
}

// A load that changes nothing keeps the version.
func TestNothingChanged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	defer s.Close()
	l := add("1", "1,Ada\n2,Bob\n")
	l.PrimaryKey = []string{"id"}
	do(t, s, l)
	before, err := os.Stat(filepath.Join(dir, "in/c-main/people.csv"))
	if err != nil {
		t.Fatal(err)
	}
	do(t, s, add("2", "2,Bob\n"))
	after, err := os.Stat(filepath.Join(dir, "in/c-main/people.csv"))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("people.csv is another file, %v", err)
	}
}

// A load is remembered when others came after it.
func TestRemembered(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.Close()
	do(t, s, add("first", "1,Ada\n"))
	for i := range 20 {
		do(t, s, add(fmt.Sprint(i), ""))
	}
	if !do(t, s, add("first", "1,Ada\n")).Again {
		t.Error("a load was forgotten after 20 others")
	}
}

// A cancelled load leaves nothing.
func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	do(t, s, add("1", "1,Ada\n"))
	ctx, cancel := context.WithCancel(t.Context())
	l := add("2", "")
	l.Slices = append(l.Slices, storage.Slice{Name: "endless", Open: func() (io.ReadCloser, error) {
		return io.NopCloser(&endless{stop: cancel}), nil
	}})
	if _, err := s.Load(ctx, l); !errors.Is(err, context.Canceled) {
		t.Errorf("Load = %v, want Canceled", err)
	}
	if got := export(t, s, nil); got != "\"id\",\"name\"\n\"1\",\"Ada\"\n" {
		t.Errorf("Export = %q", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, err := leftover(dir); err != nil || len(left) > 0 {
		t.Errorf("left is %q, %v", left, err)
	}
}

// Who gives up waiting for another load is not told that something exists.
func TestWaitCancelled(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	defer s.Close()
	do(t, s, add("1", "1,Ada\n"))
	inside, leave := make(chan struct{}), make(chan struct{})
	slow := add("2", "")
	slow.Slices = []storage.Slice{{Name: "slow", Open: func() (io.ReadCloser, error) {
		close(inside)
		<-leave
		return io.NopCloser(strings.NewReader("2,Bob\n")), nil
	}}}
	done := make(chan error)
	go func() {
		_, err := s.Load(context.Background(), slow)
		done <- err
	}()
	<-inside
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	other := open(t, dir, nil)
	defer other.Close()
	if _, err := other.Load(ctx, add("3", "3,Cyd\n")); !errors.Is(err, context.Canceled) || errors.Is(err, caisson.ErrExists) {
		t.Errorf("Load = %v, want Canceled", err)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// endless is rows without an end, that stop is called in.
type endless struct {
	stop func()
	n    int
}

func (r *endless) Read(p []byte) (int, error) {
	if r.n++; r.n == 10 {
		r.stop()
	}
	row := []byte("1,x\n")
	p = p[:len(p)/len(row)*len(row)]
	copy(p, bytes.Repeat(row, len(p)/len(row)))
	return len(p), nil
}

// A version of the format that is not known is refused, and left alone.
func TestNewer(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	defer s.Close()
	do(t, s, add("1", "1,Ada\n"))
	path := filepath.Join(dir, "in/c-main/people.json")
	text := strings.Replace(read(t, path), `"format": 1`, `"format": 2`, 1)
	write(t, path, text)
	if _, err := s.Table(t.Context(), people); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Table = %v, want ErrUnsupported", err)
	}
	if _, err := s.Load(t.Context(), add("2", "2,Bob\n")); !errors.Is(err, caisson.ErrUnsupported) || read(t, path) != text {
		t.Errorf("Load = %v, want ErrUnsupported and nothing changed", err)
	}
	write(t, path, "{")
	if _, err := s.Table(t.Context(), people); !errors.Is(err, caisson.ErrInternal) {
		t.Errorf("Table = %v, want ErrInternal", err)
	}
}

func TestErrors(t *testing.T) {
	taken := filepath.Join(t.TempDir(), "taken")
	write(t, taken, "x")
	s := open(t, taken, nil)
	defer s.Close()
	if _, err := s.Load(t.Context(), add("1", "1,Ada\n")); !errors.Is(err, caisson.ErrInvalid) || strings.Count(err.Error(), taken) != 1 {
		t.Errorf("Load = %v, want ErrInvalid that names the file once", err)
	}
	if os.Getuid() == 0 {
		return // nothing is denied to root
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, nil)
	defer s.Close()
	if _, err := s.Load(t.Context(), add("1", "1,Ada\n")); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("Load = %v, want ErrDenied", err)
	}
}

// Times of a clock that goes back still tell what is new.
func TestClock(t *testing.T) {
	now := time.Now()
	s := open(t, t.TempDir(), &file.Options{Now: func() time.Time { now = now.Add(-time.Hour); return now }})
	defer s.Close()
	first := do(t, s, add("1", "1,Ada\n")).Table.LastImport
	do(t, s, add("2", "2,Bob\n"))
	if got := export(t, s, &storage.Query{ChangedSince: first}); got != "\"id\",\"name\"\n\"2\",\"Bob\"\n" {
		t.Errorf("changed since the first load: %q", got)
	}
}

// What is left of a file that nobody adds any more goes after a day, when the
// next one is added; what somebody may still be adding does not.
func TestFileLeft(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	s := open(t, dir, &file.Options{Now: func() time.Time { return now }})
	defer s.Close()
	adding := make(chan struct{})
	done := make(chan error)
	r, w := io.Pipe()
	go func() {
		close(adding)
		_, err := s.PutFile(context.Background(), &storage.NewFile{Load: "slow", Name: "slow"}, r)
		done <- err
	}()
	<-adding
	w.Write([]byte("x")) // its claim is there when the first byte is taken
	put := func(name string) {
		if _, err := s.PutFile(t.Context(), &storage.NewFile{Load: name, Name: name}, strings.NewReader(name)); err != nil {
			t.Fatal(err)
		}
	}
	put("second")
	if _, err := os.Stat(filepath.Join(dir, "files/1.json")); err != nil {
		t.Errorf("a file that is being added is taken back: %v", err)
	}
	now = now.Add(25 * time.Hour)
	put("third")
	if _, err := os.Stat(filepath.Join(dir, "files/1.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat = %v, want that what is left of the first is gone", err)
	}
	w.Close()
	if err := <-done; !errors.Is(err, caisson.ErrExists) {
		t.Errorf("PutFile = %v, want ErrExists: its claim was taken back", err)
	}
	list, err := s.Files(t.Context(), nil)
	if err != nil || len(list) != 2 || list[0].ID != 3 || list[1].ID != 2 {
		t.Errorf("Files = %+v, %v, want 3 and 2", list, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "files/1_slow")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat = %v, want that its contents are gone", err)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "files/.adding")); err != nil || len(entries) != 0 {
		t.Errorf("left is %v, %v", entries, err)
	}
}

// Rows that memory has no place for are divided, again and again, and still are
// told apart; those of one key alone need no more place than one.
func TestLittleMemory(t *testing.T) {
	dir := memory(t)
	s := open(t, dir, &file.Options{Memory: 1 << 10})
	const n = 600
	text := func(from, to int, value string) string {
		var b strings.Builder
		for i := from; i < to; i++ {
			fmt.Fprintf(&b, "%d,%s\n", i, value)
		}
		return b.String()
	}
	l := add("1", text(0, n, "old")+strings.Repeat("0,again\n", n))
	l.PrimaryKey = []string{"id"}
	first := do(t, s, l).Table
	if first.Rows != n {
		t.Errorf("%d rows, want %d", first.Rows, n)
	}
	done := do(t, s, add("2", text(n/2, n, "new")+text(n/4, n/2, "old")))
	if done.Table.Rows != n {
		t.Errorf("%d rows, want %d", done.Table.Rows, n)
	}
	if got := strings.Count(export(t, s, &storage.Query{ChangedSince: first.LastImport}), "\n") - 1; got != n/2 {
		t.Errorf("%d rows were changed, want %d", got, n/2)
	}
	got := export(t, s, nil)
	for i := range n {
		value := "old"
		switch {
		case i == 0:
			value = "again"
		case i >= n/2:
			value = "new"
		}
		if row := fmt.Sprintf("\"%d\",\"%s\"\n", i, value); strings.Count(got, row) != 1 {
			t.Fatalf("row %q is there %d times, want once", row, strings.Count(got, row))
		}
	}
	// A key that can't tell rows apart is found out the same way.
	l = add("3", "")
	l.PrimaryKey, l.SetPrimaryKey = []string{"name"}, true
	if done := do(t, s, l); len(done.Warnings) != 1 || fmt.Sprint(done.Table.PrimaryKey) != "[id]" {
		t.Errorf("Load = %+v, want the key id and a warning", done)
	}
	l = add("4", "")
	l.PrimaryKey, l.SetPrimaryKey = []string{"name", "id"}, true
	if done := do(t, s, l); fmt.Sprint(done.Table.PrimaryKey) != "[name id]" {
		t.Errorf("Load = %+v, want the key name, id", done)
	}
	// Nor is there place for the keys of rows that are all different.
	l = add("5", text(0, n, "full"))
	l.Incremental = false
	if done := do(t, s, l); done.Table.Rows != n || strings.Count(export(t, s, nil), "full") != n {
		t.Errorf("Load = %+v, want %d rows", done, n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, err := leftover(dir); err != nil || len(left) > 0 {
		t.Errorf("left is %q, %v", left, err)
	}
}
