package enginetest

import (
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func warmCases() []Case {
	needs := []string{"warm"}
	return []Case{
		{
			Name: "warm/assign", Rules: []int{4, 24}, Needs: needs,
			Rule: "a sandbox that waits runs the program that it is given, with its variables and secrets, and nothing of the one that it was made with",
			body: warmAssign,
		},
		{
			Name: "warm/restart", Rules: []int{119, 120}, Needs: needs, wants: []facility{system},
			Rule: "a sandbox that waits is given its program by another process than made it",
			body: warmRestart,
		},
		{
			Name: "warm/once", Rules: []int{4, 126}, Needs: needs,
			Rule: "a sandbox in which a program was started is never given another one, and that program goes on",
			body: warmOnce,
		},
		{
			Name: "warm/fixed", Rules: []int{4, 128}, Needs: needs,
			Rule: "what a sandbox was made from can't be changed: limits, mounts, names, and files with secrets are refused",
			body: warmFixed,
		},
		{
			Name: "warm/gone", Rules: []int{4}, Needs: needs,
			Rule: "a sandbox that was destroyed, or was never made, is given no program",
			body: warmGone,
		},
	}
}

// reassigned is made with the same sandbox as spec, for another program.
func (t *T) reassigned(spec *engine.Spec, args ...string) *engine.Spec {
	out := *spec
	out.Args = t.argsOf(spec, args...)
	return &out
}

// argsOf are the arguments that run the inside program with words(args) in the
// sandbox of spec.
func (t *T) argsOf(spec *engine.Spec, args ...string) []string {
	other := *spec
	other.Mounts = nil
	t.program(&other, t.inside(spec, words(args)...))
	return other.Args
}

// assign gives the sandbox of spec its program, and starts that.
func (t *T) assign(e engine.Engine, spec *engine.Spec) *box {
	sb, err := e.(engine.Assigner).Assign(t.ctx, spec)
	t.ok(err, "Assign")
	if sb.ID() != spec.ID {
		t.Errorf("Assign returns the sandbox %q, want %q", sb.ID(), spec.ID)
	}
	return t.begin(sb, spec)
}

func warmAssign(t *T) {
	made := t.spec("say first ; exit 9")
	made.Env = map[string]string{"EARLIER": "x"}
	t.create(made)
	spec := t.reassigned(made, "report")
	spec.Env = map[string]string{"LATER": "y"}
	if t.features.Secrets {
		spec.Secrets = []engine.Secret{{Name: "TOKEN", Value: []byte("0123456789"), As: caisson.SecretEnv}}
	}
	b := t.assign(t.engine, spec)
	b.success()
	facts := b.facts()
	if value, _ := variable(facts, "LATER"); value != "y" {
		t.Errorf("the variable is %q, want y", value)
	}
	if value, ok := variable(facts, "EARLIER"); ok {
		t.Errorf("a variable of the program that it was made with is there: %q", value)
	}
	if _, ok := variable(facts, "TOKEN"); ok != t.features.Secrets || strings.Contains(b.stdout(), "0123456789") {
		t.Errorf("the secret is there: %v; the log: %q", ok, b.stdout())
	}
}

func warmRestart(t *T) {
	if t.h.Restart == nil {
		return
	}
	made := t.spec("say first ; exit 9")
	t.create(made)
	later := t.h.Restart(t.tb, t.engine)
	t.after(func() { t.ok(later.Close(), "Close") })
	if _, err := later.Probe(t.ctx); err != nil {
		t.Fatalf("Probe: %v", err)
	}
	b := t.assign(later, t.reassigned(made, "say second ; exit 3"))
	b.expect(caisson.ReasonExited, 3, 0)
	if out := b.stdout(); out != "second\n" {
		t.Errorf("the log is %q, want second", out)
	}
}

func warmOnce(t *T) {
	made := t.spec("say first ; hold")
	b := t.start(made)
	b.says("first")
	_, err := t.engine.(engine.Assigner).Assign(t.ctx, t.reassigned(made, "exit 3"))
	t.kind(err, "Assign", caisson.ErrExists)
	b.stop(engine.Stop{Reason: caisson.ReasonKilled})
	b.expect(caisson.ReasonKilled, 0, sigKill)
	_, err = t.engine.(engine.Assigner).Assign(t.ctx, t.reassigned(made, "exit 3"))
	t.kind(err, "Assign after the end", caisson.ErrExists, caisson.ErrAborted)
}

func warmFixed(t *T) {
	made := t.spec("exit 0")
	sb := t.create(made)
	for what, change := range map[string]func(s *engine.Spec){
		"a limit":    func(s *engine.Spec) { s.Limits.Log = 12345 },
		"an attempt": func(s *engine.Spec) { s.Attempt++ },
		"the work":   func(s *engine.Spec) { s.WorkOwner.UID++ },
		"a mount": func(s *engine.Spec) {
			s.Mounts = append(slices.Clone(s.Mounts), engine.Mount{Type: engine.MountTmpfs, Target: "/fast"})
		},
		"a folder": func(s *engine.Spec) { s.Workdir = "/other" },
		"a secret file": func(s *engine.Spec) {
			s.Secrets = []engine.Secret{{Name: "KEY", Value: []byte("0123456789"), As: caisson.SecretFile}}
		},
	} {
		other := t.reassigned(made, "exit 0")
		change(other)
		_, err := t.engine.(engine.Assigner).Assign(t.ctx, other)
		if caisson.KindOf(err) != caisson.ErrUnsupported {
			t.Errorf("Assign with %s = %v, want an error of kind unsupported", what, err)
		}
	}
	t.ok(sb.Destroy(t.ctx), "Destroy")
}

func warmGone(t *T) {
	never := t.spec("exit 0")
	_, err := t.engine.(engine.Assigner).Assign(t.ctx, never)
	t.kind(err, "Assign to nothing", caisson.ErrNotFound)
	made := t.spec("exit 0")
	t.ok(t.create(made).Destroy(t.ctx), "Destroy")
	_, err = t.engine.(engine.Assigner).Assign(t.ctx, t.reassigned(made, "exit 0"))
	t.kind(err, "Assign to what was destroyed", caisson.ErrAborted, caisson.ErrNotFound)
}
