package docker_test

import (
	"context"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// A kept container is as its program has left it: files, also those in memory,
// and processes, which stand still.
func TestKeep(t *testing.T) {
	opts := options(t)
	e := newEngine(t, opts)
	image := askingImage(t)
	s := newSpec(t, image, "/bin/sh", "-c", `echo kept >/tmp/here; echo mine >/dev/shm/there
(while :; do echo x >>/tmp/beat; sleep 0.01; done) >/dev/null 2>&1 &
while [ ! -s /tmp/beat ]; do sleep 0.01; done; exit 3`)
	s.Keep = caisson.Duration(time.Hour)
	sb, p := start(t, e, s)
	if exit := wait(t, p); exit.Code != 3 || exit.Reason != caisson.ReasonExited {
		t.Fatalf("exit = %+v, want code 3", exit)
	}
	if out := inside(t, sb, "cat /tmp/here /dev/shm/there; id -u"); out != "kept\nmine\n1000\n" {
		t.Errorf("an exec sees %q", out)
	}
	first := inside(t, sb, "cat /tmp/beat")
	time.Sleep(100 * time.Millisecond)
	if now := inside(t, sb, "cat /tmp/beat"); now != first {
		t.Error("what the program has left behind runs on")
	}
	// Another process enters it, too.
	other, err := newEngine(t, opts).Recover(soon(t), s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if out := inside(t, other, "cat /tmp/here"); out != "kept\n" {
		t.Errorf("an exec of another process sees %q", out)
	}
	files, err := sb.(engine.Filer).FS(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if text, err := fs.ReadFile(files, "dev/shm/there"); err != nil || string(text) != "mine\n" {
		t.Errorf("its files have %q, %v", text, err)
	}
}

// The keeper ends it when the time is over, with what runs in it.
func TestKeepEnds(t *testing.T) {
	opts := options(t)
	e := newEngine(t, opts)
	s := newSpec(t, askingImage(t), "/bin/sh", "-c", "exit 0")
	s.Keep = caisson.Duration(2 * time.Second)
	sb, p := start(t, e, s)
	wait(t, p)
	session, err := sb.(engine.Execer).Exec(soon(t), &engine.ExecSpec{Args: []string{"/bin/sleep", "600"}})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if exit, err := session.Wait(soon(t)); err != nil || exit.Reason != caisson.ReasonAborted {
		t.Errorf("an exec ended with %+v, %v, want aborted", exit, err)
	}
	if _, err := sb.(engine.Execer).Exec(soon(t), &engine.ExecSpec{Args: []string{"/bin/id"}}); caisson.KindOf(err) != caisson.ErrEnded {
		t.Errorf("Exec = %v, want ErrEnded", err)
	}
	if err := sb.Destroy(soon(t)); err != nil {
		t.Fatal(err)
	}
	_, err = daemon(t).ContainerInspect(context.Background(), "caisson-"+opts.Installation+"-"+s.ID, client.ContainerInspectOptions{})
	if err == nil {
		t.Error("the container is still there")
	}
}

// inside returns what a script prints that runs beside what there is.
func inside(t testing.TB, sb engine.Sandbox, script string) string {
	t.Helper()
	session, err := sb.(engine.Execer).Exec(soon(t), &engine.ExecSpec{Args: []string{"/bin/sh", "-c", script}})
	if err != nil {
		t.Fatalf("Exec: %v", err)
	}
	defer session.Close()
	var out strings.Builder
	if _, err := io.Copy(&out, session.Stdout()); err != nil {
		t.Fatal(err)
	}
	if exit, err := session.Wait(soon(t)); err != nil || exit.Code != 0 {
		t.Errorf("%q ended with %+v, %v: %q", script, exit, err, out.String())
	}
	return out.String()
}
