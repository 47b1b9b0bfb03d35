package docker_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// An ownDaemon is a daemon of one test, which may be killed and halted. It has
// namespaces of its own for processes and mounts, so that nothing of it is left.
type ownDaemon struct {
	root string
	host string
}

// startDaemon starts a daemon that comes back whenever it is killed.
func startDaemon(t *testing.T) *ownDaemon {
	t.Helper()
	host(t) // as root there are all the tools
	// The path of its socket must be short.
	root, err := os.MkdirTemp("", "dd")
	if err != nil {
		t.Fatal(err)
	}
	d := &ownDaemon{root: root, host: "unix://" + root + "/s"}
	const script = `trap 'exit 0' TERM
while :; do
	rm -f "$0/pid"
	dockerd --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/pid" -H "unix://$0/s" --live-restore \
		--bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false >>"$0/log" 2>&1 &
	wait $!
done`
	cmd := exec.Command("unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, root)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// With the first process of its namespace everything ends.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for range 100 {
			if err := os.RemoveAll(root); err == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Errorf("the daemon's folder %s can't be removed", root)
	})
	d.await(t)
	return d
}

func (d *ownDaemon) client(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(client.WithHost(d.host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// await waits until the daemon answers.
func (d *ownDaemon) await(t *testing.T) {
	t.Helper()
	c := d.client(t)
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := c.Info(ctx, client.InfoOptions{})
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			said, _ := os.ReadFile(filepath.Join(d.root, "log"))
			t.Fatalf("the daemon does not start: %v\n%s", err, said[max(0, len(said)-2000):])
		}
	}
}

// signal sends a signal to the daemon itself, not to its containers. It returns
// when a daemon that is to end has ended.
func (d *ownDaemon) signal(t *testing.T, signal syscall.Signal) {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(text), "dockerd\x00--data-root\x00"+d.root+"/data\x00") {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
		ends := signal == syscall.SIGKILL || signal == syscall.SIGTERM
		for deadline := time.Now().Add(patience); ends && syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the daemon does not end by %v", signal)
			}
		}
		return
	}
	t.Fatal("the daemon can't be found")
}

// load gives the daemon an image with a shell.
func (d *ownDaemon) load(t *testing.T) string {
	t.Helper()
	t.Setenv(hostVariable, d.host)
	return emptyImage(t)
}

// A daemon that is killed and comes back, or hangs for a while, costs nothing
// of the log, and the program does not feel it.
func TestDaemonRestart(t *testing.T) {
	d := startDaemon(t)
	image := d.load(t)
	e := newEngine(t, options(t))
	for name, disturb := range map[string]func(){
		"Killed": func() { d.signal(t, syscall.SIGKILL) },
		"Restarted": func() {
			d.signal(t, syscall.SIGTERM)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpec(t, image, "/bin/sh", "-c", counting)
			sb, p := start(t, e, s)
			says(t, s, "20\n")
			disturb()
			// It does not need the daemon to run programs beside, and to be signalled.
			session, err := sb.(engine.Execer).Exec(soon(t), &engine.ExecSpec{Args: []string{"/bin/sh", "-c", "exit 4"}})
			if err != nil {
				t.Fatal(err)
			}
			if exit, err := session.Wait(soon(t)); exit.Code != 4 || err != nil {
				t.Errorf("an exec ended with %+v, %v", exit, err)
			}
			session.Close()
			d.await(t)
			before := output(t, s)
			n := strings.Count(before, "\n")
			says(t, s, fmt.Sprintf("\n%d\n", n+20))
			stop(t, s)
			if exit := wait(t, p); exit.Code != 23 || exit.Message != "" {
				t.Errorf("exit = %+v, want code 23", exit)
			}
			counted(t, s)
		})
	}
	t.Run("EndsMeanwhile", func(t *testing.T) {
		s := newSpec(t, image, "/bin/sh", "-c", counting)
		_, p := start(t, e, s)
		says(t, s, "20\n")
		d.signal(t, syscall.SIGKILL)
		stop(t, s)
		if exit := wait(t, p); exit.Code != 23 {
			t.Errorf("exit = %+v, want code 23", exit)
		}
		counted(t, s)
		d.await(t)
	})
	t.Run("Hangs", func(t *testing.T) {
		s := newSpec(t, image, "/bin/sh", "-c", counting)
		_, p := start(t, e, s)
		says(t, s, "20\n")
		d.signal(t, syscall.SIGSTOP)
		// Nobody waits for ever: not for a new container, and not for a signal.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if sb, err := e.Create(ctx, newSpec(t, image, "/bin/sh")); err == nil {
			sb.Destroy(context.Background())
			t.Error("Create worked with a daemon that hangs")
		}
		if err := p.Signal(soon(t), int(syscall.SIGTERM)); err != nil {
			t.Errorf("Signal: %v", err)
		}
		d.signal(t, syscall.SIGCONT)
		if exit := wait(t, p); exit.Signal != int(syscall.SIGTERM) || exit.Reason != caisson.ReasonSignaled {
			t.Errorf("exit = %+v, want signal 15", exit)
		}
		counted(t, s)
	})
}

// Without a daemon, or with one that hangs, a probe says so, soon.
func TestNoDaemon(t *testing.T) {
	opts := options(t)
	opts.Host = "unix:///nowhere/docker.sock"
	f, err := newEngine(t, opts).Probe(soon(t))
	if err != nil || f.Usable || len(f.Missing) == 0 || !strings.Contains(f.Missing[0].Why, "/nowhere/docker.sock") {
		t.Errorf("Probe without a daemon = %+v, %v", f.Missing, err)
	}
	if sb, err := newEngine(t, opts).Create(soon(t), newSpec(t, "busybox", "true")); caisson.KindOf(err) != caisson.ErrUnsupported {
		t.Errorf("Create without a daemon = %v, %v", sb, err)
	}
	d := startDaemon(t)
	opts.Host = d.host
	e := newEngine(t, opts)
	d.signal(t, syscall.SIGSTOP)
	if f, err := e.Probe(soon(t)); caisson.KindOf(err) != caisson.ErrUnavailable {
		t.Errorf("Probe with a daemon that hangs = %+v, %v, want ErrUnavailable", f.Missing, err)
	}
	d.signal(t, syscall.SIGCONT)
	if f, err := e.Probe(soon(t)); err != nil || !f.Usable {
		t.Errorf("Probe with a daemon that goes on = %+v, %v", f.Missing, err)
	}
}
