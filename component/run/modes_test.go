//go:build unix

package run_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/engine/mem"
)

// archives returns what is in each archive of a run, by the archive's name: a
// file's path and its text.
func (r *rig) archives(got *ran) map[string]map[string]string {
	r.t.Helper()
	out := make(map[string]map[string]string)
	for _, a := range got.doc.Archives {
		from, err := r.store().OpenFile(r.t.Context(), a.File)
		if err != nil {
			r.t.Fatal(err)
		}
		data, err := io.ReadAll(from)
		from.Close()
		if err != nil {
			r.t.Fatal(err)
		}
		z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			r.t.Fatal(err)
		}
		out[a.Name] = make(map[string]string)
		for _, f := range z.File {
			in, err := f.Open()
			if err != nil {
				r.t.Fatal(err)
			}
			text, err := io.ReadAll(in)
			in.Close()
			if err != nil {
				r.t.Fatal(err)
			}
			out[a.Name][f.Name] = string(text)
		}
	}
	return out
}

// chain is a configuration with an input, a processor on each side and an
// output.
const chain = `"storage": {
	"input": {"tables": [{"source": "in.c-main.people", "destination": "t.csv"}]},
	"output": {"tables": [{"source": "t.csv", "destination": "out.c-main.t"}]}},
	"processors": {"before": [{"definition": {"component": "copy"}}], "after": [{"definition": {"component": "copy"}}]}`

func newChain(t *testing.T) *rig {
	r := newRig(t)
	r.load("in.c-main.people", "id,name", strings.Repeat("1,ann\n", 60))
	hand := func(p *mem.Proc) int {
		fmt.Fprintf(p.Stdout(), "%s %s\n", p.Getenv("KBC_COMPONENTID"), p.Getenv("KBC_COMPONENT_RUN_MODE"))
		put(p, "/data/out/tables/t.csv", read(p, "/data/in/tables/t.csv"))
		return 0
	}
	r.define("main", "", func(p *mem.Proc) int { put(p, "/data/out/state.json", `{"a": 1}`); return hand(p) })
	r.define("copy", "", hand)
	r.config("main", chain)
	return r
}

func TestDebug(t *testing.T) {
	r := newChain(t)
	got := r.run(&caisson.ComponentRun{Mode: caisson.ComponentDebug})
	if !got.Success || got.out != "copy debug\nmain debug\ncopy debug\n" {
		t.Fatalf("log %q, %+v", got.out, got.doc.Error)
	}
	found := r.archives(got)
	if len(found) != 4 {
		t.Errorf("archives = %+v, want three stages and the output", got.doc.Archives)
	}
	for name, want := range map[string]string{
		"stage_0.zip": "in/tables/t.csv.manifest", "stage_1.zip": "in/state.json", "stage_2.zip": "in/tables/t.csv", "stage_output.zip": "out/tables/t.csv",
	} {
		ok := false
		for file := range found[name] {
			ok = ok || strings.HasSuffix(file, want)
		}
		if !ok {
			t.Errorf("%s lacks %s: %v", name, want, found[name])
		}
		if _, ok := found[name]["config.json"]; !ok {
			t.Errorf("%s lacks config.json: %v", name, found[name])
		}
	}
	files, err := r.store().Files(t.Context(), &storage.FileQuery{Tags: []string{"debug", "jobId:" + got.Task, "main"}})
	if err != nil || len(files) == 0 {
		t.Errorf("files = %v, %v, want some with their tags", files, err)
	}
	if r.table("out.c-main.t") != "" || r.state("") != nil {
		t.Error("debug mode stored a table or a state")
	}
	r.clean()
}

func TestInputAndSandbox(t *testing.T) {
	for mode, rows := range map[string]int{caisson.ComponentInput: 60, caisson.ComponentSandbox: 50} {
		t.Run(mode, func(t *testing.T) {
			r := newChain(t)
			got := r.run(&caisson.ComponentRun{Mode: mode})
			if !got.Success || got.out != "" {
				t.Fatalf("log %q, %+v, want that nothing ran", got.out, got.doc.Error)
			}
			data := r.archives(got)["data.zip"]
			table := ""
			for name, text := range data {
				if strings.HasSuffix(name, "in/tables/t.csv") {
					table = text
				}
			}
			if n := strings.Count(table, "\n") - 1; n != rows {
				t.Errorf("%d rows, want %d; files %v", n, rows, got.doc.Archives)
			}
			if r.table("out.c-main.t") != "" || r.state("") != nil {
				t.Error("a table or a state was stored")
			}
			r.clean()
		})
	}
}

func TestDryRun(t *testing.T) {
	r := newChain(t)
	got := r.run(&caisson.ComponentRun{Mode: caisson.ComponentDryRun})
	if !got.Success || !strings.Contains(got.out, "table t.csv -> make out.c-main.t (mapping)") || !strings.Contains(got.out, "columns: id, name (header)") {
		t.Fatalf("log %q, %+v, want the plan", got.out, got.doc.Error)
	}
	if len(got.doc.Plans) != 1 || len(got.doc.Plans[0].Tables) != 1 {
		t.Errorf("plans = %+v, want one with a table", got.doc.Plans)
	}
	if r.table("out.c-main.t") != "" || r.state("") != nil {
		t.Error("a table or a state was stored")
	}
	r.clean()
}

func TestActions(t *testing.T) {
	for name, c := range map[string]struct {
		out, errs string
		code      int
		status    int
		message   string
	}{
		"Object":      {`{"a": [1]}`, "noise", 0, 0, ""},
		"EmptyObject": {`{}`, "", 0, 0, ""},
		"EmptyList":   {`[]`, "", 0, 0, ""},
		"Long":        {`"` + strings.Repeat("x", 3<<20) + `"`, "", 0, 0, ""},
		"Nothing":     {"", "", 0, 1, "no response from component"},
		"NoJSON":      {`{"a"`, "", 0, 1, "is no JSON"},
		"Error":       {``, "wrong password", 1, 1, "wrong password"},
		"Application": {``, "boom", 2, 2, "boom"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.define("main", `{"synchronous_actions": ["test"]}`, func(p *mem.Proc) int {
				if !strings.Contains(read(p, "/data/config.json"), `"action": "test"`) || read(p, "/data/in/state.json") != "{}" {
					return 9
				}
				put(p, "/data/out/state.json", `{"a": 1}`)
				put(p, "/data/out/tables/out.c-main.t", "\"a\"\n\"1\"\n")
				fmt.Fprint(p.Stdout(), c.out)
				fmt.Fprint(p.Stderr(), c.errs)
				return c.code
			})
			r.define("copy", "", func(p *mem.Proc) int { return 9 })
			r.config("main", `"processors": {"before": [{"definition": {"component": "copy"}}]},
				"storage": {"input": {"tables": [{"source": "in.c-none.none"}]}}`)
			got := r.run(&caisson.ComponentRun{Action: "test"})
			if got.Status != c.status || got.out != c.out {
				t.Errorf("status %d, want %d; %d bytes, want %d; %+v", got.Status, c.status, len(got.out), len(c.out), got.doc.Error)
			}
			if c.message != "" && (got.doc.Error == nil || !strings.Contains(got.doc.Error.Message, c.message)) {
				t.Errorf("error = %+v, want %q", got.doc.Error, c.message)
			}
			if r.table("out.c-main.t") != "" || r.state("") != nil {
				t.Error("an action stored a table or a state")
			}
			r.clean()
		})
	}
}

// TestRefused holds what is refused before anything runs.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		data, keys string
		ask        caisson.ComponentRun
		kind       caisson.Kind
		text       string
	}{
		"UnknownAction":    {"", "", caisson.ComponentRun{Action: "nope"}, caisson.ErrNotFound, `"nope"`},
		"UnknownMode":      {"", "", caisson.ComponentRun{Mode: "nope"}, caisson.ErrInvalid, "dry-run"},
		"UnknownComponent": {"", "", caisson.ComponentRun{Definition: "nope"}, caisson.ErrNotFound, "nope"},
		"UnknownProcessor": {"", `"processors": {"after": [{"definition": {"component": "nope"}}]}`, caisson.ComponentRun{}, caisson.ErrNotFound, "nope"},
		"UnknownKey":       {"", `"nope": 1`, caisson.ComponentRun{}, caisson.ErrInvalid, "nope"},
		"Staging":          {`{"staging_storage": {"input": "s3"}}`, "", caisson.ComponentRun{}, caisson.ErrUnsupported, "s3"},
		"NoBucketID":       {"", `"#secret": "plain"`, caisson.ComponentRun{}, caisson.ErrInvalid, "#secret"},
		"PlainSecret":      {"", `"parameters": {"#secret": "plain-text"}`, caisson.ComponentRun{}, caisson.ErrInvalid, "#secret"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.define("main", c.data, func(p *mem.Proc) int { return 0 })
			r.config("main", c.keys)
			err := r.refused(&c.ask)
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "plain-text") {
				t.Errorf("Submit = %v, want %v with %q", err, c.kind, c.text)
			}
		})
	}
	t.Run("Branch", func(t *testing.T) {
		r := newRig(t)
		r.options.Project.Branch = "5"
		r.define("main", `{"features": ["dev-branch-job-blocked"]}`, func(p *mem.Proc) int { return 0 })
		r.config("main", "")
		if err := r.refused(nil); !errors.Is(err, caisson.ErrDenied) || !strings.Contains(err.Error(), "branch") {
			t.Errorf("Submit = %v, want denied", err)
		}
	})
	t.Run("BranchUnsafe", func(t *testing.T) {
		r := newRig(t)
		r.options.Project.Branch = "5"
		r.define("main", `{"features": ["dev-branch-configuration-unsafe"]}`, func(p *mem.Proc) int { return 0 })
		r.config("main", `"runtime": {"safe": false}`)
		if err := r.refused(nil); !errors.Is(err, caisson.ErrDenied) || !strings.Contains(err.Error(), "runtime.safe") {
			t.Errorf("Submit = %v, want denied", err)
		}
		r.config("main", `"runtime": {"safe": true}`)
		if result := r.run(nil); !result.Success {
			t.Errorf("with runtime.safe: %+v", result)
		}
	})
	t.Run("Retry", func(t *testing.T) {
		r := newRig(t)
		r.define("main", "", func(p *mem.Proc) int { return 0 })
		r.config("main", "")
		task := &caisson.Task{Component: &caisson.ComponentRun{Config: "conf"}, Retry: caisson.Retry{Limit: 1}}
		if _, err := r.executor().Submit(t.Context(), task, r.submission()); !errors.Is(err, caisson.ErrUnsupported) {
			t.Errorf("Submit = %v, want unsupported", err)
		}
	})
	t.Run("NotTrusted", func(t *testing.T) {
		r := newRig(t)
		r.define("main", "", func(p *mem.Proc) int { return 0 })
		r.config("main", "")
		sub := r.submission()
		sub.Trusted = false
		if _, err := r.executor().Submit(t.Context(), &caisson.Task{Component: &caisson.ComponentRun{Config: "conf"}}, sub); !errors.Is(err, caisson.ErrDenied) {
			t.Errorf("Submit = %v, want denied", err)
		}
	})
}

// TestStagingNone holds that a component without an input has no processors.
func TestStagingNone(t *testing.T) {
	r := newChain(t)
	r.define("main", `{"staging_storage": {"input": "none", "output": "none"}}`, func(p *mem.Proc) int {
		fmt.Fprintf(p.Stdout(), "main [%s]\n", list(p, "/data/in/tables"))
		put(p, "/data/out/tables/t.csv", people)
		return 0
	})
	got := r.run(nil)
	if !got.Success || got.out != "main []\n" || r.table("out.c-main.t") != "" {
		t.Errorf("log %q, %+v, want the component alone", got.out, got.doc.Error)
	}
}

// TestArtifacts holds that what a run leaves for later ones is given to them.
func TestArtifacts(t *testing.T) {
	r := newRig(t)
	r.define("main", `{"features": ["artifacts"]}`, func(p *mem.Proc) int {
		for _, kind := range []string{"runs", "shared", "custom"} {
			dir := "/data/artifacts/in/" + kind + "/jobs"
			jobs, err := p.ReadDir(dir)
			fmt.Fprintf(p.Stdout(), "%s %d %v\n", kind, len(jobs), err != nil)
			for _, job := range jobs {
				fmt.Fprintf(p.Stdout(), "%s\n", read(p, dir+"/"+job.Name()+"/note"))
			}
		}
		put(p, "/data/artifacts/out/current/note", "kept")
		put(p, "/data/artifacts/out/shared/note", "for all")
		return 0
	})
	r.config("main", `"artifacts": {"runs": {"enabled": true, "filter": {"limit": 5}}, "shared": {"enabled": true}}`)
	if first := r.run(nil); !first.Success || first.doc.Artifacts == nil || len(first.doc.Artifacts.Uploaded) != 2 {
		t.Fatalf("%+v, artifacts %+v, want two kept", first.doc.Error, first.doc.Artifacts)
	}
	second := r.run(nil)
	want := "runs 1 false\nkept\nshared 1 false\nfor all\ncustom 0 true\n"
	if second.out != want || len(second.doc.Artifacts.Downloaded) != 2 || len(second.doc.Warnings) != 0 {
		t.Errorf("log %q, want %q; %+v, warnings %q", second.out, want, second.doc.Artifacts, second.doc.Warnings)
	}
	r.clean()
}
