//go:build unix

package executor

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// story makes a journal out of short words: "attempt", "staged", "created X",
// "exited X 3", "lost X", "timeout X", "failed X" (an error that may pass),
// "staged-out", "end" and so on.
func story(words ...string) []caisson.Event {
	var events []caisson.Event
	attempt := 0
	for i, w := range words {
		var typ, name string
		code := 0
		fmt.Sscan(w, &typ, &name, &code)
		ev := caisson.Event{Seq: int64(i + 1), Step: name, Time: time.Unix(int64(i), 0)}
		switch typ {
		case "attempt":
			attempt++
			ev.Type, ev.Boot = caisson.EventAttempt, "boot"
		case "staged", "created", "started", "staged-out", "retry", "ended":
			ev.Type = caisson.EventType(typ)
		case "unstaged":
			ev.Type, ev.Error = caisson.EventStaged, &caisson.Failure{Kind: caisson.ErrNotFound}
		case "exited":
			ev.Type, ev.Exit = caisson.EventExited, &caisson.Exit{Reason: caisson.ReasonExited, Code: code}
		case "lost", "timeout", "stopped", "aborted":
			ev.Type, ev.Exit = caisson.EventExited, &caisson.Exit{Reason: caisson.Reason(typ)}
		case "failed":
			ev.Type, ev.Error = caisson.EventExited, &caisson.Failure{Kind: caisson.ErrExhausted}
		case "success", "fail":
			ev.Type, ev.Result = caisson.EventAttemptEnd, &caisson.Result{Success: typ == "success", Exit: caisson.Exit{Reason: caisson.ReasonExited}}
		case "fail-by":
			ev.Step = ""
			ev.Type, ev.Result = caisson.EventAttemptEnd, &caisson.Result{Exit: caisson.Exit{Reason: caisson.Reason(name)}}
		case "broken":
			ev.Type, ev.Result = caisson.EventAttemptEnd, &caisson.Result{Error: &caisson.Failure{Kind: caisson.ErrUnavailable}}
		case "unfit":
			ev.Type, ev.Result = caisson.EventAttemptEnd, &caisson.Result{Error: &caisson.Failure{Kind: caisson.ErrInvalid}}
		default:
			panic(w)
		}
		ev.Attempt = attempt
		events = append(events, ev)
	}
	return events
}

// A planCase is a journal and what is to be done next.
type planCase struct {
	name  string
	task  string // of p(re), s(idecar), o (post), f(inally), r(etry)
	story []string
	asked []request
	boot  string // empty: that of the attempt
	gone  bool
	over  bool
	now   int64 // seconds
	want  string
}

func ask(reason caisson.Reason, seq int64) request {
	return request{Seq: seq, Stop: engine.Stop{Reason: reason}}
}

var planCases = []planCase{
	{name: "accepted", want: "begin 1"},
	{name: "begun", story: []string{"attempt"}, want: "stage"},
	{name: "staged", story: []string{"attempt", "staged"}, want: "step main"},
	{name: "created", story: []string{"attempt", "staged", "created main"}, want: "step main"},
	{name: "started", story: []string{"attempt", "staged", "created main", "started main"}, want: "step main"},
	{name: "exited 0", story: []string{"attempt", "staged", "created main", "exited main 0"}, want: "stage out"},
	{name: "exited 1", story: []string{"attempt", "staged", "created main", "exited main 1"}, want: "stage out"},
	{name: "staged out", story: []string{"attempt", "staged", "exited main 0", "staged-out"}, want: "end attempt success"},
	{name: "staged out after failure", story: []string{"attempt", "staged", "exited main 1", "staged-out"}, want: "end attempt main"},
	{name: "over", story: []string{"attempt", "staged", "exited main 0", "staged-out", "success"}, want: "finish"},
	{name: "ended", story: []string{"attempt", "staged", "exited main 0", "staged-out", "success", "ended"}, want: "nothing"},

	{name: "result without its journal", story: []string{"attempt", "staged", "created main"}, over: true, want: "finish"},
	{name: "result without any journal", over: true, want: "finish"},
	{name: "ended with a result", story: []string{"attempt", "success", "ended"}, over: true, want: "nothing"},

	{name: "not staged", story: []string{"attempt", "unstaged"}, want: "end attempt"},
	{name: "not staged, finally", task: "f", story: []string{"attempt", "unstaged"}, want: "step finally-0"},
	{name: "not created", story: []string{"attempt", "staged", "failed main"}, want: "stage out"},

	{name: "pre first", task: "p", story: []string{"attempt", "staged"}, want: "step pre-0"},
	{name: "second pre", task: "pp", story: []string{"attempt", "staged", "exited pre-0 0"}, want: "step pre-1"},
	{name: "main after pre", task: "p", story: []string{"attempt", "staged", "exited pre-0 0"}, want: "step main"},
	{name: "pre failed", task: "p", story: []string{"attempt", "staged", "exited pre-0 2"}, want: "stage out"},
	{name: "pre failed, staged out", task: "p", story: []string{"attempt", "staged", "exited pre-0 2", "staged-out"}, want: "end attempt pre-0"},
	{name: "post", task: "o", story: []string{"attempt", "staged", "exited main 0"}, want: "step post-0"},
	{name: "no post after failure", task: "o", story: []string{"attempt", "staged", "exited main 1"}, want: "stage out"},
	{name: "post failed", task: "o", story: []string{"attempt", "staged", "exited main 0", "exited post-0 1", "staged-out"}, want: "end attempt post-0"},
	{name: "finally", task: "f", story: []string{"attempt", "staged", "exited main 0", "staged-out"}, want: "step finally-0"},
	{name: "finally after failure", task: "f", story: []string{"attempt", "staged", "exited main 1", "staged-out"}, want: "step finally-0"},
	{name: "second finally after a failed one", task: "ff", story: []string{"attempt", "staged", "exited main 0", "staged-out", "exited finally-0 9"}, want: "step finally-1"},
	{name: "finally changes nothing", task: "f", story: []string{"attempt", "staged", "exited main 0", "staged-out", "exited finally-0 9"}, want: "end attempt success"},

	{name: "sidecar before main", task: "s", story: []string{"attempt", "staged"}, want: "sidecar sidecar-0"},
	{name: "sidecar created", task: "s", story: []string{"attempt", "staged", "created sidecar-0"}, want: "sidecar sidecar-0"},
	{name: "main beside sidecar", task: "s", story: []string{"attempt", "staged", "created sidecar-0", "started sidecar-0"}, want: "step main"},
	{name: "sidecar ended too early", task: "s", story: []string{"attempt", "staged", "created sidecar-0", "started sidecar-0", "exited sidecar-0 0"}, want: "stage out"},
	{name: "sidecar ended beside main", task: "s", story: []string{"attempt", "staged", "created sidecar-0", "started sidecar-0", "created main", "exited sidecar-0 0"}, want: "step main"},
	{name: "sidecar after main", task: "so", story: []string{"attempt", "staged", "created sidecar-0", "started sidecar-0", "created main", "exited main 0"}, want: "stop sidecar sidecar-0"},
	{name: "sidecar after failed main", task: "so", story: []string{"attempt", "staged", "created sidecar-0", "started sidecar-0", "created main", "exited main 4"}, want: "stop sidecar sidecar-0"},
	{name: "post after sidecar", task: "so", story: []string{"attempt", "staged", "created sidecar-0", "started sidecar-0", "created main", "exited main 0", "exited sidecar-0 143"}, want: "step post-0"},
	{name: "sidecar when the second failed", task: "ss", story: []string{"attempt", "staged", "created sidecar-0", "started sidecar-0", "failed sidecar-1"}, want: "stop sidecar sidecar-0"},

	{name: "retry", task: "r", story: []string{"attempt", "fail"}, want: "retry"},
	{name: "no retry without policy", story: []string{"attempt", "fail"}, want: "finish"},
	{name: "no retry after success", task: "r", story: []string{"attempt", "success"}, want: "finish"},
	{name: "retry of a lost attempt", task: "r", story: []string{"attempt", "fail-by lost"}, want: "retry"},
	{name: "retry after timeout", task: "r", story: []string{"attempt", "fail-by timeout"}, want: "retry"},
	{name: "no retry after stop", task: "r", story: []string{"attempt", "fail-by stopped"}, want: "finish"},
	{name: "no retry after cancel", task: "r", story: []string{"attempt", "fail-by cancelled"}, want: "finish"},
	{name: "no retry once asked", task: "r", story: []string{"attempt", "fail"}, asked: []request{ask("stopped", 2)}, want: "finish"},
	{name: "retry of an error that may pass", task: "r", story: []string{"attempt", "broken"}, want: "retry"},
	{name: "no retry of one that does not", task: "r", story: []string{"attempt", "unfit"}, want: "finish"},
	{name: "pause", task: "r", story: []string{"attempt", "fail", "retry"}, now: 3, want: "sleep 12"},
	{name: "clock set back", task: "r", story: []string{"attempt", "fail", "retry"}, now: -1000, want: "sleep -990"},
	{name: "second attempt", task: "r", story: []string{"attempt", "fail", "retry"}, now: 12, want: "begin 2"},
	{name: "second pause is longer", task: "rr", story: []string{"attempt", "fail", "retry", "attempt", "fail", "retry"}, now: 6, want: "sleep 35"},
	{name: "limit", task: "r", story: []string{"attempt", "fail", "retry", "attempt", "fail"}, now: 99, want: "finish"},
	{name: "stop while pausing", task: "r", story: []string{"attempt", "fail", "retry"}, asked: []request{ask("stopped", 3)}, want: "finish"},
	{name: "fresh second attempt", task: "rp", story: []string{"attempt", "staged", "exited pre-0 1", "fail", "retry", "attempt"}, now: 50, want: "stage"},

	{name: "stop before all", asked: []request{ask("stopped", 1)}, want: "finish"},
	{name: "stop before staging", story: []string{"attempt"}, asked: []request{ask("stopped", 1)}, want: "end attempt stopped"},
	{name: "stop before main", story: []string{"attempt", "staged"}, asked: []request{ask("killed", 1)}, want: "stage out"},
	{name: "stop while main runs", story: []string{"attempt", "staged", "created main"}, asked: []request{ask("stopped", 1)}, want: "step main"},
	{name: "stop before post", task: "o", story: []string{"attempt", "staged", "exited main 0"}, asked: []request{ask("stopped", 1)}, want: "stage out"},
	{name: "stop too late", story: []string{"attempt", "staged", "exited main 0"}, asked: []request{ask("stopped", 3)}, want: "stage out"},
	{name: "stop too late is success", story: []string{"attempt", "staged", "exited main 0", "staged-out"}, asked: []request{ask("stopped", 3)}, want: "end attempt success"},
	{name: "finally after stop", task: "f", story: []string{"attempt", "staged", "stopped main", "staged-out"}, asked: []request{ask("stopped", 3)}, want: "step finally-0"},
	{name: "stop of finally", task: "ff", story: []string{"attempt", "staged", "stopped main", "staged-out", "created finally-0", "stopped finally-0"}, asked: []request{ask("stopped", 3), ask("stopped", 5)}, want: "end attempt main"},

	{name: "abort stages nothing out", story: []string{"attempt", "staged", "aborted main"}, asked: []request{ask("aborted", 3)}, want: "end attempt main aborted"},
	{name: "finally after abort", task: "f", story: []string{"attempt", "staged", "aborted main"}, asked: []request{ask("aborted", 3)}, want: "step finally-0"},
	{name: "abort takes success back", story: []string{"attempt", "staged", "exited main 0"}, asked: []request{ask("aborted", 3)}, want: "end attempt main aborted"},
	{name: "abort after stop", story: []string{"attempt", "staged", "stopped main"}, asked: []request{ask("stopped", 3), ask("aborted", 3)}, want: "end attempt main aborted"},
	{name: "abort after staging out is too late", story: []string{"attempt", "staged", "exited main 0", "staged-out"}, asked: []request{ask("aborted", 4)}, want: "end attempt success"},

	{name: "rebooted before main", story: []string{"attempt", "staged"}, boot: "other", want: "end attempt lost"},
	{name: "rebooted while main ran", story: []string{"attempt", "staged", "created main"}, boot: "other", want: "step main"},
	{name: "rebooted, then lost", story: []string{"attempt", "staged", "created main", "lost main"}, boot: "other", want: "end attempt main lost"},
	{name: "rebooted after main", task: "o", story: []string{"attempt", "staged", "created main", "exited main 0"}, boot: "other", want: "end attempt lost"},
	{name: "rebooted before staging out", story: []string{"attempt", "staged", "exited main 0"}, boot: "other", want: "end attempt main lost"},
	{name: "rebooted after failure", story: []string{"attempt", "staged", "exited main 1"}, boot: "other", want: "end attempt main"},
	{name: "rebooted after staging out", story: []string{"attempt", "staged", "exited main 0", "staged-out"}, boot: "other", want: "end attempt success"},
	{name: "rebooted before staging", story: []string{"attempt"}, boot: "other", want: "end attempt lost"},
	{name: "finally after reboot", task: "f", story: []string{"attempt", "staged"}, boot: "other", want: "step finally-0"},
	{name: "keeper killed", story: []string{"attempt", "staged", "created main", "lost main"}, want: "stage out"},

	{name: "secrets gone", gone: true, want: "finish"},
	{name: "secrets gone before main", gone: true, story: []string{"attempt", "staged"}, want: "stage out"},
	{name: "secrets gone while main runs", gone: true, story: []string{"attempt", "staged", "created main"}, want: "step main"},
	{name: "secrets gone before finally", task: "f", gone: true, story: []string{"attempt", "staged", "exited main 0", "staged-out"}, want: "end attempt success"},
	{name: "secrets gone before retry", task: "r", gone: true, story: []string{"attempt", "fail"}, want: "finish"},
}

func TestNext(t *testing.T) {
	for _, c := range planCases {
		t.Run(c.name, func(t *testing.T) {
			task := &caisson.Task{}
			for _, r := range c.task {
				switch r {
				case 'p':
					task.Pre = append(task.Pre, caisson.Step{})
				case 's':
					task.Sidecars = append(task.Sidecars, caisson.Step{})
				case 'o':
					task.Post = append(task.Post, caisson.Step{})
				case 'f':
					task.Finally = append(task.Finally, caisson.Step{})
				case 'r':
					task.Retry.Limit++
					task.Retry.Delay = caisson.Duration(10 * time.Second)
					task.Retry.Factor = 3
				}
			}
			v := &view{task: task, steps: stepsOf(task), h: newHistory(story(c.story...)), asked: c.asked, boot: c.boot, over: c.over, now: time.Unix(c.now, 0)}
			if c.boot == "" {
				v.boot = "boot"
			}
			if c.gone {
				v.gone = errors.New("gone")
			}
			if got := describe(next(v)); got != c.want {
				t.Errorf("next = %q, want %q", got, c.want)
			}
		})
	}
}

// describe is an action in short words.
func describe(a action) string {
	s := string(a.deed)
	if a.step != nil {
		s += " " + a.step.name
	}
	if a.attempt != 0 {
		s += fmt.Sprint(" ", a.attempt)
	}
	if !a.until.IsZero() {
		s += fmt.Sprint(" ", a.until.Unix())
	}
	if a.deed != doEndAttempt {
		return s
	}
	out := a.outcome
	if out.success {
		return s + " success"
	}
	if out.step != "" {
		s += " " + out.step
	}
	switch out.exit.Reason {
	case caisson.ReasonAborted, caisson.ReasonLost:
		s += " " + string(out.exit.Reason)
	case caisson.ReasonStopped, caisson.ReasonKilled:
		if out.step == "" {
			s += " " + string(out.exit.Reason)
		}
	}
	return s
}

// Whatever a journal says, and however it was cut off, there is a next action,
// and no step that may have run is begun anew.
func TestNextOnEveryPrefix(t *testing.T) {
	full := story("attempt", "staged", "created pre-0", "started pre-0", "exited pre-0 0", "created sidecar-0", "started sidecar-0",
		"created main", "started main", "exited main 0", "exited sidecar-0 0", "created post-0", "exited post-0 0", "staged-out",
		"created finally-0", "exited finally-0 0", "success", "ended")
	task := &caisson.Task{
		Pre: make([]caisson.Step, 1), Sidecars: make([]caisson.Step, 1),
		Post: make([]caisson.Step, 1), Finally: make([]caisson.Step, 1),
	}
	for n := range len(full) + 1 {
		for _, boot := range []string{"boot", "other"} {
			for _, asked := range [][]request{nil, {ask("stopped", 1)}, {ask("aborted", 1)}, {ask("stopped", 99)}} {
				v := &view{task: task, steps: stepsOf(task), h: newHistory(full[:n]), asked: asked, boot: boot, now: time.Now()}
				a := next(v)
				if a.deed == "" {
					t.Errorf("after %d events, boot %s, asked %v: nothing to do", n, boot, asked)
				}
				if a.step != nil && v.h.steps[a.step.name].over() {
					t.Errorf("after %d events, boot %s, asked %v: %s once more", n, boot, asked, describe(a))
				}
			}
		}
	}
}

func TestPause(t *testing.T) {
	r := &caisson.Retry{Delay: caisson.Duration(time.Second)}
	for attempt, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 4000: maxDelay} {
		if got := pause(r, attempt); got != want {
			t.Errorf("pause after attempt %d = %v, want %v", attempt, got, want)
		}
	}
	if got := pause(&caisson.Retry{}, 5); got != 0 {
		t.Errorf("pause without a delay = %v, want 0", got)
	}
}
