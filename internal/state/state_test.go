//go:build unix

package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/state"
)

func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	var wg sync.WaitGroup
	instances := make([]string, 8)
	for i := range instances {
		wg.Go(func() {
			f, err := state.Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			instances[i] = f.Instance()
		})
	}
	wg.Wait()
	for _, name := range instances {
		if name == "" || name != instances[0] {
			t.Fatalf("instances = %q, want one", instances)
		}
	}
	f, err := state.Open(dir)
	if err != nil || f.Instance() != instances[0] || len(f.Short()) != 8 {
		t.Errorf("Open = %+v, %v", f, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode = %v, %v, want 0700", info.Mode(), err)
	}
	if ids, err := f.Tasks(); err != nil || len(ids) != 0 {
		t.Errorf("Tasks = %q, %v", ids, err)
	}
}

func TestOpenErr(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(text string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "version.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, c := range []struct {
		path string
		kind caisson.Kind
		text string
	}{
		{"relative", caisson.ErrInvalid, "absolute"},
		{file, caisson.ErrInvalid, "not a directory"},
		{with(`{"version": 2, "instance": "x"}`), caisson.ErrUnsupported, "newer program (version 2, this one knows 1)"},
		{with(`{"instance": "x"}`), caisson.ErrInvalid, "not a state folder"},
		{with(`half`), caisson.ErrInvalid, "version.json"},
	} {
		_, err := state.Open(c.path)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("Open(%q) = %v, want %v with %q", c.path, err, c.kind, c.text)
		}
	}
}

func TestTasks(t *testing.T) {
	f, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"0000000000000001", "0000000000000002"}
	for _, name := range []string{want[1], want[0], "short", ".caisson-x.tmp", "../x"} {
		if err := os.MkdirAll(filepath.Join(f.TasksDir(), name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if ids, err := f.Tasks(); err != nil || !cmp.Equal(ids, want) {
		t.Errorf("Tasks = %q, %v, want %q", ids, err, want)
	}
}

func TestAttempts(t *testing.T) {
	f, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	task := f.Task("0000000000000001")
	if list, err := task.Attempts(); err != nil || len(list) != 0 {
		t.Errorf("Attempts of no task = %v, %v", list, err)
	}
	for _, dir := range []string{task.Attempt(10).Work(), task.Attempt(2).Step("main"), task.Attempt(2).Step("pre-0"), task.Attempt(2).Files(), task.Control()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := task.Attempts(); err != nil || !cmp.Equal(list, []int{2, 10}) {
		t.Errorf("Attempts = %v, %v", list, err)
	}
	if steps, err := task.Attempt(2).Steps(); err != nil || !cmp.Equal(steps, []string{"main", "pre-0"}) {
		t.Errorf("Steps = %q, %v", steps, err)
	}
	if removed, err := task.Attempt(2).Removed(); err != nil || removed {
		t.Errorf("Removed = %v, %v", removed, err)
	}
	if err := os.WriteFile(task.Attempt(10).Log("main"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(task.Attempt(10).Disk()); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{10, 11} {
		if removed, err := task.Attempt(n).Removed(); err != nil || !removed {
			t.Errorf("Removed of attempt %d = %v, %v", n, removed, err)
		}
	}
}

func journal(t *testing.T, path string, n int) {
	t.Helper()
	j, _, err := state.OpenJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := j.Append(&caisson.Event{Type: caisson.EventProgress, Progress: float64(i)}, i == 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	journal(t, path, 2)
	journal(t, path, 1)
	events, pos, err := state.ReadJournal(path, 0)
	if err != nil || len(events) != 3 || events[2].Seq != 3 {
		t.Fatalf("ReadJournal = %+v, %v, want three", events, err)
	}
	journal(t, path, 1)
	events, _, err = state.ReadJournal(path, pos)
	if err != nil || len(events) != 1 || events[0].Seq != 4 {
		t.Errorf("ReadJournal from %d = %+v, %v, want the fourth", pos, events, err)
	}
	if _, _, err := state.ReadJournal(path+"x", 0); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("ReadJournal of nothing = %v, want ErrNotFound", err)
	}
}

// Wherever a writer was killed, or the power cut, the next one goes on behind
// the last complete line, and readers see nothing else.
func TestJournalTorn(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "journal")
	journal(t, whole, 3)
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	tails := []string{"", "\x00\x00\x00", "\x00\x00\n", "garbage\n"}
	for n := range len(data) + 1 {
		complete := strings.Count(string(data[:n]), "\n")
		for _, tail := range tails {
			if tail == "garbage\n" && n == len(data) {
				continue // a whole line that is none: see TestJournalErrDamaged
			}
			path := filepath.Join(t.TempDir(), "journal")
			if err := os.WriteFile(path, []byte(string(data[:n])+tail), 0o600); err != nil {
				t.Fatal(err)
			}
			events, _, err := state.ReadJournal(path, 0)
			if err != nil || len(events) != complete {
				t.Fatalf("cut at %d, then %q: %d events, %v, want %d", n, tail, len(events), err, complete)
			}
			journal(t, path, 1)
			events, _, err = state.ReadJournal(path, 0)
			if err != nil || len(events) != complete+1 || events[complete].Seq != int64(complete+1) {
				t.Fatalf("cut at %d, then %q, then written: %+v, %v", n, tail, events, err)
			}
		}
	}
}

func TestJournalErrDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path, []byte("{\"seq\":1}\ngarbage\n{\"seq\":3}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := state.ReadJournal(path, 0); !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), "event 2") {
		t.Errorf("ReadJournal = %v, want ErrInvalid about event 2", err)
	}
	if _, _, err := state.OpenJournal(path); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("OpenJournal = %v, want ErrInvalid", err)
	}
}

func TestOpenThroughALink(t *testing.T) {
	dir := t.TempDir()
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(real, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("state", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	folder, err := state.Open(filepath.Join(dir, "link"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := folder.Path(), filepath.Join(real, "state"); got != want {
		t.Errorf("Path() = %q, want %q: without links", got, want)
	}
}
