package enginetest

import (
	"encoding/json"
	"reflect"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func constructionCases() []Case {
	return []Case{
		{
			Name: "construction/probe-is-constant", Rules: []int{3},
			Rule: "Probe answers the same again while the host is the same, the engine is usable, and what is missing has a reason",
			body: probeIsConstant,
		},
		{
			Name: "construction/features-agree", Rules: []int{3, 4},
			Rule: "a sandbox or engine has an optional interface if and only if the feature is declared",
			body: featuresAgree,
		},
		{
			Name: "construction/schemas", Rules: []int{1, 2},
			Rule: "schemas are JSON objects that permit no unknown keys, and there is documentation for users",
			body: schemas,
		},
		{
			Name: "construction/all-problems-at-once", Rules: []int{5}, Needs: []string{"command"},
			Rule: "a spec that contradicts itself is ErrInvalid, and the error names every field at fault",
			body: allProblemsAtOnce,
		},
		{
			Name: "construction/ids", Rules: []int{5, 131}, Attacks: []int{13},
			Rule: "an id that could not be part of a path is ErrInvalid",
			body: attacked("construction/ids"),
		},
		{
			Name: "construction/max-sandboxes", Rules: []int{6}, wants: []facility{fewSandboxes},
			Rule: "as many sandboxes live at once as Features say, one more is ErrExhausted, and a destroyed one gives its place back",
			body: maxSandboxes,
		},
		{
			Name: "construction/close", Rules: []int{7},
			Rule: "Close may be called again, and afterwards every method is ErrUnavailable",
			body: closedEngine,
		},
		{
			Name: "construction/two-engines", Rules: []int{8},
			Rule: "two engines of one process do not disturb each other",
			body: twoEngines,
		},
	}
}

func probeIsConstant(t *T) {
	f, err := t.engine.Probe(t.ctx)
	t.ok(err, "Probe")
	if !f.Usable || !reflect.DeepEqual(f, t.features) {
		t.Errorf("Probe = %+v, before it was %+v", f, t.features)
	}
	for _, m := range f.Missing {
		if m.What == "" || m.Why == "" {
			t.Errorf("Missing has %+v: what is missing, and why?", m)
		}
	}
	if t.engine.Name() == "" || t.engine.Name() != strings.ToLower(t.engine.Name()) {
		t.Errorf("Name = %q, want a short lower-case name", t.engine.Name())
	}
}

func featuresAgree(t *T) {
	sb := t.create(t.spec("hold"))
	for feature, has := range map[string]bool{
		"exec": is[engine.Execer](sb), "files": is[engine.Filer](sb),
		"stats": is[engine.StatsReader](sb), "pause": is[engine.Pauser](sb),
		"snapshot": is[engine.Snapshotter](sb), "displays": t.shows(sb),
		"events":  is[engine.EventSource](sb),
		"prepare": is[engine.Preparer](t.engine), "warm": is[engine.Assigner](t.engine),
	} {
		if want, _ := declared(&t.features, feature); has != want {
			t.Errorf("feature %s is declared: %v; its interface is there: %v", feature, want, has)
		}
	}
	if t.features.Terminal && !t.features.Exec {
		t.Errorf("terminals are declared and exec is not")
	}
}

// is reports whether v has an interface.
func is[I any](v any) bool {
	_, ok := v.(I)
	return ok
}

func schemas(t *T) {
	for name, schema := range map[string]json.RawMessage{
		"ConfigSchema": t.features.ConfigSchema, "OptionsSchema": t.features.OptionsSchema,
	} {
		if schema == nil {
			continue
		}
		var object struct {
			Type       string `json:"type"`
			Additional *bool  `json:"additionalProperties"`
		}
		if err := json.Unmarshal(schema, &object); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if object.Type != "object" || object.Additional == nil || *object.Additional {
			t.Errorf("%s: want type object and additionalProperties false", name)
		}
	}
	if t.features.Doc == "" {
		t.Errorf("Features.Doc is empty")
	}
}

func allProblemsAtOnce(t *T) {
	spec := t.spec("exit 0")
	spec.Env = map[string]string{"A=B": "x"}
	spec.Workdir = "relative"
	spec.Timeout = -1
	spec.StopSignal = 1000
	err := t.refused(spec, caisson.ErrInvalid)
	for _, field := range []string{"env", "workdir", "timeout", "stop_signal"} {
		if err != nil && !strings.Contains(err.Error(), field) {
			t.Errorf("the error does not name %s: %v", field, err)
		}
	}
	spec = t.spec("exit 0")
	spec.Args, spec.Module = nil, ""
	t.refused(spec, caisson.ErrInvalid, caisson.ErrUnsupported)
}

func maxSandboxes(t *T) {
	var all []engine.Sandbox
	for range t.features.MaxSandboxes {
		all = append(all, t.create(t.spec("hold")))
	}
	t.refused(t.spec("hold"), caisson.ErrExhausted)
	t.destroy(all[0])
	bad := t.spec("hold")
	bad.Env = map[string]string{"": ""}
	t.refused(bad, caisson.ErrInvalid)
	t.create(t.spec("hold"))
	t.refused(t.spec("hold"), caisson.ErrExhausted)
}

func closedEngine(t *T) {
	e := t.newEngine()
	b := t.launch("hold") // of the engine that stays open
	for range 2 {
		t.ok(e.Close(), "Close")
	}
	spec := t.spec("hold")
	_, probe := e.Probe(t.ctx)
	_, create := e.Create(t.ctx, spec)
	_, find := e.Recover(t.ctx, b.spec.Dir)
	_, sweep := e.Sweep(t.ctx, []string{b.spec.ID})
	for call, err := range map[string]error{"Probe": probe, "Create": create, "Recover": find, "Sweep": sweep} {
		t.kind(err, call+" after Close", caisson.ErrUnavailable)
	}
	if err := b.process.Signal(t.ctx, 28); err != nil { // SIGWINCH does nothing
		t.Errorf("the other engine's sandbox: Signal = %v", err)
	}
}

func twoEngines(t *T) {
	first, second := t.engine, t.newEngine()
	a := t.launch("say one ; hold")
	t.engine = second
	b := t.launch("say two ; hold")
	a.says("one")
	b.says("two")
	t.destroy(b.Sandbox)
	t.ok(second.Close(), "Close")
	a.stop(engine.Stop{Reason: caisson.ReasonKilled})
	a.expect(caisson.ReasonKilled, 0, sigKill)
	t.engine = first
	c, _ := t.run("exit 3")
	c.expect(caisson.ReasonExited, 3, 0)
	_, err := t.engine.Create(t.ctx, a.spec)
	t.kind(err, "Create of a live id", caisson.ErrExists)
}
