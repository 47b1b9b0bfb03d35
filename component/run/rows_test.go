//go:build unix

package run_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/engine/mem"
)

// rower writes a table of its row, and fails where the row says so.
func rower(p *mem.Proc) int {
	row := p.Getenv("KBC_CONFIGROWID")
	fmt.Fprintf(p.Stdout(), "row %s\n", row)
	put(p, "/data/out/tables/out.c-main."+row, "\"row\"\n\""+row+"\"\n")
	put(p, "/data/out/tables/out.c-main.log-"+row, "\"row\"\n\""+row+"\"\n")
	put(p, "/data/out/tables/out.c-main.log-"+row+".manifest", `{"write_always": true}`)
	put(p, "/data/out/state.json", `{"row": "`+row+`"}`)
	if strings.Contains(read(p, "/data/config.json"), `"fail"`) {
		return 1
	}
	return 0
}

func TestRows(t *testing.T) {
	newRows := func(t *testing.T) *rig {
		r := newRig(t)
		r.define("main", "", rower)
		r.config("main", `"parameters": {"a": 1}`)
		r.row("a", "")
		r.row("b", "")
		r.write("conf/rows/c/config.json", "{}")
		r.write("conf/rows/c/meta.json", `{"isDisabled": true}`)
		return r
	}
	t.Run("AllButDisabled", func(t *testing.T) {
		r := newRows(t)
		got := r.run(nil)
		if !got.Success || got.out != "row a\nrow b\n" {
			t.Errorf("log %q, %+v, want rows a and b", got.out, got.doc.Error)
		}
		if !strings.Contains(got.says, `row "c" is disabled`) {
			t.Errorf("said %q, want that c is left out", got.says)
		}
		for row, want := range map[string]bool{"a": true, "b": true, "c": false} {
			if s := r.state(row); (s != nil) != want {
				t.Errorf("state of %s = %v, want %v", row, s, want)
			}
		}
		if len(got.doc.Output.Tables) != 4 || len(got.doc.Images) != 2 {
			t.Errorf("document = %s", got.Component)
		}
		r.clean()
	})
	t.Run("Named", func(t *testing.T) {
		r := newRows(t)
		got := r.run(&caisson.ComponentRun{Rows: []string{"c"}})
		if !got.Success || got.out != "row c\n" || !strings.Contains(got.says, "because it was asked for") {
			t.Errorf("log %q, said %q, want row c and why", got.out, got.says)
		}
	})
	t.Run("Unknown", func(t *testing.T) {
		if err := newRows(t).refused(&caisson.ComponentRun{Rows: []string{"x", "y"}}); !errors.Is(err, caisson.ErrNotFound) || !strings.Contains(err.Error(), `"x"`) {
			t.Errorf("Submit = %v, want not found with their names", err)
		}
	})
	t.Run("None", func(t *testing.T) {
		r := newRig(t)
		r.define("main", "", rower)
		r.config("main", "")
		r.write("conf/rows/c/config.json", "{}")
		r.write("conf/rows/c/meta.json", `{"isDisabled": true}`)
		if got := r.run(nil); !got.Success || got.doc.Message != "No configurations executed." {
			t.Errorf("message = %q, want that none was", got.doc.Message)
		}
	})
	t.Run("FailingStopsTheOthers", func(t *testing.T) {
		r := newRows(t)
		r.row("b", `"parameters": {"b": "fail"}`)
		r.write("conf/rows/d.json", "{}")
		got := r.run(nil)
		if got.Status != 1 || got.doc.Error == nil || got.doc.Error.Row != "b" || got.out != "row a\nrow b\n" {
			t.Errorf("status %d, %+v, log %q, want row b to fail the run", got.Status, got.doc.Error, got.out)
		}
		if r.table("out.c-main.a") == "" || r.table("out.c-main.b") != "" {
			t.Error("want the table of the row before, and none of the row that failed")
		}
		if r.table("out.c-main.log-b") == "" {
			t.Error("want the table of the failed row that is loaded always")
		}
		if r.state("a") != nil || r.state("b") != nil {
			t.Error("a state was stored although a row failed")
		}
		r.clean()
	})
}

// TestWriteAlways holds that the tables that are loaded always are, whichever
// part of a row fails, and that the first error is the one that is told.
func TestWriteAlways(t *testing.T) {
	write := func(p *mem.Proc) {
		put(p, "/data/out/tables/out.c-main.log", "\"a\"\n\"1\"\n")
		put(p, "/data/out/tables/out.c-main.log.manifest", `{"write_always": true}`)
		put(p, "/data/out/files/report", "x")
		put(p, "/data/out/tables/bad", "\"a\"\n\"1\"\n")
	}
	for name, c := range map[string]struct {
		main  mem.Program
		after mem.Program
		want  string
	}{
		"MainFails":    {func(p *mem.Proc) int { write(p); fmt.Fprint(p.Stderr(), "sorry"); return 1 }, copier, "sorry"},
		"AfterFails":   {copier, func(p *mem.Proc) int { write(p); fmt.Fprint(p.Stderr(), "late"); return 1 }, "late"},
		"MappingFails": {copier, func(p *mem.Proc) int { write(p); return 0 }, "destination"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.define("main", "", c.main)
			r.define("after", "", c.after)
			r.config("main", `"processors": {"after": [{"definition": {"component": "after"}}]}`)
			got := r.run(nil)
			if got.doc.Error == nil || got.Status != 1 || !strings.Contains(got.doc.Error.Message, c.want) {
				t.Errorf("status %d, %+v, want 1 and %q", got.Status, got.doc.Error, c.want)
			}
			if r.table("out.c-main.log") == "" {
				t.Error("the table that is loaded always was not")
			}
			if files, err := r.store().Files(t.Context(), &storage.FileQuery{}); err != nil || len(files) != 0 {
				t.Errorf("files = %v, %v, want none of a failed run", files, err)
			}
			r.clean()
		})
	}
}

// TestStateOfOthers holds that no id of a row is the way to the state of another
// configuration.
func TestStateOfOthers(t *testing.T) {
	for name, c := range map[string]struct{ row, document string }{
		"Configuration": {"../13", "state/main/13"},
		"Component":     {"../../other/13", "state/other/13"},
		"Below":         {"a/b", "state/main/12/a/b"},
		"Above":         {"..", "state/main"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.define("main", "", func(p *mem.Proc) int {
				fmt.Fprint(p.Stdout(), read(p, "/data/in/state.json"))
				put(p, "/data/out/state.json", `{"mine": true}`)
				return 0
			})
			theirs := `{"component": {"theirs": "secret"}}`
			if _, err := r.store().PutDocument(t.Context(), c.document, []byte(theirs), ""); err != nil {
				t.Fatal(err)
			}
			r.write("conf/config.json", fmt.Sprintf(
				`{"component": "main", "id": "12", "configuration": {}, "rows": [{"id": %q, "configuration": {}}]}`, c.row,
			))
			got := r.run(nil)
			if !got.Success || strings.Contains(got.out, "theirs") {
				t.Errorf("the component of row %q read %q (%+v), want a state of its own", c.row, got.out, got.doc.Error)
			}
			data, _, err := r.store().Document(t.Context(), c.document)
			if err != nil || string(data) != theirs {
				t.Errorf("%s = %q, %v, want it as it was", c.document, data, err)
			}
			if got := r.run(nil); !strings.Contains(got.out, "mine") {
				t.Errorf("the next run read %q, want what the first one has left", got.out)
			}
		})
	}
}
