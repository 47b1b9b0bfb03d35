//go:build unix

package run_test

import (
	"strings"
	"testing"

	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/storagetest"
	"github.com/caissonrun/caisson/engine/mem"
)

// TestFaultyStorage has the storage fail at every call in turn, before it is
// done and after: a run fails, no table is half there, and the next run goes
// well.
func TestFaultyStorage(t *testing.T) {
	for at := 1; ; at++ {
		calls := 0
		for _, late := range []bool{false, true} {
			calls = max(calls, faultAt(t, at, late))
		}
		if calls < at {
			if at < 8 {
				t.Errorf("only %d calls", calls)
			}
			return
		}
	}
}

// faultAt returns how many calls there were.
func faultAt(t *testing.T, at int, late bool) int {
	t.Helper()
	r := newRig(t)
	r.load("in.c-main.people", "id,name", "1,ann\n2,bob\n")
	r.define("main", "", func(p *mem.Proc) int {
		for _, name := range []string{"one", "two"} {
			put(p, "/data/out/tables/out.c-main."+name, read(p, "/data/in/tables/people.csv"))
		}
		put(p, "/data/out/files/report", "x")
		put(p, "/data/out/state.json", `{"a": 1}`)
		return 0
	})
	r.config("main", `"storage": {"input": {"tables": [{"source": "in.c-main.people", "destination": "people.csv"}]}}`)
	f := &storagetest.Faulty{At: at, Late: late}
	r.storage = func(st storage.Storage) storage.Storage {
		f.Storage = st
		return f
	}
	got := r.run(nil)
	calls := len(f.Calls())
	if calls >= at && (got.Success || got.doc.Error == nil || got.Status != 2 || !strings.Contains(got.doc.Error.Message, "as it was told to")) {
		t.Errorf("call %d of %q: status %d, %+v, want the storage's error", at, f.Calls(), got.Status, got.doc.Error)
	}
	for _, name := range []string{"one", "two"} {
		if table := r.table("out.c-main." + name); table != "" && table != people {
			t.Errorf("call %d: table %s = %q, want none or all", at, name, table)
		}
	}
	r.clean()
	r.storage = nil
	if again := r.run(nil); !again.Success {
		t.Errorf("call %d: the next run: %+v, want success", at, again.doc.Error)
	}
	for _, name := range []string{"one", "two"} {
		if table := r.table("out.c-main." + name); table != people {
			t.Errorf("call %d: table %s = %q after the next run", at, name, table)
		}
	}
	if s := r.state(""); s == nil || r.json(s.Component) != `{"a":1}` {
		t.Errorf("call %d: state = %+v after the next run", at, s)
	}
	return calls
}
