//go:build linux

package keeper_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// nothingIn fails if the sandbox left something besides its log.
func nothingIn(t *testing.T, s *keeper.Spec) {
	t.Helper()
	for _, dir := range []string{s.Dir, filepath.Dir(s.Socket)} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "log" {
				t.Errorf("%s is left in %s", e.Name(), dir)
			}
		}
	}
}

func TestLaunchErr(t *testing.T) {
	background := context.Background()
	cancelled, cancel := context.WithCancel(background)
	cancel()
	for _, c := range []struct {
		name    string
		ctx     context.Context
		command keeper.Command
		change  func(s *keeper.Spec)
		want    error
		text    string
	}{
		{"NoCommand", background, keeper.Command{}, nil, caisson.ErrInvalid, ""},
		{"NoSuchCommand", background, keeper.Command{"/no/such/keeper"}, nil, caisson.ErrNotFound, "/no/such/keeper"},
		{"NotAKeeper", background, keeper.Command{"/bin/true"}, nil, caisson.ErrInternal, "at its start"},
		{"SaysSomethingElse", background, keeper.Command{"/bin/sh", "-c", "echo who are you"}, nil, caisson.ErrInternal, "who are you"},
		{"Hangs", cancelled, keeper.Command{"/bin/sleep", "1000"}, nil, context.Canceled, ""},
		{"NoBox", background, command, func(s *keeper.Spec) { s.Box = nil }, caisson.ErrInvalid, "box"},
		{"RelativeLog", background, command, func(s *keeper.Spec) { s.Log = "log" }, caisson.ErrInvalid, `"log"`},
		{"ShortSecret", background, command, func(s *keeper.Spec) { s.Redact = [][]byte{[]byte("abc")} }, caisson.ErrInvalid, "secret 1"},
		{"NoDir", background, command, func(s *keeper.Spec) { s.Dir += "/absent" }, caisson.ErrNotFound, "absent"},
		{"NoSocketDir", background, command, func(s *keeper.Spec) { s.Socket = s.Dir + "/absent/sock" }, caisson.ErrNotFound, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := spec(t, "true")
			dir := s.Dir
			if c.change != nil {
				c.change(s)
			}
			client, err := keeper.Launch(c.ctx, c.command, s)
			if err == nil {
				client.Destroy(background)
				t.Fatal("Launch succeeded")
			}
			if !errors.Is(err, c.want) {
				t.Errorf("Launch = %v (%v), want %v", err, caisson.KindOf(err), c.want)
			}
			if !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "abc") {
				t.Errorf("Launch = %q, want it to name %q and no secret", err, c.text)
			}
			s.Dir = dir
			if c.name != "NoSocketDir" {
				nothingIn(t, s)
			}
		})
	}
}

// A second keeper for the same folder is refused, and the first goes on.
func TestLaunchErrExists(t *testing.T) {
	k := start(t, spec(t, untilGo))
	wantKind(t, "second Launch", errorOf(keeper.Launch(k.ctx(), command, k.spec)), caisson.ErrExists)
	k.letGo()
	if exit := k.wait(); exit.Code != 3 {
		t.Errorf("exit = %+v, want code 3", exit)
	}
	wantKind(t, "Launch after the end", errorOf(keeper.Launch(k.ctx(), command, k.spec)), caisson.ErrExists)
}

// A program's environment is the spec's, and nothing of the keeper's.
func TestEnvironment(t *testing.T) {
	for _, s := range []*keeper.Spec{spec(t, ""), isolated(t, "")} {
		s.Program.Args = []string{"/usr/bin/env"}
		s.Program.Env = []string{"A=1", "B=two words\nand a line", "C="}
		k := start(t, s)
		k.wait()
		if got, want := k.log()[tasklog.Stdout], strings.Join(s.Program.Env, "\n")+"\n"; got != want {
			t.Errorf("environment = %q, want %q", got, want)
		}
	}
}

// A launch that is cancelled at any moment leaves nothing, or has succeeded.
func TestLaunchCancelled(t *testing.T) {
	inParallel(60, func(i int) {
		s := spec(t, "true")
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			// As long as about i percent of a launch takes.
			for range i * 20 {
				os.Getppid()
			}
			cancel()
		}()
		c, err := keeper.Launch(ctx, command, s)
		if err == nil {
			if err := c.Destroy(context.Background()); err != nil {
				t.Errorf("Destroy: %v", err)
			}
		} else if !errors.Is(err, context.Canceled) {
			t.Errorf("Launch = %v, want cancelled", err)
		}
		nothingIn(t, s)
		if _, err := keeper.Dial(context.Background(), s.Dir); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("Dial = %v, want not found", err)
		}
	})
}

// What a keeper says of itself in keeper.json, and how it looks to ps.
func TestRecord(t *testing.T) {
	k := launch(t, spec(t, "true"))
	data, err := os.ReadFile(filepath.Join(k.spec.Dir, "keeper.json"))
	if err != nil {
		t.Fatal(err)
	}
	var record struct {
		Version   int    `json:"version"`
		PID       int    `json:"pid"`
		StartTime uint64 `json:"start_time"`
		BootID    string `json:"boot_id"`
		Socket    string `json:"socket"`
	}
	if err := json.Unmarshal(data, &record); err != nil {
		t.Fatal(err)
	}
	status, err := k.Status(k.ctx())
	if err != nil {
		t.Fatal(err)
	}
	if record.Version != 2 || record.PID != status.PID || record.StartTime == 0 || len(record.BootID) != 36 || record.Socket != k.spec.Socket {
		t.Errorf("keeper.json = %s", data)
	}
	proc := filepath.Join("/proc", itoa(status.PID))
	if argv, _ := os.ReadFile(proc + "/cmdline"); string(argv) != "caisson-keeper\x00" {
		t.Errorf("cmdline = %q", argv)
	}
	// A keeper hides from its own user what could tell its secrets.
	if cwd, err := os.Readlink(proc + "/cwd"); cwd != "/" && !errors.Is(err, os.ErrPermission) {
		t.Errorf("cwd = %s, %v, want /", cwd, err)
	}
	env, err := os.ReadFile(proc + "/environ")
	if err != nil && !errors.Is(err, os.ErrPermission) {
		t.Fatal(err)
	}
	for _, v := range strings.Split(strings.TrimRight(string(env), "\x00"), "\x00") {
		if v != "" && !strings.HasPrefix(v, "GO") {
			t.Errorf("environment has %q", v)
		}
	}
}

// Descriptors of the launcher, also those that it did not mean to give away,
// do not stay open.
func TestNothingIsInherited(t *testing.T) {
	leak, other, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	setInheritable(t, leak)
	k := start(t, spec(t, "echo $$; ls -l /proc/self/fd >fds; echo done >>fds; sleep 1000"))
	clearInheritable(t, leak)
	k.awaitFile("fds")
	leak.Close()
	// Nobody has the reading end any more.
	if _, err := other.Write([]byte("x")); err == nil {
		t.Error("the pipe is open in the keeper or in the program")
	}
}

// A record of a keeper that is gone finds nobody, also where its pid is
// another process's now.
func TestDialStaleRecord(t *testing.T) {
	k := launch(t, spec(t, "true"))
	path := filepath.Join(k.spec.Dir, "keeper.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(r map[string]any){
		func(r map[string]any) { r["pid"] = os.Getpid() },
		func(r map[string]any) { r["start_time"] = 1 },
		func(r map[string]any) { r["boot_id"] = "another" },
	} {
		record := map[string]any{}
		if err := json.Unmarshal(data, &record); err != nil {
			t.Fatal(err)
		}
		change(record)
		changed, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		stale := t.TempDir()
		if err := os.WriteFile(filepath.Join(stale, "keeper.json"), changed, 0o600); err != nil {
			t.Fatal(err)
		}
		wantKind(t, "Dial with "+string(changed), errorOf(keeper.Dial(k.ctx(), stale)), caisson.ErrNotFound)
	}
	newer := t.TempDir()
	text := strings.Replace(string(data), `"version":2`, `"version":99`, 1)
	if err := os.WriteFile(filepath.Join(newer, "keeper.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "Dial of a newer one", errorOf(keeper.Dial(k.ctx(), newer)), caisson.ErrUnsupported)

	// A keeper whose socket was removed lives: that is not the same as gone.
	if err := os.Remove(k.spec.Socket); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "Dial without the socket", errorOf(keeper.Dial(k.ctx(), k.spec.Dir)), caisson.ErrUnavailable)
	if err := k.Destroy(k.ctx()); err != nil {
		t.Fatal(err)
	}
}

// A socket's address holds 108 bytes; folders of tests and of users are longer.
func TestLongSocketPath(t *testing.T) {
	s := spec(t, "exit 3")
	dir := filepath.Join(filepath.Dir(s.Socket), strings.Repeat("long", 50))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.Socket = filepath.Join(dir, "keeper.sock")
	k := start(t, s)
	c, err := keeper.Dial(k.ctx(), s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if exit, err := c.Wait(k.ctx()); err != nil || exit.Code != 3 {
		t.Errorf("Wait = %+v, %v, want code 3", exit, err)
	}
}

// The kernel is to choose the program before the keeper, where the host lets
// root say so.
func TestKeeperIsSpared(t *testing.T) {
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.TrimSpace(string(own))
	program := want
	if exec.Command("sh", "-c", "echo -900 >/proc/self/oom_score_adj").Run() == nil {
		want = "-900"
	}
	k := start(t, spec(t, "cat /proc/self/oom_score_adj >score; sleep 1000"))
	status, err := k.Status(k.ctx())
	if err != nil {
		t.Fatal(err)
	}
	if got := k.awaitFile("score"); got != program {
		t.Errorf("the program's score is %s, want this test's %s", got, program)
	}
	score, err := os.ReadFile(filepath.Join("/proc", itoa(status.PID), "oom_score_adj"))
	if err != nil || strings.TrimSpace(string(score)) != want {
		t.Errorf("the keeper's score is %s, %v, want %s", score, err, want)
	}
}
