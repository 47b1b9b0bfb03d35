package enginetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
)

func execCases() []Case {
	needs := []string{"exec"}
	return []Case{
		{
			Name: "exec/output", Rules: []int{56, 57, 60}, Needs: needs,
			Rule: "an exec's stdout and stderr are exact and not in the log, and its exit code and signal arrive",
			body: execOutput,
		},
		{
			Name: "exec/not-found", Rules: []int{61}, Needs: needs,
			Rule: "a program that is not found or not executable is an Exit of code 127 or 126, also with a terminal",
			body: execNotFound,
		},
		{
			Name: "exec/stdin", Rules: []int{64}, Needs: needs,
			Rule: "bytes pass through stdin and stdout unchanged, and the end of input is seen",
			body: execStdin,
		},
		{
			Name: "exec/slow-reader", Rules: []int{65}, Needs: needs,
			Rule: "output that nobody reads holds up this program only, and Close does not block",
			body: execSlowReader,
		},
		{
			Name: "exec/unread-stdin", Rules: []int{65}, Needs: needs,
			Rule: "Close ends a write to a program that never reads",
			body: execUnreadStdin,
		},
		{
			Name: "exec/close", Rules: []int{58, 68}, Needs: needs,
			Rule: "Close kills whatever of the program runs, ends the streams, and can be repeated",
			body: execClose,
		},
		{
			Name: "exec/ends-with-main", Rules: []int{59, 66, 67}, Needs: needs,
			Rule: "an exec neither keeps the sandbox alive nor outlives the program: its reason is aborted",
			body: execEndsWithMain,
		},
		{
			Name: "exec/while-stopping", Rules: []int{48, 66}, Needs: needs,
			Rule: "an exec that starts while the program is stopped, ends, or is destroyed runs or is refused, and nothing hangs",
			body: execWhileStopping,
		},
		{
			Name: "exec/too-late", Rules: []int{66, 70}, Needs: needs,
			Rule: "Exec before the start and after the end is ErrEnded, after Destroy ErrAborted",
			body: execTooLate,
		},
		{
			Name: "exec/many", Rules: []int{66}, Needs: needs,
			Rule: "many execs run at once, each with its own streams and exit",
			body: execMany,
		},
		{
			Name: "exec/same-as-main", Rules: []int{23, 69}, Attacks: []int{16}, Needs: needs,
			Rule: "an exec has the program's user, groups, rights, namespaces, environment, folder and limits",
			body: execSameAsMain,
		},
		{
			Name: "exec/own-settings", Rules: []int{23, 69}, Attacks: []int{3}, Needs: needs,
			Rule: "an exec's variables are added to the program's, its folder is its own, and wrong ones are ErrInvalid",
			body: execOwnSettings,
		},
		{
			Name: "exec/default-shell", Rules: []int{61}, Needs: append([]string{"script"}, needs...),
			Rule: "an exec without arguments is the default shell",
			body: execDefaultShell,
		},
		{
			Name: "exec/signal", Rules: []int{60}, Needs: needs,
			Rule: "a signal reaches the exec's program; after its end it is ErrEnded",
			body: execSignal,
		},
		{
			Name: "exec/timeout", Rules: []int{60}, Needs: needs,
			Rule: "an exec whose time is up is killed and its reason is timeout",
			body: execTimeout,
		},
		{
			Name: "exec/wait", Rules: []int{40, 41}, Needs: needs,
			Rule: "Wait of an exec repeats, and a context ends that waiter only",
			body: execWait,
		},
		{
			Name: "exec/no-terminal", Rules: []int{63}, Needs: needs,
			Rule: "Resize without a terminal is ErrUnsupported",
			body: execNoTerminal,
		},
	}
}

// A session is an exec that is closed after the case.
type session struct {
	t *T
	engine.Session
}

// exec runs the inside program with args beside the main one.
func (b *box) exec(args ...string) *session {
	return b.execSpec(&engine.ExecSpec{Args: b.t.argv(b.t.inside(b.spec, words(args)...)...)})
}

func (b *box) execSpec(spec *engine.ExecSpec) *session {
	s, err := b.Sandbox.(engine.Execer).Exec(b.t.ctx, spec)
	b.t.ok(err, "Exec")
	b.t.after(func() { s.Close() })
	return &session{b.t, s}
}

// finish reads everything and returns it with how the program ended.
func (s *session) finish() (stdout, stderr string, exit caisson.Exit) {
	var out, err []byte
	parallel(2, func(i int) {
		var e error
		if i == 0 {
			out, e = io.ReadAll(s.Stdout())
		} else {
			err, e = io.ReadAll(s.Stderr())
		}
		s.t.kindOK(e, "reading an exec's output")
	})
	return string(out), string(err), s.wait()
}

func (s *session) wait() caisson.Exit {
	exit, err := s.Wait(s.t.ctx)
	s.t.ok(err, "Wait of an exec")
	return exit
}

// expect checks how the program ended.
func (s *session) expect(reason caisson.Reason, code, signal int) caisson.Exit {
	exit := s.wait()
	if exit.Reason != reason || exit.Code != code || exit.Signal != signal {
		s.t.Errorf("Wait of an exec = %+v, want %s, code %d, signal %d", exit, reason, code, signal)
	}
	return exit
}

// killed checks that the program was killed, for whatever reason.
func (s *session) killed() {
	if exit := s.wait(); exit.Signal != sigKill {
		s.t.Errorf("Wait of an exec = %+v, want signal %d", exit, sigKill)
	}
}

// reads waits until the program has printed a line on stdout.
func (s *session) reads(line string) {
	var got []byte
	for buf := make([]byte, 1); !bytes.HasSuffix(got, []byte("\n")); {
		n, err := s.Stdout().Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			break
		}
	}
	if text := strings.TrimRight(string(got), "\r\n"); text != line {
		s.t.Fatalf("an exec printed %q, want %q", text, line)
	}
}

// holding starts a sandbox whose program runs until it is stopped.
func (t *T) holding() *box {
	b := t.launch("trap 15 ; say ready ; await 15 ; exit 0")
	b.says("ready")
	return b
}

func execOutput(t *T) {
	b := t.holding()
	out, err, exit := b.exec("say", "to stdout", ";", "warn", "to stderr", ";", "exit", "0").finish()
	if out != "to stdout\n" || err != "to stderr\n" || exit.Reason != caisson.ReasonExited || exit.Code != 0 {
		t.Errorf("stdout = %q, stderr = %q, %+v", out, err, exit)
	}
	for _, code := range []int{1, 42, 255} {
		b.exec("exit", fmt.Sprint(code)).expect(caisson.ReasonExited, code, 0)
	}
	b.exec("raise 15").expect(caisson.ReasonSignaled, 0, sigTerm)
	b.exec("raise 11").expect(caisson.ReasonSignaled, 0, sigSegv)
	if got := b.stdout() + b.stderr(); got != "ready\n" {
		t.Errorf("the program's log has %q: an exec's output does not belong there", got)
	}
	b.stop(engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(time.Minute)})
	b.expect(caisson.ReasonStopped, 0, 0)
}

func execNotFound(t *T) {
	b := t.holding()
	for _, terminal := range []bool{false, t.features.Terminal} {
		s := b.execSpec(&engine.ExecSpec{Args: []string{"no-such-program"}, Terminal: terminal})
		if exit := s.expect(caisson.ReasonExited, 127, 0); !strings.Contains(exit.Message, "no-such-program") {
			t.Errorf("the message %q does not name the program", exit.Message)
		}
		s = b.execSpec(&engine.ExecSpec{Args: []string{"/work"}, Terminal: terminal})
		s.expect(caisson.ReasonExited, 126, 0)
	}
	b.exec("exit 0").expect(caisson.ReasonExited, 0, 0)
}

func execStdin(t *T) {
	size := int64(8 << 20)
	if *heavy {
		size = 100 << 20
	}
	b := t.holding()
	s := b.exec("cat")
	sums := [2][]byte{}
	parallel(2, func(i int) {
		sum := sha256.New()
		if i == 0 {
			_, err := io.Copy(io.MultiWriter(s.Stdin(), sum), io.LimitReader(act.Pattern(5), size))
			t.kindOK(errors.Join(err, s.Stdin().Close()), "writing stdin")
		} else {
			n, err := io.Copy(sum, s.Stdout())
			if err != nil || n != size {
				t.Errorf("%d bytes came back of %d, %v", n, size, err)
			}
		}
		sums[i] = sum.Sum(nil)
	})
	if !bytes.Equal(sums[0], sums[1]) {
		t.Errorf("other bytes came back")
	}
	s.expect(caisson.ReasonExited, 0, 0)
	s = b.exec("hash ; exit 5")
	t.ok(s.Stdin().Close(), "closing stdin")
	if out, _, exit := s.finish(); !strings.HasPrefix(out, "0 ") || exit.Code != 5 {
		t.Errorf("a closed stdin: %q, %+v", out, exit)
	}
}

func execSlowReader(t *T) {
	b := t.holding()
	slow := b.exec("print stdout 64m 1")
	if _, err := io.ReadFull(slow.Stdout(), make([]byte, 1)); err != nil {
		t.Fatalf("reading one byte: %v", err)
	}
	out, _, _ := b.exec("say other").finish()
	if out != "other\n" {
		t.Errorf("another exec printed %q", out)
	}
	ctx, cancel := context.WithTimeout(t.ctx, 50*time.Millisecond)
	defer cancel()
	if exit, err := slow.Wait(ctx); err == nil {
		t.Errorf("the program ended although nobody reads 64 MiB: %+v", exit)
	}
	t.ok(slow.Close(), "Close")
	slow.killed()
}

func execUnreadStdin(t *T) {
	b := t.holding()
	s := b.exec("say deaf ; hold")
	s.reads("deaf")
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(s.Stdin(), io.LimitReader(act.Pattern(1), 64<<20))
		ended <- err
	}()
	t.ok(s.Close(), "Close")
	select {
	case err := <-ended:
		if err == nil {
			t.Errorf("64 MiB were taken by a program that reads nothing")
		}
	case <-t.ctx.Done():
		t.Errorf("the write did not end")
	}
}

func execClose(t *T) {
	b := t.holding()
	s := b.exec("ignore 1 15 ; say running ; hold")
	s.reads("running")
	for range 2 {
		t.ok(s.Close(), "Close")
	}
	s.killed()
	if n, err := s.Stdout().Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("reading after Close = %d, %v", n, err)
	}
	t.kind(s.Signal(t.ctx, sigTerm), "Signal after Close", caisson.ErrEnded)
	b.exec("exit 0").expect(caisson.ReasonExited, 0, 0)
}

func execEndsWithMain(t *T) {
	for _, ending := range []func(b *box){
		func(b *box) { t.ok(b.process.Signal(t.ctx, sigTerm), "Signal") },
		func(b *box) { b.stop(engine.Stop{Reason: caisson.ReasonKilled}) },
		func(b *box) { t.destroy(b.Sandbox) },
	} {
		b := t.holding()
		s := b.exec("ignore 15 ; say idle ; hold")
		s.reads("idle")
		ending(b)
		b.wait()
		s.endedWith("the program's end")
	}
}

// execWhileStopping has execs begin before, during and after the end of their
// sandboxes.
func execWhileStopping(t *T) {
	ends := []func(b *box) error{
		func(b *box) error { return b.process.Stop(t.ctx, engine.Stop{Reason: caisson.ReasonKilled}) },
		func(b *box) error {
			return b.process.Stop(t.ctx, engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(20 * time.Millisecond)})
		},
		func(b *box) error { return b.Destroy(t.ctx) },
	}
	parallel(len(ends), func(n int) {
		for round := range max(1, t.times(5)) {
			b := t.launch("ignore 15 ; hold")
			parallel(8, func(i int) {
				if i == 4 {
					time.Sleep(time.Duration(round) * time.Millisecond)
					t.kindOK(ends[n](b), "ending the program")
					return
				}
				for {
					s, err := b.Sandbox.(engine.Execer).Exec(t.ctx, &engine.ExecSpec{Args: t.argv("hold"), Timeout: caisson.Duration(5 * time.Millisecond)})
					if err != nil {
						t.kind(err, "Exec while the program is ended", caisson.ErrEnded, caisson.ErrAborted)
						return
					}
					exit, err := s.Wait(t.ctx)
					t.kindOK(err, "Wait of an exec")
					if exit.Reason != caisson.ReasonTimeout && exit.Reason != caisson.ReasonAborted {
						t.Errorf("an exec ended with %+v, want timeout or aborted", exit)
					}
					t.kindOK(s.Close(), "Close")
				}
			})
			b.wait()
			t.destroy(b.Sandbox)
		}
	})
}

func execTooLate(t *T) {
	spec := t.spec("exit 0")
	sb := t.create(spec)
	execer := sb.(engine.Execer)
	do := func(when string, kinds ...caisson.Kind) {
		s, err := execer.Exec(t.ctx, &engine.ExecSpec{Args: t.argv("exit 0")})
		if err == nil {
			s.Close()
		}
		t.kind(err, "Exec "+when, kinds...)
	}
	do("before the start", caisson.ErrEnded)
	process, err := sb.Start(t.ctx)
	t.ok(err, "Start")
	_, err = process.Wait(t.ctx)
	t.ok(err, "Wait")
	do("after the end", caisson.ErrEnded)
	t.destroy(sb)
	do("after Destroy", caisson.ErrAborted)
}

func execMany(t *T) {
	t.holding().manyExecs(50)
}

// manyExecs runs many programs at once.
func (b *box) manyExecs(n int) {
	t := b.t
	parallel(n, func(i int) {
		s, err := b.Sandbox.(engine.Execer).Exec(t.ctx, &engine.ExecSpec{Args: t.argv(fmt.Sprintf("say number %d ; cat ; exit %d", i, i))})
		if err != nil {
			t.Errorf("Exec %d = %v", i, err)
			return
		}
		defer s.Close()
		_, werr := fmt.Fprintf(s.Stdin(), "input %d", i)
		t.kindOK(errors.Join(werr, s.Stdin().Close()), "writing stdin")
		out, err := io.ReadAll(s.Stdout())
		t.kindOK(err, "reading stdout")
		exit, err := s.Wait(t.ctx)
		if want := fmt.Sprintf("number %d\ninput %d", i, i); string(out) != want || exit.Code != i || err != nil {
			t.Errorf("exec %d printed %q and ended with %+v, %v", i, out, exit, err)
		}
	})
}

func execSameAsMain(t *T) {
	spec := t.spec("trap 15 ; report ; await 15")
	spec.Env = map[string]string{"MINE": "1"}
	spec.Workdir = "/tmp"
	if t.features.Limits.Files {
		spec.Limits.Files = 123
	}
	b := t.start(spec)
	var report string
	t.eventually("the program reports", func() bool {
		report = b.stdout()
		return strings.HasSuffix(report, "}\n")
	})
	main := t.facts(report)
	out, _, _ := b.exec("report").finish()
	exec := t.facts(out)
	slices.Sort(main.Env)
	slices.Sort(exec.Env)
	// Mounts and interfaces of the host itself come and go while this runs.
	hosts := func(namespace string) bool {
		name, err := os.Readlink("/proc/self/ns/" + namespace)
		return err == nil && main.Namespaces[namespace] == name
	}
	sameMounts := slices.Equal(main.Mounts, exec.Mounts) || hosts("mnt")
	sameInterfaces := slices.Equal(main.Interfaces, exec.Interfaces) || hosts("net")
	// A kernel of the sandbox's own may give its namespaces another name each time.
	sameNamespaces := maps.Equal(main.Namespaces, exec.Namespaces) || slices.Contains(t.features.Isolation, engine.SeparateKernel)
	for what, equal := range map[string]bool{
		"user": main.UID == exec.UID && main.GID == exec.GID, "groups": slices.Equal(main.Groups, exec.Groups),
		"capabilities": maps.Equal(main.Caps, exec.Caps), "no_new_privs": main.NoNewPrivs == exec.NoNewPrivs,
		"seccomp": main.Seccomp == exec.Seccomp, "environment": slices.Equal(main.Env, exec.Env),
		"folder": main.Dir == exec.Dir, "hostname": main.Hostname == exec.Hostname,
		"limits": maps.Equal(main.Limits, exec.Limits), "namespaces": sameNamespaces,
		"mounts": sameMounts, "interfaces": sameInterfaces,
	} {
		if !equal {
			t.Errorf("%s: the program has %+v, the exec %+v", what, main, exec)
		}
	}
	if len(exec.FDs) > 3 {
		t.Errorf("the exec has descriptors %v", exec.FDs)
	}
}

func execOwnSettings(t *T) {
	spec := t.spec("say ready ; hold")
	spec.Env = map[string]string{"KEPT": "1", "CHANGED": "1"}
	b := t.start(spec)
	b.says("ready")
	out, _, _ := b.execSpec(&engine.ExecSpec{
		Args: t.argv("report"), Env: map[string]string{"CHANGED": "2", "ADDED": "a=b\n"}, Workdir: "/tmp",
	}).finish()
	f := t.facts(out)
	for name, want := range map[string]string{"KEPT": "1", "CHANGED": "2", "ADDED": "a=b\n"} {
		if got, _ := variable(f, name); got != want {
			t.Errorf("the exec has %s=%q, want %q", name, got, want)
		}
	}
	if f.Dir != "/tmp" {
		t.Errorf("the exec is in %q, want /tmp", f.Dir)
	}
	for _, bad := range []*engine.ExecSpec{
		{Args: []string{""}},
		{Args: []string{"a\x00"}},
		{Args: t.argv("exit 0"), Env: map[string]string{"A=": ""}},
		{Args: t.argv("exit 0"), Workdir: "relative"},
	} {
		s, err := b.Sandbox.(engine.Execer).Exec(t.ctx, bad)
		if err == nil {
			s.Close()
		}
		t.kind(err, fmt.Sprintf("Exec of %+v", bad), caisson.ErrInvalid)
	}
	s := b.execSpec(&engine.ExecSpec{Args: t.argv("exit 0"), Workdir: "/absent"})
	if exit := s.wait(); exit.Code != 126 && exit.Code != 127 {
		t.Errorf("an exec in a folder that is not there ended with %+v, want 126 or 127", exit)
	}
}

func execDefaultShell(t *T) {
	b := t.holding()
	s := b.execSpec(&engine.ExecSpec{})
	_, err := io.WriteString(s.Stdin(), "echo from the shell\nexit 9\n")
	t.ok(errors.Join(err, s.Stdin().Close()), "writing stdin")
	out, _, exit := s.finish()
	if out != "from the shell\n" || exit.Code != 9 {
		t.Errorf("the shell printed %q and ended with %+v", out, exit)
	}
}

func execSignal(t *T) {
	b := t.holding()
	s := b.exec("trap 10 ; say ready ; await 10 ; exit 6")
	s.reads("ready")
	t.kind(s.Signal(t.ctx, 0), "Signal of no signal", caisson.ErrInvalid)
	t.ok(s.Signal(t.ctx, sigUsr1), "Signal")
	s.expect(caisson.ReasonExited, 6, 0)
	t.kind(s.Signal(t.ctx, sigUsr1), "Signal after the end", caisson.ErrEnded)
}

func execTimeout(t *T) {
	b := t.holding()
	s := b.execSpec(&engine.ExecSpec{Args: t.argv("ignore 15 ; hold"), Timeout: caisson.Duration(100 * time.Millisecond)})
	s.expect(caisson.ReasonTimeout, 0, sigKill)
	s = b.execSpec(&engine.ExecSpec{Args: t.argv("exit 3"), Timeout: caisson.Duration(time.Hour)})
	s.expect(caisson.ReasonExited, 3, 0)
}

func execWait(t *T) {
	b := t.holding()
	s := b.exec("say ready ; hold")
	s.reads("ready")
	ctx, cancel := context.WithTimeout(t.ctx, 20*time.Millisecond)
	defer cancel()
	if exit, err := s.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait = %+v, %v, want context.DeadlineExceeded", exit, err)
	}
	t.ok(s.Signal(t.ctx, sigKill), "Signal")
	var mu sync.Mutex
	var exits []caisson.Exit
	parallel(8, func(int) {
		exit, err := s.Wait(t.ctx)
		t.kindOK(err, "Wait of an exec")
		mu.Lock()
		defer mu.Unlock()
		exits = append(exits, exit)
	})
	for _, exit := range exits {
		if !same(exit, exits[0]) || exit.Signal != sigKill {
			t.Errorf("waiters got %+v and %+v", exits[0], exit)
		}
	}
}

func execNoTerminal(t *T) {
	b := t.holding()
	s := b.exec("tty ; cat")
	s.reads("no tty")
	t.kind(s.Resize(t.ctx, engine.Size{Cols: 10, Rows: 10}), "Resize", caisson.ErrUnsupported)
	t.ok(s.Stdin().Close(), "closing stdin")
	s.expect(caisson.ReasonExited, 0, 0)
}
