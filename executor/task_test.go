//go:build unix

package executor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
)

func TestRunSucceeds(t *testing.T) {
	r := newRig(t)
	r.store.files["alice"] = "down the rabbit hole"
	task := sh("mkdir out; cat in/alice.txt > out/copy.txt; cat conf.ini >> out/copy.txt; write .caisson-output 42; echo done; echo bad | err")
	task.Run = "mkdir out; cat in/alice.txt > out/copy.txt; cat conf.ini >> out/copy.txt; write .caisson-output 42; echo done"
	task.Name = "copy"
	task.Files = map[string]string{"conf.ini": "debug=1"}
	task.Inputs = []caisson.Input{{From: "test:alice", To: "in/alice.txt"}}
	task.Outputs = []caisson.Output{{Path: "out/*.txt", To: "test:results/"}}
	task.Mounts = []caisson.Mount{{Type: "test", Target: "/scratch"}, {Type: "test", Target: "below"}}
	p := r.process()
	id := p.submit(task)
	if err := p.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	got := r.result(id)
	if !got.Success || got.Status != 0 || got.Exit.Reason != caisson.ReasonExited || got.Step != "main" || got.Attempt != 1 {
		t.Errorf("result = %+v, want success", got)
	}
	if got.Output != "42\n" {
		t.Errorf("Output = %q, want 42", got.Output)
	}
	want := []caisson.OutputFile{{Path: "out/copy.txt", To: "test:results/copy.txt", Size: 27}}
	if diff := cmp.Diff(want, got.Outputs); diff != "" {
		t.Errorf("Outputs (-want +got):\n%s", diff)
	}
	if data, _ := r.store.get("results/copy.txt"); data != "down the rabbit holedebug=1" {
		t.Errorf("stored %q", data)
	}
	var phases []string
	for _, p := range got.Phases {
		phases = append(phases, p.Name)
	}
	wantPhases := []string{"stage in", "mount", "create", "start", "run main", "destroy", "stage out"}
	if diff := cmp.Diff(wantPhases, phases); diff != "" {
		t.Errorf("Phases (-want +got):\n%s", diff)
	}
	if got.Usage.Wall <= 0 || got.AcceptedAt.IsZero() || got.StartedAt.Before(got.AcceptedAt) || got.EndedAt.Before(got.StartedAt) {
		t.Errorf("times = %+v", got)
	}
	if words := r.words(id); words != "accepted attempt staged created:main started:main exited:main staged-out attempt-end ended" {
		t.Errorf("journal: %s", words)
	}
	if diff := cmp.Diff([]string{"mount /scratch", "mount /work/below", "release /work/below", "release /scratch"}, r.mounts.log); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if log := p.log(id, LogOptions{}); log != "1/main: done\n" {
		t.Errorf("log = %q", log)
	}
	r.clean()
}

// The environment, and where a step is.
func TestSurroundings(t *testing.T) {
	r := newRig(t)
	p := r.process()
	task := &caisson.Task{Program: caisson.Program{Cmd: []string{"env"}, Env: map[string]string{"A": "1", "CAISSON_WORK": "/x"}}}
	task.Pre = []caisson.Step{{Program: caisson.Program{Cmd: []string{"env"}, Env: map[string]string{"B": "2"}, Workdir: "sub"}}}
	task.Pre[0].Files = map[string]string{"sub/x": "", "/etc/app.ini": "outside"}
	task.Post = []caisson.Step{{Program: caisson.Program{Run: "pwd"}}}
	id := p.submit(task)
	if err := p.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if got := r.result(id); !got.Success {
		t.Fatalf("result = %+v", got)
	}
	main := p.log(id, LogOptions{Step: "main"})
	for _, want := range []string{"A=1\n", "CAISSON_WORK=/work\n", "CAISSON_TASK=" + id + "\n", "CAISSON_ATTEMPT=1\n", "CAISSON_STEP=main\n", "CAISSON_OUTPUT=/work/.caisson-output\n", "CAISSON_PROGRESS=/work/.caisson-progress\n"} {
		if !strings.Contains(main, want) {
			t.Errorf("main's environment lacks %q: %q", want, main)
		}
	}
	if strings.Contains(main, "B=2") {
		t.Errorf("main sees a step's variable")
	}
	if pre := p.log(id, LogOptions{Step: "pre-0"}); !strings.Contains(pre, "A=1\n") || !strings.Contains(pre, "B=2\n") {
		t.Errorf("pre's environment = %q", pre)
	}
	if post := p.log(id, LogOptions{Step: "post-0"}); post != "1/post-0: /work\n" {
		t.Errorf("post's folder = %q", post)
	}
	r.clean()
}

// An ending is a task and what it must end in.
type ending struct {
	name   string
	task   func(*caisson.Task)
	status int
	reason caisson.Reason
	step   string
	kind   caisson.Kind // of the error, if any
	words  string       // the steps that were begun, in order
}

var endings = []ending{
	{name: "code", task: func(t *caisson.Task) { t.Run = "exit 7" }, status: 7, reason: "exited", step: "main", words: "main"},
	{name: "accepted code", task: func(t *caisson.Task) { t.Run = "exit 3"; t.Success.Codes = []int{3} }, reason: "exited", step: "main", words: "main"},
	{name: "0 is not accepted", task: func(t *caisson.Task) { t.Run = "true"; t.Success.Codes = []int{3} }, status: 1, reason: "exited", step: "main", words: "main"},
	{name: "not found", task: func(t *caisson.Task) { t.Run = ""; t.Cmd = []string{"/no/such"} }, status: 127, reason: "exited", step: "main", words: "main"},
	{name: "signal", task: func(t *caisson.Task) { t.Run = ""; t.Cmd = []string{"signal", "11"} }, status: 139, reason: "signaled", step: "main", words: "main"},
	{name: "out of memory", task: func(t *caisson.Task) { t.Run = "oom"; t.Limits.Memory = caisson.MiB }, status: 137, reason: "oom", step: "main", words: "main"},
	{name: "timeout", task: func(t *caisson.Task) { t.Run = "hold"; t.Timeout = caisson.Duration(20 * time.Millisecond) }, status: 124, reason: "timeout", step: "main", words: "main"},
	{name: "timeout of a step", task: func(t *caisson.Task) {
		t.Pre = step1("hold")
		t.Pre[0].Timeout = caisson.Duration(20 * time.Millisecond)
	}, status: 124, reason: "timeout", step: "pre-0", words: "pre-0"},
	{name: "all steps", task: func(t *caisson.Task) { t.Pre, t.Post, t.Finally = step1("true"), step1("true"), step1("true") }, reason: "exited", step: "main", words: "pre-0 main post-0 finally-0"},
	{name: "pre", task: func(t *caisson.Task) {
		t.Pre, t.Post, t.Finally = step1("exit 5"), step1("true"), step1("true")
	}, status: 5, reason: "exited", step: "pre-0", words: "pre-0 finally-0"},
	{name: "main with post and finally", task: func(t *caisson.Task) {
		t.Run = "exit 6"
		t.Post, t.Finally = step1("true"), step1("true")
	}, status: 6, reason: "exited", step: "main", words: "main finally-0"},
	{name: "post", task: func(t *caisson.Task) { t.Post, t.Finally = step1("exit 8"), step1("true") }, status: 8, reason: "exited", step: "post-0", words: "main post-0 finally-0"},
	{name: "finally", task: func(t *caisson.Task) { t.Finally = append(step1("exit 9"), step1("true")...) }, reason: "exited", step: "main", words: "main finally-0 finally-1"},
	{name: "missing input", task: func(t *caisson.Task) {
		t.Inputs = []caisson.Input{{From: "test:nothing", To: "x"}}
		t.Finally = step1("true")
	}, status: 125, kind: caisson.ErrNotFound, words: "finally-0"},
	{name: "missing output", task: func(t *caisson.Task) { t.Outputs = []caisson.Output{{Path: "x", To: "test:x"}} }, status: 125, reason: "exited", step: "main", kind: caisson.ErrNotFound, words: "main"},
	{name: "optional output", task: func(t *caisson.Task) {
		t.Outputs = []caisson.Output{{Path: "x", To: "test:x", Optional: true}}
	}, reason: "exited", step: "main", words: "main"},
	{name: "Caisson's own folder is no output", task: func(t *caisson.Task) {
		t.Run = "write .caisson-output x"
		t.Outputs = []caisson.Output{{Path: "**", To: "test:x"}}
	}, status: 125, reason: "exited", step: "main", kind: caisson.ErrNotFound, words: "main"},
	{name: "large output value", task: func(t *caisson.Task) {
		t.Files = map[string]string{".caisson-output": strings.Repeat("x", int(caisson.MaxOutput)+1)}
	}, status: 125, reason: "exited", step: "main", kind: caisson.ErrInvalid, words: "main"},
	{name: "sidecar", task: func(t *caisson.Task) { t.Sidecars = step1("hold") }, reason: "exited", step: "main", words: "sidecar-0 main"},
	{name: "sidecar with a probe", task: func(t *caisson.Task) {
		t.Run = "cat ready"
		t.Sidecars = step1("sleep 20ms; write ready yes; hold")
		t.Sidecars[0].Probe = &caisson.Probe{Cmd: []string{"cat", "ready"}, Interval: caisson.Duration(time.Millisecond)}
	}, reason: "exited", step: "main", words: "sidecar-0 main"},
	{name: "sidecar is not ready", task: func(t *caisson.Task) {
		t.Sidecars = step1("hold")
		t.Sidecars[0].Probe = &caisson.Probe{Cmd: []string{"false"}, Interval: caisson.Duration(time.Millisecond), Timeout: caisson.Duration(20 * time.Millisecond)}
	}, status: 125, step: "main", kind: caisson.ErrUnavailable, words: "sidecar-0"},
	{name: "sidecar ends before it is ready", task: func(t *caisson.Task) {
		t.Sidecars = step1("exit 3")
		t.Sidecars[0].Probe = &caisson.Probe{Cmd: []string{"false"}, Interval: caisson.Duration(time.Millisecond)}
	}, status: 125, step: "main", kind: caisson.ErrEnded, words: "sidecar-0"},
}

func TestEndings(t *testing.T) {
	for _, c := range endings {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			p := r.process()
			task := sh("true")
			c.task(task)
			id := p.submit(task)
			if err := p.Attend(t.Context(), id, false); err != nil {
				t.Fatal(err)
			}
			got := r.result(id)
			if got.Status != c.status || got.Success != (c.status == 0) || got.Exit.Reason != c.reason || got.Step != c.step {
				t.Errorf("result = success %v, status %d, reason %q, step %q; want status %d, reason %q, step %q",
					got.Success, got.Status, got.Exit.Reason, got.Step, c.status, c.reason, c.step)
			}
			if (got.Error != nil) != (c.kind != 0) || (got.Error != nil && got.Error.Kind != c.kind) {
				t.Errorf("error = %+v, want kind %v", got.Error, c.kind)
			}
			var begun []string
			for _, ev := range r.events(id) {
				if ev.Type == caisson.EventCreated {
					begun = append(begun, ev.Step)
				}
			}
			if words := strings.Join(begun, " "); words != c.words {
				t.Errorf("steps = %q, want %q", words, c.words)
			}
			r.clean()
		})
	}
}

func TestOutputsByWhen(t *testing.T) {
	for _, c := range []struct{ script, want string }{
		{"write a 1", "always success"},
		{"write a 1; exit 1", "always failure"},
	} {
		r := newRig(t)
		task := sh(c.script)
		for _, when := range []caisson.When{caisson.WhenSuccess, caisson.WhenFailure, caisson.WhenAlways} {
			task.Outputs = append(task.Outputs, caisson.Output{Path: "a", To: "test:" + string(when) + "/", When: when})
		}
		r.process().run(task)
		var got []string
		for name := range r.store.files {
			got = append(got, filepath.Dir(name))
		}
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("after %q stored for %q, want %q", c.script, got, c.want)
		}
	}
}

// One output that fails does not keep the others from being stored.
func TestOutputsFailApart(t *testing.T) {
	r := newRig(t)
	task := sh("write a 1; write c 3")
	task.Outputs = []caisson.Output{{Path: "a", To: "test:x/"}, {Path: "b", To: "test:x/"}, {Path: "c", To: "test:x/"}}
	got := r.process().run(task)
	if got.Success || got.Error == nil || !strings.Contains(got.Error.Message, "outputs[1]") || len(got.Outputs) != 2 {
		t.Errorf("result = %+v, error %+v", got, got.Error)
	}
	for _, name := range []string{"x/a", "x/c"} {
		if _, ok := r.store.get(name); !ok {
			t.Errorf("%s was not stored", name)
		}
	}
}

func TestRetry(t *testing.T) {
	r := newRig(t)
	r.store.files["in"] = "fresh\n"
	task := sh("cat in; write in spoilt; write old 1; exit 4")
	task.Inputs = []caisson.Input{{From: "test:in", To: "in"}}
	task.Retry = caisson.Retry{Limit: 2, Delay: caisson.Duration(time.Millisecond)}
	task.Finally = step1("ls")
	p := r.process()
	id := p.submit(task)
	if err := p.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if got := r.result(id); got.Attempt != 3 || got.Status != 4 {
		t.Errorf("result = %+v, want the third attempt's 4", got)
	}
	if log := p.log(id, LogOptions{Attempt: 2, Step: "main"}); log != "2/main: fresh\n" {
		t.Errorf("second attempt saw %q, want fresh inputs", log)
	}
	if n := strings.Count(r.words(id), "created:finally-0"); n != 3 {
		t.Errorf("finally ran %d times in 3 attempts", n)
	}
	r.clean()
}

// An attempt that fails because of what may pass is tried again, too.
func TestRetryOfOurErrors(t *testing.T) {
	r := newRig(t)
	tries := 0
	r.faults.set(func(op caisson.Op, id string) mem.Fault {
		if op == caisson.OpCreate {
			if tries++; tries == 1 {
				return mem.Fault{Err: &caisson.Error{Op: op, Kind: caisson.ErrExhausted}}
			}
		}
		return mem.Fault{}
	})
	task := sh("true")
	task.Retry.Limit = 1
	if got := r.process().run(task); !got.Success || got.Attempt != 2 {
		t.Errorf("result = %+v, want success of the second attempt", got)
	}
	r.clean()
}

func TestSecrets(t *testing.T) {
	r := newRig(t)
	task := sh("echo value is $TOKEN; echo -n $TOKEN > .caisson-output")
	task.Secrets = map[string]caisson.Secret{"TOKEN": {}}
	p := r.process()
	id := p.submit(task)
	if err := p.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	got := r.result(id)
	if !got.Success || got.Output != "[redacted]" {
		t.Errorf("Output = %q, want it redacted", got.Output)
	}
	err := filepath.WalkDir(r.state, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".log") { // which is the engine's
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), "s3cr3t-value") {
			t.Errorf("the secret stands in %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	r.clean()
}

// After a reboot the secrets are gone, and with them the task.
func TestSecretsLost(t *testing.T) {
	r := newRig(t)
	task := sh("true")
	task.Secrets = map[string]caisson.Secret{"TOKEN": {}}
	p := r.process()
	id := p.submit(task)
	if err := p.forgetSecrets(id); err != nil {
		t.Fatal(err)
	}
	if err := p.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if got := r.result(id); got.Status != 125 || got.Exit.Reason != caisson.ReasonLost || got.Attempt != 0 {
		t.Errorf("result = %+v, want lost", got)
	}
	r.clean()
}

func TestProgress(t *testing.T) {
	r := newRig(t)
	p := r.process()
	task := sh("write .caisson-progress 0.5; hold")
	id := p.submit(task)
	go func() {
		r.reached(id, caisson.EventProgress, "main")
		if info, err := p.Inspect(t.Context(), id); err != nil || info.Progress != 0.5 || info.Step != "main" || !info.Attended || info.State != caisson.StateRunning {
			t.Errorf("Inspect = %+v, %v, want progress 0.5 of main", info, err)
		}
		if err := p.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonKilled}); err != nil {
			t.Error(err)
		}
	}()
	if err := p.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	r.clean()
}

// An engine that can't share folders gets the work folder before the start, and
// gives it back after the exit.
func TestWorkFolderIsCarried(t *testing.T) {
	r := newRig(t)
	r.features = func(f *engine.Features) { f.ShareWork = false }
	r.store.files["in"] = "input\n"
	task := sh("cat in; cat made; write out result")
	task.Pre = step1("write made by-pre")
	task.Post = step1("cat out")
	task.Inputs = []caisson.Input{{From: "test:in", To: "in"}}
	task.Outputs = []caisson.Output{{Path: "out", To: "test:x/"}}
	p := r.process()
	id := p.submit(task)
	if err := p.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if got := r.result(id); !got.Success {
		t.Fatalf("result = %+v, %+v, log %s", got, got.Error, p.log(id, LogOptions{}))
	}
	if log := p.log(id, LogOptions{}); log != "1/main: input\n1/main: by-pre\n1/post-0: result\n" {
		t.Errorf("log = %q", log)
	}
	if data, _ := r.store.get("x/out"); data != "result\n" {
		t.Errorf("stored %q", data)
	}
	r.clean()
}

func TestSubmitRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		task func(*caisson.Task)
		kind caisson.Kind
		text string
	}{
		{"engine", func(t *caisson.Task) { t.Engine = "nat" }, caisson.ErrNotFound, `"nat": there is no such engine; there are: mem`},
		{"image", func(t *caisson.Task) { t.Image = "busybox" }, caisson.ErrUnsupported, "image"},
		{"image of a step", func(t *caisson.Task) { t.Pre = step1("true"); t.Pre[0].Image = "x" }, caisson.ErrUnsupported, "step pre-0: "},
		{"mount", func(t *caisson.Task) { t.Mounts = []caisson.Mount{{Type: "nfs", Target: "/x"}} }, caisson.ErrUnsupported, "mounts[0]"},
		{"scheme", func(t *caisson.Task) { t.Inputs = []caisson.Input{{From: "ftp://x", To: "x"}} }, caisson.ErrUnsupported, "inputs[0]"},
		{"denied input", func(t *caisson.Task) { t.Inputs = []caisson.Input{{From: "test:denied", To: "x"}} }, caisson.ErrDenied, "inputs[0]"},
		{"output", func(t *caisson.Task) { t.Outputs = []caisson.Output{{Path: "x", To: "x"}} }, caisson.ErrUnsupported, "outputs[0]"},
		{"secret", func(t *caisson.Task) { t.Secrets = map[string]caisson.Secret{"X": {}} }, caisson.ErrInvalid, "secrets.X"},
		{"broker", func(t *caisson.Task) {
			t.Secrets = map[string]caisson.Secret{"TOKEN": {Broker: &caisson.Broker{Host: "x"}}}
		}, caisson.ErrUnsupported, "secrets.TOKEN.broker"},
		{"allow list", func(t *caisson.Task) {
			t.Network = caisson.Network{Mode: caisson.NetworkAllow, Allow: []string{"x:443"}}
		}, caisson.ErrUnsupported, "network.allow: this engine can't"},
		{"proxy", func(t *caisson.Task) { t.Proxies = map[string]caisson.Proxy{"abc": {Upstream: "x"}} }, caisson.ErrDenied, "proxies.abc"},
		{"probe", func(t *caisson.Task) {
			t.Sidecars = step1("hold")
			t.Sidecars[0].Probe = &caisson.Probe{Port: 80}
		}, caisson.ErrUnsupported, "probe"},
		{"short secret", func(t *caisson.Task) { t.Secrets = map[string]caisson.Secret{"SHORT": {}} }, caisson.ErrInvalid, "secrets.SHORT: shorter than"},
		{"secret with NUL", func(t *caisson.Task) { t.Secrets = map[string]caisson.Secret{"NUL": {}} }, caisson.ErrInvalid, "secrets"},
		{"options", func(t *caisson.Task) { t.Options = []byte(`{"speed": "high", "unknown": 1}`) }, caisson.ErrInvalid, "options: "},
		{"nothing to run", func(t *caisson.Task) { t.Run = "" }, caisson.ErrInvalid, "cmd"},
		{"signal", func(t *caisson.Task) { t.StopSignal = "NO" }, caisson.ErrInvalid, "stop_signal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.features = func(f *engine.Features) {
				f.Options, f.Networks.Shared = true, false
				f.Gateway, f.Networks.Allow = false, false
				f.OptionsSchema = []byte(`{"type": "object", "properties": {"speed": {"type": "integer"}}, "additionalProperties": false}`)
			}
			p := r.process()
			task := sh("true")
			c.task(task)
			secrets := map[string][]byte{"TOKEN": []byte("value"), "SHORT": []byte("ab\n"), "NUL": []byte("a\x00bcd")}
			_, err := p.Submit(t.Context(), task, &Submission{Secrets: secrets})
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("Submit = %v, want %v with %q", err, c.kind, c.text)
			}
			if ids, _ := p.folder.Tasks(); len(ids) > 0 {
				t.Errorf("kept %q", ids)
			}
		})
	}
}

// Of several engines the first preferred one that can is taken, and a refusal
// names each one's reason.
func TestChoose(t *testing.T) {
	r := newRig(t)
	small := mem.New(&mem.Options{Name: "small", Features: func(f *engine.Features) { f.Limits.Memory = false }})
	off := mem.New(&mem.Options{Name: "off", Features: func(f *engine.Features) {
		f.Usable = false
		f.Missing = []engine.Missing{{What: "daemon", Why: "it does not answer"}}
	}})
	large := mem.New(&mem.Options{Name: "large"})
	x, err := New(&Options{State: r.state, Engines: []engine.Engine{large, off, small}, Prefer: []string{"absent", "off", "small", "large"}})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	choose := func(task *caisson.Task) (string, error) {
		rec := &record{ID: caisson.NewTaskID(time.Now()), Task: task}
		err := x.choose(t.Context(), rec, nil)
		return rec.Engine, err
	}
	task := sh("true")
	if name, err := choose(task); name != "small" || err != nil {
		t.Errorf("choose = %s, %v, want small", name, err)
	}
	task.Limits.Memory = caisson.MiB
	if name, err := choose(task); name != "large" || err != nil {
		t.Errorf("choose with a memory limit = %s, %v, want large", name, err)
	}
	task.Image = "x"
	_, err = choose(task)
	for _, want := range []string{"engine off: not usable", "it does not answer", "engine small: ", "limits.memory", "engine large: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("choose = %v, want it to say %q", err, want)
		}
	}
	if !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("choose = %v, want ErrUnsupported", err)
	}
}

func TestNewErrDuplicate(t *testing.T) {
	_, err := New(&Options{State: t.TempDir(), Engines: []engine.Engine{mem.New(nil), mem.New(nil)}})
	if !errors.Is(err, caisson.ErrExists) {
		t.Errorf("New with two engines of one name = %v, want ErrExists", err)
	}
}

// TestSecretsInNames has a task name an output by the value of its secret.
func TestSecretsInNames(t *testing.T) {
	r := newRig(t)
	task := sh("mkdir out; echo x > out/s3cr3t-value.txt")
	task.Secrets = map[string]caisson.Secret{"TOKEN": {From: "env:TOKEN"}}
	task.Outputs = []caisson.Output{{Path: "out/*.txt", To: "test:results/"}}
	p := r.process()
	id := p.submit(task)
	if err := p.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	got := r.result(id)
	if len(got.Outputs) != 1 || got.Outputs[0].Path != "out/[redacted].txt" {
		t.Errorf("outputs = %+v, want the name without the secret", got.Outputs)
	}
	for _, path := range []string{r.task(id).Journal(), filepath.Join(r.task(id).Dir, "result.json")} {
		data, err := os.ReadFile(path)
		if err != nil || strings.Contains(string(data), "s3cr3t-value") {
			t.Errorf("%s: %v, holds the secret: %s", path, err, data)
		}
	}
}
