package guest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
)

// shell is a program that a shell runs.
func shell(script string, args ...string) *guest.Program {
	return &guest.Program{Program: isolate.Program{
		Args: append([]string{"/bin/sh", "-c", script, "sh"}, args...), Env: []string{"PATH=/usr/bin:/bin", "A=b c"},
	}}
}

// run runs a program to its end.
func run(t *testing.T, c *guest.Client, p *guest.Program, stdin string) (stdout, stderr string, code, signal int) {
	t.Helper()
	ctx := testContext(t)
	proc, err := c.Spawn(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	go func() {
		_, _ = io.WriteString(proc.Stdin, stdin)
		proc.Stdin.Close()
	}()
	var errText []byte
	done := make(chan struct{})
	go func() {
		defer close(done)
		errText, _ = io.ReadAll(proc.Stderr)
	}()
	out, err := io.ReadAll(proc.Stdout)
	if err != nil {
		t.Fatalf("stdout: %v after %q", err, out)
	}
	<-done
	code, signal, err = proc.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), string(errText), code, signal
}

func TestSpawn(t *testing.T) {
	inEveryWay(t, func(t *testing.T, c *guest.Client) {
		out, errText, code, signal := run(t, c, shell(`cat; echo "$A,$1,$PWD"; echo err >&2; exit 42`, "x y"), "in\x00put\n")
		if out != "in\x00put\nb c,x y,/\n" || errText != "err\n" || code != 42 || signal != 0 {
			t.Errorf("got %q, %q, %d, %d", out, errText, code, signal)
		}
		if _, _, code, signal = run(t, c, shell(`kill -SEGV $$`), ""); code != 0 || signal != int(unix.SIGSEGV) {
			t.Errorf("code %d, signal %d, want signal 11", code, signal)
		}
		p := shell("pwd")
		p.Program.Dir = "/usr"
		if out, _, _, _ = run(t, c, p, ""); out != "/usr\n" {
			t.Errorf("working directory %q", out)
		}
	})
}

func TestSpawnErrors(t *testing.T) {
	inEveryWay(t, func(t *testing.T, c *guest.Client) {
		ctx := testContext(t)
		for name, want := range map[string]int{"no-such-program": 127, "/etc/passwd": 126, "": 127} {
			_, err := c.Spawn(ctx, &guest.Program{Program: isolate.Program{Args: []string{name}}})
			var x *isolate.ExecError
			if !errors.As(err, &x) || x.Code != want {
				t.Errorf("Spawn(%q) = %v, want code %d", name, err, want)
			}
		}
		if list, err := c.Programs(ctx); err != nil || len(list) != 0 {
			t.Errorf("programs that are left: %v, %v", list, err)
		}
	})
}

func TestLastBytes(t *testing.T) {
	c := dial(t, startAgent(t, nil))
	for i := range 30 {
		if out, _, code, _ := run(t, c, shell(fmt.Sprintf("echo %d", i)), ""); out != fmt.Sprintln(i) || code != 0 {
			t.Fatalf("run %d: %q, %d", i, out, code)
		}
	}
}

func TestManyArguments(t *testing.T) {
	c := dial(t, startAgent(t, nil))
	args := make([]string, 10000)
	for i := range args {
		args[i] = fmt.Sprint("argument ", i)
	}
	args[17] = strings.Repeat("x", 100<<10)
	p := shell(`echo $#; printf %s "${18}" | wc -c`, args...)
	if out, _, _, _ := run(t, c, p, ""); strings.Join(strings.Fields(out), " ") != "10000 102400" {
		t.Errorf("got %q", out)
	}
}

// TestBinary sends much in both directions at once: windows, order, every byte.
func TestBinary(t *testing.T) {
	checkLeaks(t)
	c := dial(t, startAgent(t, nil))
	proc, err := c.Spawn(testContext(t), shell("cat"))
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	const size = 8 << 20
	block := make([]byte, 1<<16)
	for i := range block {
		block[i] = byte(i * 7)
	}
	go func() {
		for range size / len(block) {
			if _, err := proc.Stdin.Write(block); err != nil {
				t.Error(err)
			}
		}
		proc.Stdin.Close()
	}()
	got, want := sha256.New(), sha256.New()
	for range size / len(block) {
		want.Write(block)
	}
	if n, err := io.Copy(got, proc.Stdout); n != size || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Error("the bytes are others")
	}
}

// TestSlowReader has nobody read one program's output, while others run.
func TestSlowReader(t *testing.T) {
	checkLeaks(t)
	c := dial(t, startAgent(t, nil))
	ctx := testContext(t)
	slow, err := c.Spawn(ctx, shell("exec yes"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	stuck, err := c.Spawn(ctx, shell("exec sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	writing := make(chan struct{})
	go func() {
		defer close(writing)
		// Nobody reads it.
		_, _ = stuck.Stdin.Write(make([]byte, 1<<20))
	}()
	if out, _, _, _ := run(t, c, shell("echo works"), ""); out != "works\n" {
		t.Errorf("got %q", out)
	}
	stuck.Close()
	<-writing
	if _, _, err := stuck.Wait(ctx); !errors.Is(err, caisson.ErrEnded) {
		t.Errorf("Wait after Close = %v", err)
	}
	slow.Stdout.Close()
	if _, signal, err := slow.Wait(ctx); err != nil || signal != int(unix.SIGPIPE) {
		t.Errorf("signal %d, %v, want SIGPIPE", signal, err)
	}
}

// TestHeldOutput has a child hold the output after the program's end.
func TestHeldOutput(t *testing.T) {
	inEveryWay(t, func(t *testing.T, c *guest.Client) {
		ctx := testContext(t)
		proc, err := c.Spawn(ctx, shell("sleep 1000 & echo started"))
		if err != nil {
			t.Fatal(err)
		}
		defer proc.Close()
		if code, _, err := proc.Wait(ctx); code != 0 || err != nil {
			t.Fatal(code, err)
		}
		if alive, err := c.Alive(ctx); !alive || err != nil {
			t.Errorf("alive %v, %v", alive, err)
		}
		if err := c.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		if out, err := io.ReadAll(proc.Stdout); string(out) != "started\n" || err != nil {
			t.Errorf("got %q, %v", out, err)
		}
		if alive, err := c.Alive(ctx); alive || err != nil {
			t.Errorf("alive %v, %v", alive, err)
		}
	})
}

func TestSignalAndKill(t *testing.T) {
	inEveryWay(t, func(t *testing.T, c *guest.Client) {
		ctx := testContext(t)
		proc, err := c.Spawn(ctx, shell("trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done"))
		if err != nil {
			t.Fatal(err)
		}
		defer proc.Close()
		ready := make([]byte, 6)
		if _, err := io.ReadFull(proc.Stdout, ready); err != nil {
			t.Fatal(err)
		}
		if err := proc.Signal(ctx, int(unix.SIGTERM)); err != nil {
			t.Fatal(err)
		}
		if code, _, err := proc.Wait(ctx); code != 3 || err != nil {
			t.Errorf("code %d, %v", code, err)
		}
		_, _ = io.ReadAll(proc.Stdout)
		eventually(t, "the program is forgotten", func() bool {
			return errors.Is(proc.Signal(ctx, int(unix.SIGTERM)), caisson.ErrEnded)
		})
		tree, err := c.Spawn(ctx, shell("(setsid sh -c 'trap \"\" TERM; sleep 1000' &) ; exec sleep 1000"))
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		if err := c.Freeze(ctx, true); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Spawn(ctx, shell(":")); !errors.Is(err, caisson.ErrUnavailable) && err == nil {
			t.Errorf("a program was started while all were halted: %v", err)
		}
		if err := c.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		if _, signal, err := tree.Wait(ctx); signal != int(unix.SIGKILL) || err != nil {
			t.Errorf("signal %d, %v", signal, err)
		}
	})
}

func TestTerminal(t *testing.T) {
	inEveryWay(t, func(t *testing.T, c *guest.Client) {
		ctx := testContext(t)
		p := shell("test -t 0 && stty size; read line; stty size; echo got $line; cat")
		p.Program.Terminal, p.Program.Cols, p.Program.Rows = true, 70, 20
		proc, err := c.Spawn(ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		defer proc.Close()
		var text string
		until := func(part string) {
			buf := make([]byte, 100)
			for !strings.Contains(text, part) {
				n, err := proc.Stdout.Read(buf)
				if text += string(buf[:n]); err != nil {
					t.Fatalf("%v after %q, before %q", err, text, part)
				}
			}
		}
		until("20 70")
		if err := proc.Resize(ctx, 65535, 1); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(proc.Stdin, "hello\n")
		until("1 65535")
		until("got hello")
		proc.Stdin.Close()
		if code, _, err := proc.Wait(ctx); code != 0 || err != nil {
			t.Errorf("code %d, %v: ^D has not ended it", code, err)
		}
	})
}

func TestResizeWithoutTerminal(t *testing.T) {
	c := dial(t, startAgent(t, nil))
	proc, err := c.Spawn(testContext(t), shell("sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	if err := proc.Resize(testContext(t), 1, 1); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Resize = %v", err)
	}
}

func TestSetup(t *testing.T) {
	inEveryWay(t, func(t *testing.T, c *guest.Client) {
		ctx := testContext(t)
		s := &guest.Setup{Files: 99, Limits: []isolate.Limit{{Resource: unix.RLIMIT_FSIZE, Soft: 1 << 20, Hard: 1 << 20}}}
		root := os.Geteuid() == 0 && t.Name() != "TestSetup/ordinary_user"
		if root {
			s.User = &isolate.User{UID: 777, GID: 888, Groups: []int{999}}
		}
		if err := c.Setup(ctx, s); err != nil {
			t.Fatal(err)
		}
		out, _, _, _ := run(t, c, shell("ulimit -n; ulimit -f; id -u; id -G; grep -E 'CapEff|NoNewPrivs' /proc/self/status"), "")
		contains(t, out, "99\n2048\n")
		contains(t, out, "NoNewPrivs:\t1")
		if root {
			contains(t, out, "777\n888 999\n")
			contains(t, out, "CapEff:\t0000000000000000")
		}
		if err := c.Setup(ctx, s); !errors.Is(err, caisson.ErrExists) {
			t.Errorf("a second Setup = %v", err)
		}
		if _, err := c.Stats(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestHangUp has what a program has started end with its Process, unless that was done
// with it.
func TestHangUp(t *testing.T) {
	inEveryWay(t, func(t *testing.T, c *guest.Client) {
		ctx := testContext(t)
		for script, survives := range map[string]bool{
			"sleep 1000": false, "sleep 1000 & exit 0": false, "sleep 1000 >/dev/null 2>&1 & exit 0": true,
		} {
			proc, err := c.Spawn(ctx, shell(script))
			if err != nil {
				t.Fatal(err)
			}
			if script != "sleep 1000" {
				if _, _, err := proc.Wait(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if survives {
				_, _ = io.ReadAll(proc.Stdout)
				_, _ = io.ReadAll(proc.Stderr)
				eventually(t, "the agent is done with it", func() bool {
					list, err := c.Programs(ctx)
					return len(list) == 0 && err == nil
				})
			}
			proc.Close()
			if survives {
				if alive, err := c.Alive(ctx); !alive || err != nil {
					t.Errorf("%s: alive %v, %v", script, alive, err)
				}
				if err := c.Kill(ctx); err != nil {
					t.Error(err)
				}
			}
			eventually(t, script+": nothing is left", func() bool {
				alive, err := c.Alive(ctx)
				return !alive && err == nil
			})
		}
	})
}

// TestReaping has the first process reap what nobody else does.
func TestReaping(t *testing.T) {
	inEveryWay(t, func(t *testing.T, c *guest.Client) {
		out, _, _, _ := run(t, c, shell("for i in 1 2 3 4 5; do (sh -c 'sleep 0.02; echo $$' &) ; done"), "")
		pids := strings.Fields(out)
		if len(pids) != 5 {
			t.Fatalf("got %q", out)
		}
		eventually(t, "none of them is left", func() bool {
			left, _, _, _ := run(t, c, shell("for p in "+strings.Join(pids, " ")+"; do [ -e /proc/$p ] && echo $p; done; true"), "")
			return left == ""
		})
	})
}

// TestAttach has a program go on from one session to the next, with no byte of its
// output lost or doubled.
func TestAttach(t *testing.T) {
	checkLeaks(t)
	host := startAgent(t, nil)
	ctx := testContext(t)
	// The agent can't tell whose greeting it hears: all sessions use one stream.
	first := dial(t, lent{host})
	p := shell("i=0; while [ $i -lt 12000 ]; do echo line $i; i=$((i+1)); done; read x; echo $x; exit 5")
	p.Keep = true
	proc, err := first.Spawn(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	other, err := first.Spawn(ctx, shell("sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	have := make([]byte, 10000)
	if _, err := io.ReadFull(proc.Stdout, have); err != nil {
		t.Fatal(err)
	}
	lose(t, host, first)

	second := dial(t, lent{host})
	list, err := second.Programs(ctx)
	if err != nil || len(list) != 1 || !list[0].Kept || list[0].Exit != nil {
		t.Fatalf("programs: %+v, %v", list, err)
	}
	if second.Boot() != first.Boot() {
		t.Error("the agent says that it is another one")
	}
	if _, err := second.Attach(ctx, list[0].ID, 1<<40, 0); err == nil {
		t.Error("attached to what there is not")
	}
	again, err := second.Attach(ctx, list[0].ID, int64(len(have)), 0)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.WriteString(again.Stdin, "end\n")
		again.Stdin.Close()
	}()
	rest, err := io.ReadAll(again.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range 12000 {
		fmt.Fprintln(&want, "line", i)
	}
	want.WriteString("end\n")
	if string(have)+string(rest) != want.String() {
		t.Errorf("%d and %d bytes, want %d", len(have), len(rest), want.Len())
	}
	if code, _, err := again.Wait(ctx); code != 5 || err != nil {
		t.Errorf("code %d, %v", code, err)
	}
	again.Close()
	if list, err = second.Programs(ctx); err != nil || len(list) != 1 || list[0].Exit == nil || list[0].Exit.Code != 5 {
		t.Errorf("after the end: %+v, %v", list, err)
	}
	if err := second.Forget(ctx, list[0].ID); err != nil {
		t.Error(err)
	}
	if err := second.Forget(ctx, list[0].ID); !errors.Is(err, caisson.ErrEnded) {
		t.Errorf("Forget again = %v", err)
	}
}

// TestSessionEnds has the agent's programs end with their session.
func TestSessionEnds(t *testing.T) {
	host := startAgent(t, nil)
	ctx := testContext(t)
	first := dial(t, lent{host})
	proc, err := first.Spawn(ctx, shell("exec sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	pid := proc.PID()
	lose(t, host, first)
	if _, _, err := proc.Wait(ctx); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Wait = %v", err)
	}
	second := dial(t, lent{host})
	if list, err := second.Programs(ctx); err != nil || len(list) != 0 {
		t.Errorf("programs: %v, %v", list, err)
	}
	eventually(t, "the program is dead", func() bool {
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	})
}

// TestCancel has calls end with their contexts.
func TestCancel(t *testing.T) {
	c := dial(t, startAgent(t, nil))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Ping(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Ping = %v", err)
	}
	if _, err := c.Spawn(ctx, shell(":")); !errors.Is(err, context.Canceled) {
		t.Errorf("Spawn = %v", err)
	}
	if err := c.Ping(testContext(t)); err != nil {
		t.Errorf("Ping after that = %v", err)
	}
}

// TestFlush knows how long the output is while others still hold it open, also more
// than a window and a pipe hold together.
func TestFlush(t *testing.T) {
	inEveryWay(t, func(t *testing.T, c *guest.Client) {
		ctx := testContext(t)
		const long = 300_000
		proc, err := c.Spawn(ctx, shell(fmt.Sprintf("sleep 1000 & head -c %d /dev/zero; printf four >&2", long)))
		if err != nil {
			t.Fatal(err)
		}
		defer proc.Close()
		read := make(chan int64, 1)
		go func() {
			n, _ := io.Copy(io.Discard, io.LimitReader(proc.Stdout, long))
			read <- n
		}()
		if _, _, err := proc.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		stdout, stderr, err := proc.Flush(ctx)
		if stdout != long || stderr != 4 || err != nil {
			t.Errorf("Flush = %d, %d, %v, want %d, 4", stdout, stderr, err, long)
		}
		if n := <-read; n != long {
			t.Errorf("%d bytes were read", n)
		}
		if err := c.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(proc.Stdout)
		_, _ = io.ReadAll(proc.Stderr)
		eventually(t, "the program is forgotten", func() bool {
			_, _, err := proc.Flush(ctx)
			return errors.Is(err, caisson.ErrEnded)
		})
	})
}
