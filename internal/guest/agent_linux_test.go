package guest_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/guest/agent"
	"github.com/caissonrun/caisson/internal/guest/wire"
)

// agentVariable has this test program be the agent.
const agentVariable = "CAISSON_TEST_GUEST_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(agentVariable) != "" {
		os.Exit(agent.Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// limit is more than anything here takes.
const limit = 3 * time.Minute

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// socketpair returns both ends of a stream.
func socketpair(t *testing.T) (host net.Conn, agent *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "host")
	defer f.Close()
	if host, err = net.FileConn(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	return host, os.NewFile(uintptr(fds[1]), "agent")
}

// startAgent starts the agent as another process and returns the way to it. It ends
// with the test, and must then leave nothing.
func startAgent(t *testing.T, attr *syscall.SysProcAttr) net.Conn {
	t.Helper()
	host, theirs := socketpair(t)
	cmd := exec.Command("/proc/self/exe", "3")
	cmd.Env = []string{agentVariable + "=1", "PATH=" + os.Getenv("PATH")}
	cmd.ExtraFiles, cmd.Stderr, cmd.SysProcAttr, cmd.Dir = []*os.File{theirs}, os.Stderr, attr, "/"
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	t.Cleanup(func() {
		host.Close()
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			if err != nil && (attr == nil || attr.Cloneflags == 0) {
				t.Errorf("the agent has ended with %v", err)
			}
		case <-time.After(limit):
			_ = cmd.Process.Kill()
			t.Error("the agent has not ended")
		}
	})
	return host
}

// dial begins a session that ends with the test.
func dial(t *testing.T, conn net.Conn) *guest.Client {
	t.Helper()
	c, err := guest.Dial(testContext(t), conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A lent connection is not closed by who has it, but what waits at it returns.
type lent struct{ net.Conn }

// Close implements net.Conn.
func (l lent) Close() error { return l.SetDeadline(time.Unix(1, 0)) }

// lose ends a session in such a way that the agent does not hear of it, in the middle
// of a frame.
func lose(t *testing.T, host net.Conn, c *guest.Client) {
	t.Helper()
	c.Close()
	if err := host.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	f := wire.Frame{Kind: wire.KindData, Call: 1, Body: make([]byte, wire.MaxBody)}
	if _, err := host.Write(f.Append(nil)[:1000]); err != nil {
		t.Fatal(err)
	}
}

// A way is how the agent can run in a test.
type way struct {
	name string
	attr *syscall.SysProcAttr
}

// ways are those that this user has.
func ways() []way {
	list := []way{{name: "same user"}}
	if os.Geteuid() == 0 {
		list = append(
			list,
			way{"ordinary user", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}},
			way{"init", initAttr()},
		)
	}
	return list
}

// initAttr makes the agent the first process of a place of its own.
func initAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:   unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Unshareflags: unix.CLONE_NEWNS,
	}
}

// start starts an agent and begins a session.
func (w *way) start(t *testing.T) *guest.Client {
	t.Helper()
	c := dial(t, startAgent(t, w.attr))
	if w.name == "init" {
		if err := c.Mount(testContext(t), &guest.Mount{Type: "proc", Source: "proc", Target: "/proc"}); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// inEveryWay runs a test with each kind of agent.
func inEveryWay(t *testing.T, f func(t *testing.T, c *guest.Client)) {
	t.Helper()
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			checkLeaks(t)
			f(t, w.start(t))
		})
	}
}

// checkLeaks fails the test if it leaves goroutines.
func checkLeaks(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
		if runtime.NumGoroutine() > before {
			buf := make([]byte, 1<<16)
			t.Logf("%s", buf[:runtime.Stack(buf, true)])
		}
	})
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("not so: %s", what)
			return
		}
	}
}

// contains fails the test if text does not hold part.
func contains(t *testing.T, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%q does not contain %q", text, part)
	}
}
