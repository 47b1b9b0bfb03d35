//go:build unix

package mapping_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/caissonrun/caisson/component/mapping"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/file"
	"github.com/caissonrun/caisson/component/storage/sql"
	"github.com/caissonrun/caisson/component/storage/storagetest"
)

// eachStorage runs a test over real storages that need no server. What servers
// do is the business of their own suites.
func eachStorage(t *testing.T, test func(t *testing.T, st storage.Storage)) {
	oneStorage(t, "File", test)
	oneStorage(t, "SQLite", test)
}

func oneStorage(t *testing.T, kind string, test func(t *testing.T, st storage.Storage)) {
	t.Run(kind, func(t *testing.T) {
		var st storage.Storage
		var err error
		if kind == "File" {
			st, err = file.Open(filepath.Join(t.TempDir(), "storage"), nil)
		} else {
			st, err = sql.New("sqlite:"+filepath.Join(t.TempDir(), "db"), nil)
		}
		must(t, err)
		defer st.Close()
		test(t, st)
	})
}

// on is a world over another storage than memory, for one run of a component.
func on(t *testing.T, st storage.Storage, run string) *world {
	w := newWorld(t)
	w.in.Storage, w.out.Storage, w.out.LoadID = st, st, run
	return w
}

// contents returns a table's rows, sorted, by an input mapping.
func contents(t *testing.T, st storage.Storage, in component.InputTable) string {
	t.Helper()
	w := on(t, st, "read")
	in.Destination = "t"
	w.in.Config.Tables = []component.InputTable{in}
	w.fetch()
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(w.read("tables/t"), `"`, "")), "\n")
	slices.Sort(lines[1:])
	return strings.Join(lines, "|")
}

// TestTwoRuns is what a component's second run sees of its first one.
func TestTwoRuns(t *testing.T) {
	eachStorage(t, func(t *testing.T, st storage.Storage) {
		const manifest = `{"primary_key": ["Id"], "incremental": true, "description": "people", "column_metadata": {"Full Name": [{"key": "k", "value": 7}]}}`
		w := on(t, st, "task/1")
		w.write("tables/in.c-m.people.csv", "Id,Full Name\r\n1,Ann\r\n2,\"Bob \"\"B\"\"\"\r\n3,Cid\r\n")
		w.write("tables/in.c-m.people.csv.manifest", manifest)
		w.write("tables/in.c-m.log/1", "first\n")
		w.write("tables/in.c-m.log/2", zip("second\n"))
		w.write("tables/in.c-m.log.manifest", `{"columns": ["text"], "incremental": true}`)
		w.write("files/report.txt", "r")
		w.write("files/report.txt.manifest", `{"tags": ["report"]}`)
		w.load()
		w.load() // the same run again, as after a crash
		if got, want := contents(t, st, component.InputTable{Source: "in.c-m.log"}), "text|first|second"; got != want {
			t.Errorf("log = %s, want %s", got, want)
		}

		in := on(t, st, "read")
		in.in.Config.Tables = []component.InputTable{{Source: "in.c-m.people", ChangedSince: "adaptive"}}
		in.in.Config.Files = []component.InputFile{{Tags: []string{"report"}, ChangedSince: "adaptive", Overwrite: true, ProcessedTags: []string{"seen"}}}
		first := in.fetch()
		text := in.read("tables/in.c-m.people")
		for _, line := range []string{`"1","Ann"`, `"2","Bob ""B"""`, `"3","Cid"`} {
			if !strings.HasPrefix(text, "\"Id\",\"Full_Name\"\n") || !strings.Contains(text, line+"\n") || strings.Count(text, "\n") != 4 {
				t.Errorf("people = %q, want a row %s", text, line)
			}
		}
		if m := in.read("tables/in.c-m.people.manifest"); !strings.Contains(m, `"description": "people"`) || !strings.Contains(m, `"KBC.lastUpdatedBy.component.id"`) {
			t.Errorf("manifest = %s", m)
		}
		if len(first.Files) != 1 || len(first.State.Files) != 1 {
			t.Fatalf("fetched %+v", first)
		}
		must(t, mapping.MarkFiles(t.Context(), st, first.Processed))

		// Only what changed comes the next time.
		w = on(t, st, "task/2")
		w.write("tables/in.c-m.people.csv", "Id,Full Name\n3,Cid\n2,Bob\n4,Dan\n")
		w.write("tables/in.c-m.people.csv.manifest", manifest)
		w.load()
		in.in.State = first.State
		second := in.fetch()
		text = in.read("tables/in.c-m.people")
		if !strings.Contains(text, `"2","Bob"`) || !strings.Contains(text, `"4","Dan"`) || strings.Count(text, "\n") != 3 {
			t.Errorf("what is new = %q, want Bob and Dan", text)
		}
		if len(second.Files) != 0 {
			t.Errorf("files = %+v, want none", second.Files)
		}
		in.in.State = second.State
		in.fetch()
		if got := in.read("tables/in.c-m.people"); got != "\"Id\",\"Full_Name\"\n" {
			t.Errorf("what is new = %q, want nothing", got)
		}

		// Rows go before a load, and with a filter of the storage's own.
		w = on(t, st, "task/3")
		w.write("tables/in.c-m.people.csv", "Id,Full Name\n9,Eve\n")
		w.mapTable("in.c-m.people.csv", component.TableManifest{
			PrimaryKey: []string{"Id"}, Incremental: true, DeleteWhereColumn: "full_name", DeleteWhereValues: []string{"Ann", "Bob"},
		})
		w.load()
		if got, want := contents(t, st, component.InputTable{Source: "in.c-m.people"}), "Id,Full_Name|3,Cid|4,Dan|9,Eve"; got != want {
			t.Errorf("people = %s, want %s", got, want)
		}
		if got, want := contents(t, st, component.InputTable{Source: "in.c-m.people", Columns: []string{"full_name"}, WhereColumn: "Id", WhereValues: []string{"3"}, WhereOperator: "ne"}), "Full_Name|Dan|Eve"; got != want {
			t.Errorf("people = %s, want %s", got, want)
		}
	})
}

// A hasty storage has somebody load a table right after it was looked at.
type hasty struct {
	storage.Storage
	load func()
}

func (h *hasty) Table(ctx context.Context, id string) (*storage.Table, error) {
	t, err := h.Storage.Table(ctx, id)
	if h.load != nil {
		h.load()
	}
	return t, err
}

// TestAdaptiveRace holds that rows that are loaded while an input is mapped come
// once: now or with the next run.
func TestAdaptiveRace(t *testing.T) {
	eachStorage(t, func(t *testing.T, st storage.Storage) {
		load := func(run, row string) {
			w := on(t, st, run)
			w.write("tables/in.c-m.log", "text\n"+row+"\n")
			w.write("tables/in.c-m.log.manifest", `{"incremental": true}`)
			w.load()
		}
		load("task/1", "first")
		h := &hasty{Storage: st, load: func() { load("task/2", "second") }}
		w := on(t, h, "read")
		w.in.Config.Tables = []component.InputTable{{Source: "in.c-m.log", ChangedSince: "adaptive"}}
		var all []string
		for _, later := range []func(){func() { load("task/3", "third") }, nil, nil} {
			w.in.State = w.fetch().State
			h.load = later
			rows := strings.Fields(strings.ReplaceAll(w.read("tables/in.c-m.log"), `"`, ""))
			all = append(all, rows[1:]...)
		}
		if got, want := strings.Join(all, " "), "first second third"; got != want {
			t.Errorf("three runs were given %q, want each row once: %q", got, want)
		}
	})
}

// TestAdaptiveSlowFile holds that a file that takes long to be added, so that
// later ones are there before it, is fetched like they are: once.
func TestAdaptiveSlowFile(t *testing.T) {
	oneStorage(t, "File", func(t *testing.T, st storage.Storage) {
		put := func(name string, r io.Reader) {
			if _, err := st.PutFile(t.Context(), &storage.NewFile{Load: name, Name: name, Tags: []string{"report"}}, r); err != nil {
				t.Error(err)
			}
		}
		put("first", strings.NewReader("1"))
		r, slow := io.Pipe()
		var adding sync.WaitGroup
		adding.Go(func() { put("slow", r) })
		_, err := slow.Write([]byte("2")) // it is being read
		must(t, err)
		put("quick", strings.NewReader("3"))
		w := on(t, st, "read")
		w.in.Config.Files = []component.InputFile{{Tags: []string{"report"}, ChangedSince: "adaptive", Overwrite: true}}
		var got []string
		fetch := func() {
			f := w.fetch()
			w.in.State = f.State
			for _, file := range f.Files {
				got = append(got, file.Name)
			}
			slices.Sort(got)
		}
		fetch()
		must(t, slow.Close())
		adding.Wait()
		fetch()
		fetch()
		if want := []string{"1_first", "2_slow", "3_quick"}; !slices.Equal(got, want) {
			t.Errorf("three runs were given %q, want each file once: %q", got, want)
		}
	})
}

// TestLentFile: a table of a folder is not copied when all of it is asked for.
func TestLentFile(t *testing.T) {
	st, err := file.Open(filepath.Join(t.TempDir(), "storage"), nil)
	must(t, err)
	defer st.Close()
	w := on(t, st, "task/1")
	w.write("tables/in.c-m.t.csv", "a\n1\n")
	w.load()
	w.in.Config.Tables = []component.InputTable{{Source: "in.c-m.t"}}
	w.in.Ways = folder.Ways{Bind: true}
	for _, since := range []string{"", "adaptive"} {
		w.in.Config.Tables[0].ChangedSince = since
		f := w.fetch()
		if how := f.Tables[0].How; how != folder.Bound && how != folder.Cloned {
			t.Errorf("changed_since %q: the table was put there as %q, want a clone or a place to be bound", since, how)
		}
	}
	w.in.Config.Tables[0].Limit = 5
	if how := w.fetch().Tables[0].How; how != "" {
		t.Errorf("with a filter the table was put there as %q, want its rows", how)
	}
	if got := w.read("tables/in.c-m.t"); got != "\"a\"\n\"1\"\n" {
		t.Errorf("table = %q", got)
	}
}

// TestFaultsOfStorages lets each call of a whole run fail, before the storage has
// done it and after: nothing is half loaded, and the next try does all of it
// once.
func TestFaultsOfStorages(t *testing.T) {
	calls := 0
	eachStorage(t, func(t *testing.T, st storage.Storage) {
		w := on(t, st, "task/1")
		w.chain("setup", "in.c-m.src", "id\n1\n2\n")
		f := &storagetest.Faulty{Storage: st}
		must(t, w.run(f))
		calls = len(f.Calls())
	})
	if calls < 10 {
		t.Errorf("a run makes %d calls: something was left out", calls)
	}
	for at := 1; at <= calls; at++ {
		for late, kind := range map[bool]string{false: "File", true: "SQLite"} {
			oneStorage(t, kind, func(t *testing.T, st storage.Storage) {
				w := on(t, st, "task/1")
				w.chain("setup", "in.c-m.src", "id\n1\n2\n")
				f := &storagetest.Faulty{Storage: st, At: at, Late: late}
				err := w.run(f)
				if !errors.Is(err, caisson.ErrUnavailable) || component.FaultOf(err) != component.ApplicationFault {
					t.Fatalf("%s fails: %v, want that the storage is away", f.Calls()[at-1], err)
				}
				must(t, w.run(st))
				for table, want := range map[string]string{"in.c-m.log": "a|1", "in.c-m.key": "a,b|1,x"} {
					if got := contents(t, st, component.InputTable{Source: table}); got != want {
						t.Errorf("%s fails: %s = %s, want %s", f.Calls()[at-1], table, got, want)
					}
				}
				files, err := st.Files(t.Context(), &storage.FileQuery{Tags: []string{"made"}})
				must(t, err)
				seen, err := st.Files(t.Context(), &storage.FileQuery{Tags: []string{"seen"}})
				must(t, err)
				if len(files) != 1 || len(seen) != 1 {
					t.Errorf("%s fails: %d files were made and %d marked, want one of each", f.Calls()[at-1], len(files), len(seen))
				}
			})
		}
	}
}

// chain loads a table and a file, for a run to read.
func (w *world) chain(id, table, text string) {
	w.t.Helper()
	w.write("tables/"+table+".csv", text)
	w.write("files/in.txt", "x")
	w.write("files/in.txt.manifest", `{"tags": ["given"]}`)
	w.out.LoadID = id
	w.load()
}

// run is a run of a component from input to the tags of what was read.
func (w *world) run(st storage.Storage) error {
	r := on(w.t, st, "task/1")
	r.in.Parallel, r.out.Parallel = 1, 1
	r.in.Config.Tables = []component.InputTable{{Source: "in.c-m.src"}}
	r.in.Config.Files = []component.InputFile{{Tags: []string{"given"}, Overwrite: true, ProcessedTags: []string{"seen"}}}
	fetched, err := r.in.Run(w.t.Context())
	if err != nil {
		return err
	}
	if r.read("tables/in.c-m.src") != "\"id\"\n\"1\"\n\"2\"\n" || r.read("files/"+fetched.Files[0].Name) != "x" {
		w.t.Error("the input is not whole")
	}
	r.write("tables/in.c-m.log.csv", "a\n1\n")
	r.write("tables/in.c-m.log.csv.manifest", `{"incremental": true}`)
	r.write("tables/in.c-m.key.csv", "a,b\n1,x\n")
	r.write("tables/in.c-m.key.csv.manifest", `{"incremental": true, "primary_key": ["a"]}`)
	r.write("files/f.txt", "f")
	r.write("files/f.txt.manifest", `{"tags": ["made"]}`)
	p, err := r.out.Plan(w.t.Context())
	if err != nil {
		return err
	}
	if _, err := r.out.Load(w.t.Context(), p); err != nil {
		return err
	}
	return mapping.MarkFiles(w.t.Context(), st, fetched.Processed)
}

// TestHuge has a header, and a value, of a gigabyte: the user is told the line,
// and memory is not what holds them.
func TestHuge(t *testing.T) {
	st, err := file.Open(filepath.Join(t.TempDir(), "storage"), &file.Options{CellLimit: 1 << 20})
	must(t, err)
	defer st.Close()
	for name, tt := range map[string]struct{ start, words string }{
		"Header": {`"a`, "line 1"},
		"Value":  {"a,b\n1,2\n\"x", "line 3"},
	} {
		t.Run(name, func(t *testing.T) {
			w := on(t, st, "task/1")
			w.write("tables/in.c-m.t.csv", tt.start)
			// The rest is a hole: it takes no place on disk.
			must(t, os.Truncate(filepath.Join(w.dir, "data/out/tables/in.c-m.t.csv"), 1<<30))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			p, err := w.out.Plan(t.Context())
			if err == nil {
				_, err = w.out.Load(t.Context(), p)
			}
			runtime.ReadMemStats(&after)
			refused(t, "Load", err, caisson.ErrInvalid, tt.words)
			if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
				t.Errorf("%d bytes of memory were taken", used)
			}
		})
	}
}
