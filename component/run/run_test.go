//go:build unix

package run_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine/mem"
)

const people = `"id","name"
"1","ann"
"2","bob"
`

// copier hands its input tables on, as a processor that keeps everything does.
func copier(p *mem.Proc) int {
	entries, err := p.ReadDir("/data/in/tables")
	if err != nil {
		return 2
	}
	for _, e := range entries {
		put(p, "/data/out/tables/"+e.Name(), read(p, "/data/in/tables/"+e.Name())+p.Getenv("MARK"))
	}
	return 0
}

func TestRun(t *testing.T) {
	r := newRig(t)
	r.load("in.c-main.people", "id,name", "1,ann\n2,bob\n")
	r.define("main", "", func(p *mem.Proc) int {
		fmt.Fprintf(p.Stdout(), "state %s\n", read(p, "/data/in/state.json"))
		fmt.Fprintf(p.Stdout(), "in: %s\n", list(p, "/data/in/tables"))
		fmt.Fprintf(p.Stderr(), "hello\n")
		put(p, "/data/out/tables/result.csv", read(p, "/data/in/tables/people.csv"))
		put(p, "/data/out/state.json", `{"seen": 2}`)
		put(p, "/data/out/usage.json", `[{"metric": "rows", "value": 2}]`)
		put(p, "/data/out/result.json", `{"variables": {"a": 1}}`)
		return 0
	})
	r.config("main", `"storage": {
		"input": {"tables": [{"source": "in.c-main.people", "destination": "people.csv"}]},
		"output": {"tables": [{"source": "result.csv", "destination": "out.c-main.result"}]}}`)
	got := r.run(nil)
	if !got.Success || got.Status != 0 {
		t.Fatalf("status %d, %+v, want success", got.Status, got.doc.Error)
	}
	if table := r.table("out.c-main.result"); table != people {
		t.Errorf("table = %q, want %q", table, people)
	}
	if want := "state {}\nin: people.csv people.csv.manifest\n"; got.out != want || got.errs != "hello\n" {
		t.Errorf("log = %q and %q, want %q and hello", got.out, got.errs, want)
	}
	d := &got.doc
	if d.Message != "Component processing finished." || string(d.Variables["a"]) != "1" || len(d.Usage) != 1 ||
		len(d.Input.Tables) != 1 || len(d.Output.Tables) != 1 || d.Output.Tables[0].Rows != 2 {
		t.Errorf("document = %s", got.Component)
	}
	if s := r.state(""); s == nil || r.json(s.Component) != `{"seen":2}` || len(s.Input.Tables) != 1 {
		t.Errorf("state = %+v, want what the component has written, and the table's date", s)
	}
	r.clean()

	again := r.run(nil)
	if !strings.Contains(again.out, `"seen": 2`) {
		t.Errorf("log = %q, want the state of the run before", again.out)
	}
}

// TestOrder holds section 1.1: what each step finds, in which order.
func TestOrder(t *testing.T) {
	r := newRig(t)
	r.load("in.c-main.people", "id,name", "1,ann\n")
	tell := func(p *mem.Proc) {
		fmt.Fprintf(p.Stdout(), "%s in=[%s] state=%s usage=%s out=[%s] tmp=[%s] action=%v\n", p.Getenv("KBC_COMPONENTID"), list(p, "/data/in/tables"),
			read(p, "/data/in/state.json"), read(p, "/data/in/usage.json"), list(p, "/data/out/tables"), list(p, "/tmp"),
			strings.Contains(read(p, "/data/config.json"), `"action": "run"`))
		put(p, "/tmp/x", "x")
	}
	r.define("before", "", func(p *mem.Proc) int {
		tell(p)
		put(p, "/data/out/state.json", `{"mine": 1}`)
		return copier(p)
	})
	r.define("main", "", func(p *mem.Proc) int {
		tell(p)
		put(p, "/data/out/state.json", `{"main": 1}`)
		put(p, "/data/out/usage.json", `[]`)
		return copier(p)
	})
	r.define("after", "", func(p *mem.Proc) int {
		tell(p)
		put(p, "/data/out/state.json", `{"after": 1}`)
		put(p, "/data/out/tables/t.csv", people)
		return 0
	})
	r.config("main", `"storage": {
		"input": {"tables": [{"source": "in.c-main.people", "destination": "t.csv"}]},
		"output": {"tables": [{"source": "t.csv", "destination": "out.c-main.t"}]}},
		"processors": {"before": [{"definition": {"component": "before"}}], "after": [{"definition": {"component": "after"}}]}`)
	got := r.run(nil)
	want := "before in=[t.csv t.csv.manifest] state=none usage=none out=[] tmp=[] action=true\n" +
		"main in=[t.csv t.csv.manifest] state={} usage=none out=[] tmp=[] action=true\n" +
		"after in=[t.csv t.csv.manifest] state=none usage=[] out=[] tmp=[] action=true\n"
	if got.out != want {
		t.Errorf("log:\n%s\nwant:\n%s", got.out, want)
	}
	if !got.Success {
		t.Errorf("%+v, want success", got.doc.Error)
	}
	if s := r.state(""); s == nil || r.json(s.Component) != `{"main":1}` {
		t.Errorf("state = %+v, want the main component's", s)
	}
	r.clean()
}

// TestExits holds section 5: what an end of the component means.
func TestExits(t *testing.T) {
	say := func(out, errs string, code int) mem.Program {
		return func(p *mem.Proc) int {
			fmt.Fprint(p.Stdout(), out)
			fmt.Fprint(p.Stderr(), errs)
			return code
		}
	}
	long := strings.Repeat("x", 3000) + strings.Repeat("y", 3000)
	for name, c := range map[string]struct {
		program mem.Program
		data    string
		status  int
		fault   string
		message string
	}{
		"Success":        {say("", "only a warning", 0), "", 0, "", ""},
		"User":           {say("out", "bad input\n", 1), "", 1, "user", "bad input"},
		"UserByStdout":   {say("from stdout\n", "", 1), "", 1, "user", "from stdout"},
		"UserSilent":     {say("", "", 1), "", 1, "user", "no error message"},
		"Application":    {say("", "boom", 2), "", 2, "application", `main container "main" failed: (2) boom`},
		"Code200":        {say("", "boom", 200), "", 2, "application", `(200) boom`},
		"NoApplication":  {say("", "boom", 2), `{"logging": {"no_application_errors": true}}`, 1, "user", `failed: (2) boom`},
		"Terminated":     {say("", "", 137), "", 1, "user", "component terminated"},
		"Long":           {say("", long, 1), "", 1, "user", strings.Repeat("x", 1997) + " ... " + strings.Repeat("y", 1997)},
		"VeryLong":       {say("", strings.Repeat(long, 30), 1), "", 1, "user", strings.Repeat("x", 1997) + " ... " + strings.Repeat("y", 1997)},
		"Runtime":        {say("", "", 125), "", 1, "user", "component terminated"},
		"OutOfMemory":    {func(p *mem.Proc) int { p.Alloc(300 << 20); return 0 }, `{"memory": "256m"}`, 137, "user", "out of memory (exceeded 256M)"},
		"Crash":          {func(p *mem.Proc) int { panic("x") }, "", 2, "application", "failed"},
		"StateNoJSON":    {func(p *mem.Proc) int { put(p, "/data/out/state.json", "{"); return 0 }, "", 2, "application", "state.json"},
		"UsageWrong":     {func(p *mem.Proc) int { put(p, "/data/out/usage.json", `{"a": 1}`); return 0 }, "", 2, "application", "usage"},
		"UsageAndFailed": {func(p *mem.Proc) int { put(p, "/data/out/usage.json", `{"a": 1}`); return 1 }, "", 1, "user", "no error message"},
		"ResultWrong":    {func(p *mem.Proc) int { put(p, "/data/out/result.json", `7`); return 0 }, "", 0, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.define("main", c.data, c.program)
			r.config("main", "")
			got := r.run(nil)
			if got.Status != c.status || got.Success != (c.status == 0) {
				t.Errorf("status = %d, want %d: %s", got.Status, c.status, got.Component)
			}
			if c.fault == "" {
				if got.doc.Error != nil {
					t.Errorf("error = %+v, want none", got.doc.Error)
				}
				return
			}
			if e := got.doc.Error; e == nil || string(e.Type) != c.fault || !strings.Contains(e.Message, c.message) || len([]rune(e.Message)) > 4000 {
				t.Errorf("error = %+v, want %s with %q", e, c.fault, c.message)
			}
			if r.state("") != nil {
				t.Error("a state was stored after a failure")
			}
			r.clean()
		})
	}
}

func TestTimeout(t *testing.T) {
	r := newRig(t)
	r.define("main", "", func(p *mem.Proc) int {
		<-p.Context().Done()
		p.Getwd()
		p.Sleep(1 << 40)
		return 0
	})
	r.config("main", `"runtime": {"process_timeout": 1}`)
	x := r.executor()
	id, err := x.Submit(t.Context(), &caisson.Task{Component: &caisson.ComponentRun{Config: "conf"}, Grace: 1}, r.submission())
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	got := r.ended(x, id)
	if e := got.doc.Error; got.Status != 124 || e == nil || e.Type != "user" || !strings.Contains(e.Message, "exceeded the timeout of 1 seconds") {
		t.Errorf("status %d, %+v, want 124 and the timeout", got.Status, e)
	}
}
