package enginetest

import (
	"fmt"
	"io"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func terminalCases() []Case {
	needs := []string{"exec", "terminal"}
	return []Case{
		{
			Name: "terminal/size", Rules: []int{62}, Needs: needs,
			Rule: "a terminal has the size asked for, 80 by 24 by default, and everything is in Stdout",
			body: terminalSize,
		},
		{
			Name: "terminal/resize", Rules: []int{62}, Needs: needs,
			Rule: "a new size, from 1x1 to 65535x65535, is seen with SIGWINCH; after the end Resize is ErrEnded",
			body: terminalResize,
		},
		{
			Name: "terminal/keys", Rules: []int{68}, Needs: needs,
			Rule: "^C, ^\\ and ^Z reach the foreground as SIGINT, SIGQUIT and SIGTSTP",
			body: terminalKeys,
		},
		{
			Name: "terminal/end-of-input", Rules: []int{64, 68}, Needs: needs, wants: []facility{endOfInput},
			Rule: "closing stdin is a ^D and nothing else: a program that runs on is not killed",
			body: terminalEnd,
		},
		{
			Name: "terminal/hang-up", Rules: []int{58, 68}, Needs: needs,
			Rule: "Close hangs up, the program is told by SIGHUP, and nothing of it is left",
			body: terminalHangUp,
		},
		{
			Name: "terminal/shell", Rules: []int{61, 62}, Needs: append([]string{"script"}, needs...),
			Rule: "an exec without arguments on a terminal is the default shell",
			body: terminalShell,
		},
		{
			Name: "terminal/not-read", Rules: []int{65}, Needs: needs,
			Rule: "a terminal that nobody reads holds up its program only, and Close does not block",
			body: terminalNotRead,
		},
		{
			Name: "terminal/inject", Rules: []int{127}, Attacks: []int{15}, Needs: append(needs, isolation(engine.FilteredSyscalls)),
			Rule: "a program can't put characters into its terminal's input",
			body: attacked("terminal/inject"),
		},
	}
}

// terminal runs the inside program with args on a terminal.
func (b *box) terminal(size engine.Size, args ...string) *session {
	return b.execSpec(&engine.ExecSpec{Args: b.t.argv(args...), Terminal: true, Size: size})
}

func terminalSize(t *T) {
	b := t.holding()
	out, err, _ := b.terminal(engine.Size{}, "tty", ";", "warn", "on stderr").finish()
	if out != "tty 80 24\r\non stderr\r\n" || err != "" {
		t.Errorf("stdout = %q, stderr = %q, want both lines on stdout", out, err)
	}
	s := b.terminal(engine.Size{Cols: 132, Rows: 43}, "tty ; exit 4")
	s.reads("tty 132 43")
	s.expect(caisson.ReasonExited, 4, 0)
	// Programs without a terminal have none.
	out, _, _ = b.exec("tty").finish()
	if out != "no tty\n" {
		t.Errorf("an exec without a terminal printed %q", out)
	}
}

func terminalResize(t *T) {
	b := t.holding()
	args := "trap 28 ; say ready ; "
	sizes := []engine.Size{{Cols: 1, Rows: 1}, {Cols: 80, Rows: 24}, {Cols: 65535, Rows: 65535}, {Cols: 200, Rows: 50}}
	for _, size := range sizes {
		args += fmt.Sprintf("await 28 ; resize %d %d ; say %d ; ", size.Cols, size.Rows, size.Cols)
	}
	s := b.terminal(engine.Size{Cols: 10, Rows: 10}, args+"exit 3")
	s.reads("ready")
	for _, size := range sizes {
		t.ok(s.Resize(t.ctx, size), "Resize")
		s.reads(fmt.Sprint(size.Cols))
	}
	s.expect(caisson.ReasonExited, 3, 0)
	t.kind(s.Resize(t.ctx, sizes[0]), "Resize after the end", caisson.ErrEnded)
	// A storm of sizes: the last one stands.
	s = b.terminal(engine.Size{}, "say ready ; resize 300 300")
	s.reads("ready")
	parallel(4, func(int) {
		for n := range 50 {
			t.kindOK(s.Resize(t.ctx, engine.Size{Cols: uint16(n + 1), Rows: 7}), "Resize")
		}
	})
	t.ok(s.Resize(t.ctx, engine.Size{Cols: 300, Rows: 300}), "Resize")
	s.expect(caisson.ReasonExited, 0, 0)
}

func terminalKeys(t *T) {
	b := t.holding()
	for key, n := range map[string]int{"\x03": sigInt, "\x1c": sigQuit, "\x1a": sigTstp} {
		s := b.terminal(engine.Size{}, "trap", fmt.Sprint(n), ";", "say", "ready", ";", "await", fmt.Sprint(n), ";", "exit", "7")
		s.reads("ready")
		_, err := io.WriteString(s.Stdin(), key)
		t.ok(err, "typing")
		s.expect(caisson.ReasonExited, 7, 0)
	}
	s := b.terminal(engine.Size{}, "say ready ; hold")
	s.reads("ready")
	_, err := io.WriteString(s.Stdin(), "\x03")
	t.ok(err, "typing")
	s.expect(caisson.ReasonSignaled, 0, sigInt)
}

func terminalEnd(t *T) {
	b := t.holding()
	s := b.terminal(engine.Size{}, "cat ; say ended ; trap 10 ; say and runs on ; await 10 ; exit 2")
	_, err := io.WriteString(s.Stdin(), "typed\n")
	t.ok(err, "typing")
	s.reads("typed") // as it was echoed
	s.reads("typed") // as the program prints it
	t.ok(s.Stdin().Close(), "closing stdin")
	s.reads("ended")
	s.reads("and runs on")
	t.ok(s.Signal(t.ctx, sigUsr1), "Signal")
	s.expect(caisson.ReasonExited, 2, 0)
}

func terminalHangUp(t *T) {
	b := t.holding()
	s := b.terminal(engine.Size{}, "ignore 1 15 ; say ready ; hold")
	s.reads("ready")
	t.ok(s.Close(), "Close")
	if exit := s.wait(); exit.Signal == 0 {
		t.Errorf("after Close the program ended with %+v, want a signal", exit)
	}
	t.kind(s.Resize(t.ctx, engine.Size{Cols: 5, Rows: 5}), "Resize after Close", caisson.ErrEnded)
	// It has a moment to do something about it, which may be too short on a busy
	// machine.
	t.eventually("a program is told of the hang-up", func() bool {
		s := b.terminal(engine.Size{}, t.inside(b.spec, words([]string{"trap 1 ; say ready ; await 1 ; write /work/told x ; hold"})...)...)
		s.reads("ready")
		t.ok(s.Close(), "Close")
		for range 100 {
			if out, _, _ := b.exec("read /work/told").finish(); out == "x" {
				return true
			}
			time.Sleep(5 * time.Millisecond)
		}
		return false
	})
}

func terminalShell(t *T) {
	b := t.holding()
	s := b.execSpec(&engine.ExecSpec{Terminal: true})
	_, err := io.WriteString(s.Stdin(), "exit 9\n")
	t.ok(err, "typing")
	_, _ = io.Copy(io.Discard, s.Stdout())
	s.expect(caisson.ReasonExited, 9, 0)
}

func terminalNotRead(t *T) {
	b := t.holding()
	slow := b.terminal(engine.Size{}, "print stdout 64m 1")
	if _, err := io.ReadFull(slow.Stdout(), make([]byte, 1)); err != nil {
		t.Fatalf("reading one byte: %v", err)
	}
	out, _, _ := b.exec("say other").finish()
	if out != "other\n" {
		t.Errorf("another exec printed %q", out)
	}
	t.ok(slow.Close(), "Close")
	if exit := slow.wait(); exit.Signal == 0 {
		t.Errorf("after Close the program ended with %+v, want a signal", exit)
	}
}
