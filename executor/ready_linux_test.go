package executor

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/native"
	"github.com/caissonrun/caisson/keeper"
)

// listenIn listens in a network namespace.
func listenIn(path, address string) (net.Listener, error) {
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(ns)
	type answer struct {
		l   net.Listener
		err error
	}
	answers := make(chan answer)
	go func() {
		runtime.LockOSThread() // for good: the thread is in another namespace
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			answers <- answer{nil, err}
			return
		}
		l, err := net.Listen("tcp", address)
		answers <- answer{l, err}
	}()
	a := <-answers
	return a.l, a.err
}

// A child reaches what is opened for it inside of its network, which is there
// before its program starts.
func TestReady(t *testing.T) {
	s := newCrashSetup(t)
	if s.isolation != native.Full || os.Geteuid() != 0 {
		t.Skip("the network of a sandbox can be entered by root only")
	}
	h := s.host(t, true)
	c := new(cook)
	var got string
	c.during = func(ctx context.Context, j *Job) error {
		var l net.Listener
		done := make(chan struct{})
		task := sh("exec 3<> /dev/tcp/127.0.0.1/12201 && echo hello >&3")
		task.Run, task.Cmd = "", []string{"bash", "-c", task.Run}
		id, err := j.Submit(ctx, "gelf", &Child{Task: task, Ready: func(netns string) (err error) {
			if l, err = listenIn(netns, "127.0.0.1:12201"); err != nil {
				return err
			}
			go func() {
				defer close(done)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				buf := make([]byte, 64)
				n, _ := conn.Read(buf)
				got = string(buf[:n])
			}()
			return nil
		}})
		if err != nil {
			return err
		}
		result, err := j.Wait(ctx, id)
		if l != nil {
			l.Close()
			<-done
		}
		if err == nil && !result.Success {
			t.Errorf("child's result = %+v", result)
		}
		failing := &Child{Task: sh("echo never"), Ready: func(string) error { return errors.New("no port is free") }}
		if id, err = j.Submit(ctx, "failing", failing); err != nil {
			return err
		}
		result, err = j.Wait(ctx, id)
		if err == nil && (result.Error == nil || !strings.Contains(result.Error.Message, "no port is free")) {
			t.Errorf("result of a child that could not be served = %+v", result)
		}
		return err
	}
	x := h.executor(t, c)
	defer x.Close()
	id, err := x.Submit(t.Context(), composed(), &Submission{})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if result, err := x.Wait(t.Context(), id); err != nil || !result.Success {
		t.Errorf("result = %+v, %v", result, err)
	}
	if got != "hello\n" {
		t.Errorf("the listener got %q", got)
	}
}

// executor is one of this process with engine native, and a composite.
func (h *host) executor(t *testing.T, c Composite) *Executor {
	t.Helper()
	e, err := native.New(&native.Options{Runtime: filepath.Join(h.dir, "run", "native"), Keeper: keeper.Command{h.keeper}})
	if err != nil {
		t.Fatal(err)
	}
	x, err := New(&Options{
		State: filepath.Join(h.dir, "state"), Runtime: filepath.Join(h.dir, "run"), Engines: []engine.Engine{e}, Composite: c,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return x
}

// A task that nobody can serve from outside is refused before it runs.
func TestReadyErr(t *testing.T) {
	r, c := newKitchen(t)
	var refused error
	c.during = func(ctx context.Context, j *Job) error {
		_, refused = j.Submit(ctx, "gelf", &Child{Task: sh("true"), Ready: func(string) error { return nil }})
		return nil
	}
	if got := r.process().run(composed()); !got.Success || !errors.Is(refused, caisson.ErrUnsupported) {
		t.Errorf("Submit = %v, result %+v, want unsupported", refused, got)
	}
	r.cleanComposite()
}
