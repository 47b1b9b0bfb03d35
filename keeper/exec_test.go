//go:build linux

package keeper_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/slowtest"
	"github.com/caissonrun/caisson/keeper"
)

func (k *kept) program(script string) *isolate.Program {
	return &isolate.Program{
		Args: []string{"/bin/sh", "-c", script},
		Env:  []string{"PATH=/usr/bin:/bin", "TERM=dumb"},
		Dir:  k.spec.Program.Dir,
	}
}

func (k *kept) exec(p *isolate.Program) *keeper.Exec {
	k.t.Helper()
	e, err := k.Exec(k.ctx(), p, 0)
	if err != nil {
		k.t.Fatalf("Exec: %v", err)
	}
	k.t.Cleanup(func() { e.Close() })
	return e
}

func (k *kept) end(e *keeper.Exec) caisson.Exit {
	k.t.Helper()
	exit, err := e.Wait(k.ctx())
	if err != nil {
		k.t.Fatalf("Wait of an exec: %v", err)
	}
	return exit
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Errorf("read: %v", err)
	}
	return string(data)
}

const sleeps = "sleep 1000"

func TestExec(t *testing.T) {
	k := start(t, spec(t, sleeps))
	e := k.exec(k.program(`read line; echo "out $line"; echo "err $line" >&2; exit 42`))
	io.WriteString(e.Stdin(), "hello\n")
	if out, errs := readAll(t, e.Stdout()), readAll(t, e.Stderr()); out != "out hello\n" || errs != "err hello\n" {
		t.Errorf("stdout %q, stderr %q", out, errs)
	}
	if exit := k.end(e); exit.Reason != caisson.ReasonExited || exit.Code != 42 || exit.Usage.Wall <= 0 {
		t.Errorf("exit = %+v, want code 42", exit)
	}
	wantKind(t, "Signal after the end", e.Signal(k.ctx(), 15), caisson.ErrEnded)
	wantKind(t, "Resize without a terminal", e.Resize(k.ctx(), 80, 24), caisson.ErrUnsupported)

	for _, sig := range []int{2, 9, 15} {
		e := k.exec(k.program("kill -" + itoa(sig) + " $$; sleep 60"))
		if exit := k.end(e); exit.Reason != caisson.ReasonSignaled || exit.Signal != sig {
			t.Errorf("exit = %+v, want signal %d", exit, sig)
		}
	}
	if status, err := k.Status(k.ctx()); err != nil || status.Execs != 0 {
		t.Errorf("status = %+v, %v, want no exec", status, err)
	}
}

func TestExecErr(t *testing.T) {
	k := launch(t, spec(t, untilGo))
	try := func(what string, want caisson.Kind) {
		t.Helper()
		wantKind(t, what, errorOf(k.Exec(k.ctx(), k.program("true"), 0)), want)
	}
	try("Exec before the start", caisson.ErrEnded)
	if err := k.Start(k.ctx()); err != nil {
		t.Fatal(err)
	}
	for _, terminal := range []bool{false, true} {
		e := k.exec(&isolate.Program{Args: []string{"/no/such/program"}, Terminal: terminal})
		if out := readAll(t, e.Stdout()) + readAll(t, e.Stderr()); out != "" {
			t.Errorf("output %q of a program that is not there", out)
		}
		e.Stdin().Close()
		if exit := k.end(e); exit.Code != 127 || !strings.Contains(exit.Message, "/no/such/program") {
			t.Errorf("exit = %+v, want code 127 and a message", exit)
		}
	}
	wantKind(t, "Exec of nothing", errorOf(k.Exec(k.ctx(), &isolate.Program{}, 0)), caisson.ErrInvalid)
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := k.Exec(cancelled, k.program("true"), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("Exec with a cancelled context = %v", err)
	}
	k.letGo()
	k.wait()
	try("Exec after the end", caisson.ErrEnded)
}

func TestExecTerminal(t *testing.T) {
	k := start(t, spec(t, sleeps))
	p := k.program(`trap 'changed=yes' WINCH
		test -t 0 && test -t 1 && test -t 2 && stty size
		until [ -e go ]; do
			test "$changed" && { changed=; stty size; }
			sleep 0.01
		done
		trap - WINCH
		while read line; do echo "got $line"; done; echo end; exit 7`)
	p.Terminal, p.Cols, p.Rows = true, 101, 33
	e := k.exec(p)
	in := newExpect(t, e.Stdout())
	in.await("33 101")
	if err := e.Resize(k.ctx(), 65535, 65535); err != nil {
		t.Fatal(err)
	}
	in.await("65535 65535")
	for i := range 200 {
		if err := e.Resize(k.ctx(), uint16(i%7+1), uint16(i%5+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Resize(k.ctx(), 80, 24); err != nil {
		t.Fatal(err)
	}
	in.await("24 80")
	k.letGo()
	io.WriteString(e.Stdin(), "hello\r")
	in.await("got hello")
	// The end of the input is typed, and nothing else happens.
	if err := e.Stdin().Close(); err != nil {
		t.Fatal(err)
	}
	in.await("end")
	if exit := k.end(e); exit.Code != 7 {
		t.Errorf("exit = %+v, want code 7", exit)
	}
	wantKind(t, "Resize after the end", e.Resize(k.ctx(), 80, 24), caisson.ErrEnded)
	if got := readAll(t, e.Stderr()); got != "" {
		t.Errorf("stderr = %q of a program with a terminal", got)
	}
}

func TestExecTerminalDefaultSizeAndInterrupt(t *testing.T) {
	k := start(t, spec(t, sleeps))
	p := k.program("stty size; echo ready; sleep 1000")
	p.Terminal = true
	e := k.exec(p)
	in := newExpect(t, e.Stdout())
	in.await("24 80")
	in.await("ready")
	// A shell may lose an interrupt between its own work and the next
	// program's, so it is typed again, as a person would.
	exit, err := caisson.Exit{}, context.DeadlineExceeded
	for ctx := k.ctx(); ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded); {
		io.WriteString(e.Stdin(), "\x03")
		short, cancel := context.WithTimeout(ctx, time.Second)
		exit, err = e.Wait(short)
		cancel()
	}
	if err != nil {
		t.Fatalf("Wait of an exec: %v", err)
	}
	if exit.Signal != int(syscall.SIGINT) {
		t.Errorf("exit after ^C = %+v, want signal 2", exit)
	}
}

// expect waits for texts in a stream.
type expect struct {
	t    *testing.T
	mu   sync.Mutex
	text strings.Builder
}

func newExpect(t *testing.T, r io.Reader) *expect {
	e := &expect{t: t}
	go func() {
		buf := make([]byte, 1024)
		for {
			n, err := r.Read(buf)
			e.mu.Lock()
			e.text.Write(buf[:n])
			e.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return e
}

func (e *expect) await(text string) {
	e.t.Helper()
	eventually(e.t, "output "+strconv.Quote(text), func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return strings.Contains(e.text.String(), text)
	})
}

func TestExecLargeBothWays(t *testing.T) {
	size := 100 << 20
	if !slowtest.Wanted() {
		size = 10 << 20
	}
	k := start(t, spec(t, sleeps))
	e := k.exec(k.program("cat"))
	sent, got := sha256.New(), sha256.New()
	var sendErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer e.Stdin().Close()
		rnd := rand.NewChaCha8([32]byte{1})
		_, sendErr = io.CopyN(io.MultiWriter(e.Stdin(), sent), rnd, int64(size))
	}()
	n, err := io.Copy(got, e.Stdout())
	<-done
	if err != nil || sendErr != nil || n != int64(size) {
		t.Fatalf("%d bytes came back: %v, %v", n, err, sendErr)
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Error("what came back differs")
	}
	if exit := k.end(e); exit.Code != 0 {
		t.Errorf("exit = %+v", exit)
	}
}

// A session that nobody reads costs the keeper nothing, and the others and the
// program go on.
func TestExecSlowReader(t *testing.T) {
	needRoot(t, readsMemory)
	k := start(t, spec(t, untilGo))
	before := memory(t, k)
	slow := k.exec(k.program("yes | head -c 100000000; exit 0"))
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			e, err := k.Exec(k.ctx(), k.program(fmt.Sprintf("echo %d", i)), 0)
			if err != nil {
				t.Errorf("Exec: %v", err)
				return
			}
			defer e.Close()
			if got, want := readAll(t, e.Stdout()), fmt.Sprintf("%d\n", i); got != want {
				t.Errorf("stdout = %q, want %q", got, want)
			}
			if exit := k.end(e); exit.Code != 0 {
				t.Errorf("exit = %+v", exit)
			}
		})
	}
	wg.Wait()
	if after := memory(t, k); after > before+8<<20 {
		t.Errorf("the keeper grew from %d to %d bytes", before, after)
	}
	k.letGo()
	if exit := k.wait(); exit.Code != 3 {
		t.Errorf("exit = %+v, want code 3", exit)
	}
	if exit := k.end(slow); exit.Reason != caisson.ReasonAborted {
		t.Errorf("the session's exit = %+v, want aborted", exit)
	}
}

const readsMemory = "a keeper's memory is nobody else's business"

// memory returns a keeper's proportional memory.
func memory(t testing.TB, k *kept) int {
	status, err := k.Status(k.ctx())
	if err != nil {
		t.Fatal(err)
	}
	return pss(t, status.PID)
}

func pss(t testing.TB, pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "Pss: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	t.Fatalf("no Pss of %d", pid)
	return 0
}

func TestExecClose(t *testing.T) {
	const tree = "trap '' HUP TERM; sh -c 'trap \"\" HUP; echo $$ >child; exec sleep 1000' & echo $$ >leader; wait; sleep 1000"
	for name, hangUp := range map[string]func(k *kept, e *keeper.Exec){
		"Close":      func(_ *kept, e *keeper.Exec) { e.Close() },
		"CloseTwice": func(_ *kept, e *keeper.Exec) { e.Close(); e.Close() },
	} {
		for _, terminal := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", name, terminal), func(t *testing.T) {
				k := start(t, spec(t, sleeps))
				p := k.program(tree)
				p.Terminal = terminal
				e := k.exec(p)
				leader, child := k.awaitFile("leader"), k.awaitFile("child")
				hangUp(k, e)
				if exit := k.end(e); exit.Reason != caisson.ReasonKilled {
					t.Errorf("exit = %+v, want killed", exit)
				}
				for _, pid := range []string{leader, child} {
					eventually(t, "process "+pid+" ends", func() bool { return gone(pid) })
				}
				if got := readAll(t, e.Stdout()); got != "" {
					t.Errorf("stdout after Close = %q", got)
				}
				// The program is not touched.
				if status, err := k.Status(k.ctx()); err != nil || status.Exit != nil {
					t.Errorf("status = %+v, %v, want a running program", status, err)
				}
			})
		}
	}
}

// A writer whose program never reads does not keep Close waiting.
func TestExecCloseWhileWriting(t *testing.T) {
	k := start(t, spec(t, sleeps))
	e := k.exec(k.program("exec sleep 1000"))
	written := make(chan error, 1)
	go func() {
		_, err := e.Stdin().Write(make([]byte, 1<<20))
		written <- err
	}()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if err := <-written; err == nil {
		t.Error("a megabyte went to a program that does not read")
	}
}

func TestExecTimeoutAndSignal(t *testing.T) {
	k := start(t, spec(t, sleeps))
	e, err := k.Exec(k.ctx(), k.program("trap '' TERM; sleep 1000"), 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if exit := k.end(e); exit.Reason != caisson.ReasonTimeout {
		t.Errorf("exit = %+v, want timeout", exit)
	}
	other := k.exec(k.program("trap 'exit 5' USR1; echo ready; while :; do sleep 0.01; done"))
	newExpect(t, other.Stdout()).await("ready")
	wantKind(t, "Signal(99)", other.Signal(k.ctx(), 99), caisson.ErrInvalid)
	if err := other.Signal(k.ctx(), int(syscall.SIGUSR1)); err != nil {
		t.Fatal(err)
	}
	if exit := k.end(other); exit.Code != 5 {
		t.Errorf("exit = %+v, want code 5", exit)
	}
}

// An exec neither keeps the program alive nor outlives it.
func TestExecEndsWithTheProgram(t *testing.T) {
	k := start(t, spec(t, untilGo))
	e := k.exec(k.program("trap '' TERM HUP; echo $$ >pid; sleep 1000"))
	pid := k.awaitFile("pid")
	k.letGo()
	k.wait()
	if exit := k.end(e); exit.Reason != caisson.ReasonAborted {
		t.Errorf("exit = %+v, want aborted", exit)
	}
	if !gone(pid) {
		t.Errorf("process %s outlives the program", pid)
	}
}

// What a process that an exec left behind holds does not keep its output open.
func TestExecOutputEnds(t *testing.T) {
	k := start(t, spec(t, sleeps))
	e := k.exec(k.program("sleep 1000 & echo done"))
	if got := readAll(t, e.Stdout()); got != "done\n" {
		t.Errorf("stdout = %q, want done", got)
	}
}
