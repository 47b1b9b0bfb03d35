package docker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/docker"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// patience bounds what a test waits for.
const patience = 60 * time.Second

// newSpec returns a spec with folders of its own.
func newSpec(t testing.TB, image string, args ...string) *engine.Spec {
	t.Helper()
	base := t.TempDir()
	s := &engine.Spec{
		ID: fmt.Sprintf("t%x", time.Now().UnixNano()), Dir: filepath.Join(base, "dir"), Log: filepath.Join(base, "log"),
		Work: filepath.Join(base, "work"), WorkOwner: engine.Owner{UID: 1000, GID: 1000},
		Task: "task", Attempt: 1, Step: "main", Image: image, Args: args,
	}
	for _, dir := range []string{s.Dir, s.Work} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(s.Work, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	return s
}

// start makes and starts a sandbox that is destroyed after the test.
func start(t testing.TB, e *docker.Engine, s *engine.Spec) (engine.Sandbox, engine.Process) {
	t.Helper()
	ctx := soon(t)
	sb, err := e.Create(ctx, s)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := sb.Destroy(ctx); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
	p, err := sb.Start(ctx)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	return sb, p
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func wait(t testing.TB, p engine.Process) caisson.Exit {
	t.Helper()
	exit, err := p.Wait(soon(t))
	if err != nil {
		t.Fatalf("Wait: %v", err)
	}
	return exit
}

// output returns what a program has printed so far.
func output(t testing.TB, s *engine.Spec) string {
	t.Helper()
	var out strings.Builder
	err := tasklog.Follow(t.Context(), s.Log, 0, func() bool { return true }, func(r tasklog.Record) error {
		if r.Stream == tasklog.Stdout {
			out.Write(r.Data)
		}
		return nil
	})
	if err != nil && !errors.Is(err, caisson.ErrNotFound) {
		t.Fatal(err)
	}
	return out.String()
}

// says waits until a program has printed something.
func says(t testing.TB, s *engine.Spec, text string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(output(t, s), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never said %q: %q", text, output(t, s))
		}
	}
}

// run runs a program to its end, and returns its output and exit.
func run1(t testing.TB, e *docker.Engine, s *engine.Spec) (string, caisson.Exit) {
	t.Helper()
	_, p := start(t, e, s)
	exit := wait(t, p)
	return output(t, s), exit
}

// counting prints numbers until the file stop appears, and then ends with 23.
const counting = `i=0; while [ ! -e /work/stop ]; do echo $i; i=$((i+1)); sleep 0.01; done; exit 23`

// stop lets a counting program end.
func stop(t testing.TB, s *engine.Spec) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.Work, "stop"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// counted checks that no number is missing or there twice.
func counted(t testing.TB, s *engine.Spec) {
	t.Helper()
	for i, line := range strings.Split(strings.TrimSuffix(output(t, s), "\n"), "\n") {
		if line != fmt.Sprint(i) {
			t.Fatalf("line %d of the log is %q: something was lost or doubled", i, line)
		}
	}
}

// A program runs on when its keeper is killed: whoever waits, signals or
// recovers has a new keeper, and nothing of the log is lost.
func TestKeeperKilled(t *testing.T) {
	opts := options(t)
	e := newEngine(t, opts)
	image := emptyImage(t)
	t.Run("Wait", func(t *testing.T) {
		s := newSpec(t, image, "/bin/sh", "-c", counting)
		_, p := start(t, e, s)
		says(t, s, "20\n")
		ended := make(chan caisson.Exit, 1)
		go func() {
			exit, _ := p.Wait(context.Background())
			ended <- exit
		}()
		killKeeper(t, s)
		before := len(output(t, s))
		for len(output(t, s)) == before {
			time.Sleep(5 * time.Millisecond)
		}
		stop(t, s)
		if exit := <-ended; exit.Code != 23 || exit.Reason != caisson.ReasonExited {
			t.Errorf("exit = %+v, want code 23", exit)
		}
		counted(t, s)
	})
	t.Run("Recover", func(t *testing.T) {
		s := newSpec(t, image, "/bin/sh", "-c", counting)
		_, p := start(t, e, s)
		says(t, s, "5\n")
		pid, err := p.(engine.Locator).PID(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		killKeeper(t, s)
		sb, err := newEngine(t, opts).Recover(soon(t), s.Dir)
		if err != nil {
			t.Fatal(err)
		}
		again, err := sb.Process(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		if now, err := again.(engine.Locator).PID(soon(t)); now != pid || err != nil {
			t.Errorf("the process is %d, %v, it was %d", now, err, pid)
		}
		session, err := sb.(engine.Execer).Exec(soon(t), &engine.ExecSpec{Args: []string{"/bin/sh", "-c", "exit 4"}})
		if err != nil {
			t.Fatal(err)
		}
		if exit, err := session.Wait(soon(t)); exit.Code != 4 || err != nil {
			t.Errorf("an exec ended with %+v, %v", exit, err)
		}
		session.Close()
		stop(t, s)
		if exit := wait(t, again); exit.Code != 23 {
			t.Errorf("exit = %+v, want code 23", exit)
		}
		counted(t, s)
	})
	t.Run("EndedMeanwhile", func(t *testing.T) {
		s := newSpec(t, image, "/bin/sh", "-c", `echo ready; while [ ! -e /work/stop ]; do sleep 0.01; done; echo last; kill -11 $$`)
		s.Secrets = []engine.Secret{{Name: "WORD", Value: []byte("last-secret-word"), As: caisson.SecretEnv}}
		_, _ = start(t, e, s)
		says(t, s, "ready\n")
		killKeeper(t, s)
		stop(t, s)
		time.Sleep(100 * time.Millisecond) // most often it has ended then
		sb, err := newEngine(t, opts).Recover(soon(t), s.Dir)
		if err != nil {
			t.Fatal(err)
		}
		p, err := sb.Process(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		if exit := wait(t, p); exit.Signal != 11 || exit.Reason != caisson.ReasonSignaled {
			t.Errorf("exit = %+v, want signal 11", exit)
		}
		if got := output(t, s); got != "ready\nlast\n" {
			t.Errorf("the log has %q", got)
		}
	})
	t.Run("Timeout", func(t *testing.T) {
		s := newSpec(t, image, "/bin/sh", "-c", "echo ready; exec sleep 1000")
		s.Timeout = caisson.Duration(3 * time.Second)
		_, p := start(t, e, s)
		says(t, s, "ready\n")
		killKeeper(t, s)
		exit := wait(t, p)
		if exit.Reason != caisson.ReasonTimeout || exit.Usage.Wall.Std() > 30*time.Second {
			t.Errorf("exit = %+v, want timeout", exit)
		}
	})
}

// A container that somebody else ends is a task that is lost.
func TestContainerRemoved(t *testing.T) {
	opts := options(t)
	e := newEngine(t, opts)
	s := newSpec(t, emptyImage(t), "/bin/sh", "-c", "echo ready; exec sleep 1000")
	_, p := start(t, e, s)
	says(t, s, "ready\n")
	_, err := daemon(t).ContainerRemove(t.Context(), "caisson-"+opts.Installation+"-"+s.ID, client.ContainerRemoveOptions{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, p); exit.Reason != caisson.ReasonLost || exit.Status() != 125 {
		t.Errorf("exit = %+v, want lost", exit)
	}
}

// Nobody is root unless the operator says so, and users of images are theirs.
func TestNonRoot(t *testing.T) {
	opts := options(t)
	e := newEngine(t, opts)
	opts.Root = true
	lifted := newEngine(t, opts)
	passwd := map[string]string{"etc/passwd": "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:\napp:x:70:71::/srv:\n", "etc/group": "log:x:51:app\n"}
	for user, want := range map[string]string{
		"": "1000 1000 1000", "root": "1000 1000 1000", "0:0": "1000 1000 1000", "toor": "1000 1000 1000",
		"app": "70 71 71 51", "1234:5678": "1234 5678 5678",
	} {
		var changes []string
		if user != "" {
			changes = append(changes, "USER "+user)
		}
		image := imageOf(t, withShell(t, passwd), changes...)
		const id = `echo $(id -u) $(id -g) $(id -G); echo made >/work/file && grep NoNewPrivs /proc/self/status`
		s := newSpec(t, image, "/bin/sh", "-c", id)
		out, exit := run1(t, e, s)
		if !strings.HasPrefix(out, want+"\n") || !strings.Contains(out, "NoNewPrivs:\t1") || exit.Code != 0 {
			t.Errorf("USER %q: %q, %+v, want %s", user, out, exit, want)
		}
		info, err := os.Stat(filepath.Join(s.Work, "file"))
		if err != nil || owner(info) != 1000 {
			t.Errorf("USER %q: the file belongs to %v, %v", user, owner(info), err)
		}
		if user == "root" {
			if out, _ := run1(t, lifted, newSpec(t, image, "/bin/sh", "-c", "id -u")); out != "0\n" {
				t.Errorf("with the mode lifted: %q, want 0", out)
			}
			asked := newSpec(t, image, "/bin/sh", "-c", "id -u")
			asked.User = "0:0"
			if out, _ := run1(t, e, asked); out != "1000\n" {
				t.Errorf("a task that asks for root is %q", out)
			}
		}
	}
	bad := newSpec(t, imageOf(t, withShell(t, passwd), "USER nobody-has-it"), "/bin/sh")
	if sb, err := e.Create(soon(t), bad); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Create with a user that is not there = %v, %v, want ErrInvalid", sb, err)
	}
}

// TestOperatorsGates has what only the operator can permit.
func TestOperatorsGates(t *testing.T) {
	opts := options(t)
	closed := newEngine(t, opts)
	opts.AllowPrivileged, opts.AllowDevices, opts.AllowGPUs, opts.Root = true, true, true, true
	open := newEngine(t, opts)
	image := emptyImage(t)
	const script = `(: </dev/mine) 2>/dev/null && echo read; (: >>/dev/mine) 2>/dev/null && echo written; [ -e /dev/kmsg ] && echo all; grep CapEff /proc/self/status`
	device := func(permissions string) func(*engine.Spec) {
		return func(s *engine.Spec) {
			s.Devices = []caisson.Device{{Source: "/dev/fuse", Target: "/dev/mine", Permissions: permissions}}
		}
	}
	for name, test := range map[string]struct {
		change     func(*engine.Spec)
		want, lack string
	}{
		"a device":              {change: device(""), want: "read\nwritten\n", lack: "all\n"},
		"a device that is read": {change: device("r"), want: "read\n", lack: "written\n"},
		// Of root it would take capabilities that not every host of tests has.
		"privileged, as somebody": {change: func(s *engine.Spec) { s.Privileged, s.User = true, "1000" }, want: "all\nCapEff:\t0000000000000000"},
	} {
		s := newSpec(t, image, "/bin/sh", "-c", script)
		test.change(s)
		if sb, err := closed.Create(soon(t), s); !errors.Is(err, caisson.ErrUnsupported) && !errors.Is(err, caisson.ErrDenied) {
			t.Errorf("%s, without the operator's leave: Create = %v, %v", name, sb, err)
		}
		out, exit := run1(t, open, s)
		if !strings.Contains(out, test.want) || test.lack != "" && strings.Contains(out, test.lack) {
			t.Errorf("%s: %q, %+v, want %q in it and not %q", name, out, exit, test.want, test.lack)
		}
	}
	s := newSpec(t, image, "/bin/sh", "-c", "true")
	s.GPUs = "all"
	if sb, err := open.Create(soon(t), s); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Create with gpus where the daemon has no driver of any = %v, %v, want ErrUnsupported", sb, err)
	}
}

// Neither is told to the daemon: what a task keeps secret, and what it runs.
func TestSecretsAreNotInspected(t *testing.T) {
	opts := options(t)
	e := newEngine(t, opts)
	s := newSpec(t, emptyImage(t), "/bin/sh", "-c", "echo ready; exec sleep 1000")
	s.Secrets = []engine.Secret{
		{Name: "A", Value: []byte("first-secret"), As: caisson.SecretEnv}, {Name: "B", Value: []byte("second-secret"), As: caisson.SecretFile},
	}
	start(t, e, s)
	says(t, s, "ready\n")
	r, err := daemon(t).ContainerInspect(t.Context(), "caisson-"+opts.Installation+"-"+s.ID, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if text := string(r.Raw); strings.Contains(text, "-secret") {
		t.Errorf("docker inspect shows a secret: %s", text)
	}
	handle, err := os.ReadFile(filepath.Join(s.Dir, engine.HandleFile))
	if err != nil || strings.Contains(string(handle), "-secret") {
		t.Errorf("the handle has a secret: %s, %v", handle, err)
	}
}

// Labels of an image say nothing about who has made a container of it.
func TestSweepTrustsNoLabels(t *testing.T) {
	opts := options(t)
	e := newEngine(t, opts)
	image := imageOf(t, withShell(t, nil),
		"LABEL run.caisson.installation="+opts.Installation, "LABEL run.caisson.sandbox=theirs", `CMD ["/bin/sleep", "1000"]`)
	c := daemon(t)
	foreign := "foreign-" + opts.Installation
	_, err := c.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: foreign, Image: image})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := c.ContainerRemove(context.Background(), foreign, client.ContainerRemoveOptions{Force: true}); err != nil {
			t.Errorf("the foreign container: %v", err)
		}
	})
	// A task with the same image is swept all the same.
	s := newSpec(t, image, "/bin/sh", "-c", "exec sleep 1000")
	start(t, e, s)
	removed, err := e.Sweep(soon(t), nil)
	if err != nil || !slices.Contains(removed, s.ID) || slices.Contains(removed, "theirs") {
		t.Errorf("Sweep = %q, %v, want %s alone", removed, err, s.ID)
	}
	if _, err := c.ContainerInspect(t.Context(), foreign, client.ContainerInspectOptions{}); err != nil {
		t.Errorf("Sweep took a foreign container: %v", err)
	}
}
