package enginetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func concurrencyCases() []Case {
	return []Case{
		{
			Name: "concurrency/side-by-side", Rules: []int{6, 13, 29}, Needs: []string{"command"},
			Rule: "many sandboxes run at once, each with its own log, work folder, environment and exit", wants: []facility{system},
			body: sideBySide,
		},
		{
			Name: "concurrency/same-id", Rules: []int{8, 13},
			Rule: "of several Creates of one id at once exactly one succeeds, the others are ErrExists",
			body: sameIDAtOnce,
		},
		{
			Name: "concurrency/start-once", Rules: []int{12, 48},
			Rule: "of several Starts at once exactly one starts the program",
			body: startOnce,
		},
		{
			Name: "concurrency/hammer", Rules: []int{48, 118},
			Rule: "sandboxes that are made, stopped and destroyed at random at once end consistently",
			body: hammer, deadline: 5 * time.Minute,
		},
		{
			Name: "concurrency/one-after-the-other", Rules: []int{52, 118}, Attacks: []int{34},
			Rule: "many short programs leave no zombie, descriptor, folder or memory behind", wants: []facility{system},
			body: oneAfterTheOther, deadline: 5 * time.Minute,
		},
	}
}

// atOnce is how many sandboxes the cases run at once.
func (t *T) atOnce(n int) int {
	if most := t.features.MaxSandboxes; most > 0 {
		return min(n, most)
	}
	return n
}

func sideBySide(t *T) {
	n := t.atOnce(16)
	boxes := make([]*box, n)
	for i := range n {
		spec := t.spec(fmt.Sprintf("trap 15 ; write /work/me %d ; say I am %d ; await 15 ; read /work/me ; exit %d", i, i, i))
		spec.Env = map[string]string{"ME": fmt.Sprint(i)}
		boxes[i] = t.start(spec)
	}
	for i, b := range boxes {
		b.says(fmt.Sprint("I am ", i))
	}
	parallel(n, func(i int) { t.kindOK(boxes[i].process.Signal(t.ctx, sigTerm), "Signal") })
	for i, b := range boxes {
		b.expect(caisson.ReasonExited, i, 0)
		if got, want := b.stdout(), fmt.Sprintf("I am %d\n%d", i, i); got != want {
			t.Errorf("sandbox %d has the log %q, want %q", i, got, want)
		}
	}
	parallel(n, func(i int) { t.destroy(boxes[i].Sandbox) })
}

func sameIDAtOnce(t *T) {
	id := t.newID()
	var made atomic.Int32
	specs := make([]*engine.Spec, t.atOnce(8))
	for i := range specs {
		specs[i] = t.spec("exit 0")
		specs[i].ID = id
	}
	parallel(len(specs), func(i int) {
		sb, err := t.engine.Create(t.ctx, specs[i])
		if err == nil {
			made.Add(1)
			t.after(func() { t.destroy(sb) })
			return
		}
		t.kind(err, "Create of an id that is live", caisson.ErrExists)
		if entries, _ := os.ReadDir(specs[i].Dir); len(entries) > 0 {
			t.Errorf("a Create that lost left %s in its Spec.Dir", entries[0].Name())
		}
	})
	if n := made.Load(); n != 1 {
		t.Errorf("%d of %d Creates of one id succeeded, want 1", n, len(specs))
	}
}

func startOnce(t *T) {
	for range t.times(40) {
		b := &box{t: t, spec: t.spec("say once")}
		b.Sandbox = t.create(b.spec)
		var started atomic.Int32
		parallel(6, func(int) {
			_, err := b.Start(t.ctx)
			if err == nil {
				started.Add(1)
				return
			}
			t.kind(err, "another Start", caisson.ErrExists)
		})
		if n := started.Load(); n != 1 {
			t.Errorf("%d Starts succeeded, want 1", n)
		}
		var err error
		b.process, err = b.Process(t.ctx)
		t.ok(err, "Process")
		b.success()
		if got := b.stdout(); got != "once\n" {
			t.Errorf("stdout = %q, want it once", got)
		}
		t.destroy(b.Sandbox)
	}
}

func hammer(t *T) {
	programs := [][]string{
		{"exit", "0"},
		{"hold"},
		{"ignore", "15", ";", "hold"},
		{"raise", "11"},
		{"print", "stdout", "100k", "1"},
		{"spawn", "-s", "-q", "hold", ";", "exit", "1"},
	}
	rounds := t.times(200)
	parallel(t.atOnce(8), func(worker int) {
		random := rand.New(rand.NewPCG(uint64(worker), 1))
		for range rounds {
			t.strike(random, programs[random.IntN(len(programs))])
		}
	})
}

// strike runs one sandbox through a random life.
func (t *T) strike(random *rand.Rand, args []string) {
	spec := t.spec(args...)
	sb, err := t.engine.Create(t.ctx, spec)
	if err != nil {
		t.Errorf("Create = %v", err)
		return
	}
	defer t.destroy(sb)
	if random.IntN(8) == 0 {
		return
	}
	process, err := sb.Start(t.ctx)
	if err != nil {
		t.Errorf("Start = %v", err)
		return
	}
	time.Sleep(time.Duration(random.Int64N(int64(5 * time.Millisecond))))
	stop := engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(random.Int64N(int64(30 * time.Millisecond)))}
	if err := process.Stop(t.ctx, stop); err != nil && !errors.Is(err, caisson.ErrEnded) {
		t.Errorf("Stop = %v", err)
	}
	if random.IntN(4) == 0 {
		return // Destroy comes while it runs
	}
	exit, err := process.Wait(t.ctx)
	if err != nil || exit.Reason == "" || exit.Reason == caisson.ReasonLost {
		t.Errorf("Wait = %+v, %v", exit, err)
	}
}

func oneAfterTheOther(t *T) {
	for i := range t.times(1000) {
		b, _ := t.run("spawn", "-s", "-q", "exit", "0", ";", "exit", fmt.Sprint(i%256))
		b.expect(caisson.ReasonExited, i%256, 0)
		t.destroy(b.Sandbox)
		if t.failed() {
			return
		}
	}
}
