//go:build unix

package run_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/run"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/file"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/keeper/tasklog"
	"github.com/caissonrun/caisson/mount"
	mounted "github.com/caissonrun/caisson/mount/component"
)

// A rig is a host for component runs: a state folder, a storage, a registry and
// a configuration in one folder, and components that are Go functions.
type rig struct {
	t        *testing.T
	dir      string
	world    *mem.World
	programs map[string]mem.Program
	options  run.Options
	// storage is put around the storage, for faults. Nil: nothing.
	storage func(storage.Storage) storage.Storage
	// saving is called before and after a run's progress is written.
	saving func() error
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, dir: tempDir(t), world: mem.NewWorld(), programs: make(map[string]mem.Program)}
	// Files of steps belong to somebody else where the tests are run by root.
	if err := os.Chmod(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"registry", "conf"} {
		if err := os.Mkdir(filepath.Join(r.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.options.Registry = []string{filepath.Join(r.dir, "registry")}
	r.options.Project = run.Project{ID: "7", Stack: "localhost"}
	return r
}

// tempDir makes a folder in memory where there is a place for that: runs are
// durable at every step, and a disk makes tests of many of them slow.
func tempDir(t *testing.T) string {
	t.Helper()
	const memory = "/dev/shm"
	dir, err := os.MkdirTemp(memory, "caisson-run-")
	if err != nil {
		dir = t.TempDir()
		if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// executor returns a new one on the rig's folder, as another process has.
func (r *rig) executor() *executor.Executor {
	r.t.Helper()
	e := mem.New(&mem.Options{World: r.world, Installation: "rig", Programs: r.programs})
	opts := r.options
	opts.Storage = r.open
	runner := run.New(&opts)
	runner.OnSave(r.saving)
	x, err := executor.New(&executor.Options{
		State: filepath.Join(r.dir, "state"), Runtime: filepath.Join(r.dir, "runtime"), Engines: []engine.Engine{e},
		Mounters: []mount.Mounter{mounted.New()}, Composite: runner,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { x.Close(); e.Close() })
	return x
}

func (r *rig) open(url, dir string, _ func(string) string) (storage.Storage, error) {
	if !filepath.IsAbs(url) {
		url = filepath.Join(dir, url)
	}
	st, err := file.Open(url, nil)
	if err == nil && r.storage != nil {
		st = r.storage(st)
	}
	return st, err
}

// store is the storage beside the configuration, without faults.
func (r *rig) store() storage.Storage {
	r.t.Helper()
	st, err := file.Open(filepath.Join(r.dir, "conf", "storage"), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { st.Close() })
	return st
}

// define makes a component of a function. Data is JSON put into the definition's
// data; the network is none.
func (r *rig) define(id, data string, program mem.Program) {
	r.t.Helper()
	name := strings.ReplaceAll(id, ".", "-")
	r.programs[name] = program
	def := map[string]any{}
	if data != "" {
		if err := json.Unmarshal([]byte(data), &def); err != nil {
			r.t.Fatal(err)
		}
	}
	if def["network"] == nil {
		def["network"] = "none"
	}
	if def["definition"] == nil {
		def["definition"] = map[string]any{"type": "command", "command": []string{name}}
	}
	features := def["features"]
	delete(def, "features")
	r.write("registry/"+id+".json", r.json(map[string]any{"id": id, "type": "other", "features": orEmpty(features), "data": def}))
}

func orEmpty(v any) any {
	if v == nil {
		return []string{}
	}
	return v
}

func (r *rig) json(v any) string {
	r.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

func (r *rig) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// config writes the configuration of a component: its keys in JSON.
func (r *rig) config(comp, keys string) {
	r.t.Helper()
	r.write("conf/config.json", fmt.Sprintf(`{"component": %q, "id": "12", "configuration": {%s}}`, comp, keys))
}

// row writes a row of the configuration.
func (r *rig) row(id, keys string) {
	r.t.Helper()
	r.write("conf/rows/"+id+".json", "{"+keys+"}")
}

// A ran is how a run has ended.
type ran struct {
	*caisson.Result
	doc  run.Document
	out  string // the log's stdout
	errs string // its stderr
	says string // what the runner itself said
}

// submit submits a run to x.
func (r *rig) submit(x *executor.Executor, ask *caisson.ComponentRun) (string, error) {
	own := caisson.ComponentRun{}
	if ask != nil {
		own = *ask
	}
	own.Config = "conf"
	return x.Submit(r.t.Context(), &caisson.Task{Component: &own}, &executor.Submission{BaseDir: r.dir, Trusted: true})
}

// run runs what was configured to its end.
func (r *rig) run(ask *caisson.ComponentRun) *ran {
	r.t.Helper()
	x := r.executor()
	id, err := r.submit(x, ask)
	if err != nil {
		r.t.Fatalf("Submit: %v", err)
	}
	if err := x.Attend(r.t.Context(), id, false); err != nil {
		r.t.Fatalf("Attend: %v", err)
	}
	return r.ended(x, id)
}

// ended returns how a run that has ended did.
func (r *rig) ended(x *executor.Executor, id string) *ran {
	r.t.Helper()
	result, err := x.Wait(r.t.Context(), id)
	if err != nil {
		r.t.Fatalf("Wait: %v", err)
	}
	out := &ran{Result: result}
	if len(result.Component) > 0 {
		if err := json.Unmarshal(result.Component, &out.doc); err != nil {
			r.t.Fatal(err)
		}
	}
	err = x.Logs(r.t.Context(), id, executor.LogOptions{}, func(rec executor.LogRecord) error {
		switch rec.Stream {
		case tasklog.Stdout:
			out.out += string(rec.Data)
		case tasklog.Stderr:
			out.errs += string(rec.Data)
		default:
			out.says += string(rec.Data)
		}
		return nil
	})
	if err != nil {
		r.t.Fatalf("Logs: %v", err)
	}
	return out
}

func (r *rig) submission() *executor.Submission {
	return &executor.Submission{BaseDir: r.dir, Trusted: true}
}

// refused expects that a run is not accepted, and returns why.
func (r *rig) refused(ask *caisson.ComponentRun) error {
	r.t.Helper()
	id, err := r.submit(r.executor(), ask)
	if err == nil {
		r.t.Fatalf("Submit = %s, want an error", id)
	}
	return err
}

// table returns a stored table as CSV, "" if there is none.
func (r *rig) table(id string) string {
	r.t.Helper()
	e, err := r.store().Export(r.t.Context(), id, &storage.Query{})
	if caisson.KindOf(err) == caisson.ErrNotFound {
		return ""
	}
	if err != nil {
		r.t.Fatal(err)
	}
	defer e.Close()
	var b strings.Builder
	if _, err := e.WriteTo(&b); err != nil {
		r.t.Fatal(err)
	}
	return b.String()
}

// load puts a table into the storage.
func (r *rig) load(id, columns, rows string) {
	r.t.Helper()
	_, err := r.store().Load(r.t.Context(), &storage.Load{
		ID: "test/" + id + "/" + rows, Table: id, Columns: strings.Split(columns, ","),
		Slices: []storage.Slice{{Name: id, Size: int64(len(rows)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(rows)), nil
		}}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// state returns what is stored of the configuration's row.
func (r *rig) state(row string) *component.State {
	r.t.Helper()
	name := "state/main/12"
	if row != "" {
		name += "/" + row
	}
	data, _, err := r.store().Document(r.t.Context(), name)
	if caisson.KindOf(err) == caisson.ErrNotFound {
		return nil
	}
	if err != nil {
		r.t.Fatal(err)
	}
	state, err := component.ParseState(name, data)
	if err != nil {
		r.t.Fatal(err)
	}
	return state
}

// clean expects that no run has left anything of its data on the host.
func (r *rig) clean() {
	r.t.Helper()
	err := filepath.WalkDir(filepath.Join(r.dir, "state"), func(path string, d os.DirEntry, err error) error {
		if err == nil && slices.Contains([]string{"config.json", "data", "row-0"}, d.Name()) {
			r.t.Errorf("left behind: %s", path)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// put writes a file of a step.
func put(p *mem.Proc, name, text string) {
	if err := p.WriteFile(name, []byte(text), 0o644); err != nil {
		fmt.Fprintln(p.Stderr(), err)
	}
}

// read reads a file of a step; what is wrong stands in its place.
func read(p *mem.Proc, name string) string {
	data, err := p.ReadFile(name)
	if err != nil {
		return "none"
	}
	return string(data)
}

// list lists a folder of a step.
func list(p *mem.Proc, name string) string {
	entries, err := p.ReadDir(name)
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}
