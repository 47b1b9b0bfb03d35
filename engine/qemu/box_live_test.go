//go:build linux

package qemu

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

// TestBox holds what a machine is to its keeper. All of its guests are copies of one
// that has booted.
func TestBox(t *testing.T) {
	p := newParts(t)
	t.Run("Lives", func(t *testing.T) {
		b := open(t, p.spec(t))
		for _, test := range []struct {
			name string
			run  func(*testing.T, *box)
		}{
			{"Identity", testIdentity},
			{"Secrets", testSecrets},
			{"Streams", testStreams},
			{"OutputBeforeEnd", testOutputBeforeEnd},
			{"LeftBehind", testLeftBehind},
			{"SlowReader", testSlowReader},
			{"NoReader", testNoReader},
			{"ErrExec", testErrExec},
			{"Signals", testSignals},
			{"Terminal", testTerminal},
			{"HangUp", testHangUp},
			{"Freeze", testFreeze},
			{"FreezeKill", testFreezeKill},
			{"Stats", testStats},
			{"Memory", testMemory},
			{"Do", testDo},
			{"Halt", testHalt},
			{"Kill", testKill},
		} {
			t.Run(test.name, func(t *testing.T) { test.run(t, b) })
		}
	})
	t.Run("Ends", func(t *testing.T) { testEnds(t, p) })
	t.Run("UserNet", func(t *testing.T) { testUserNet(t, p) })
	t.Run("ErrBoot", func(t *testing.T) { testErrBoot(t, p) })
	t.Run("Border", func(t *testing.T) { testBorder(t, p) })
	t.Run("OtherDisks", func(t *testing.T) { testOtherDisks(t, p) })
	t.Run("Copies", func(t *testing.T) { testCopies(t, p) })
}

// testIdentity holds who programs are, and where.
func testIdentity(t *testing.T, b *box) {
	got := output(t, b, "id -u; id -g; echo $HOME $USER; hostname; cat /home/task/file")
	if want := "1000\n1000\n/home/task task\nbox\nof the image\n"; got != want {
		t.Errorf("it prints %q, want %q", got, want)
	}
	if root, err := b.Root(); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Root() = %v, %v, want ErrUnsupported", root, err)
	}
}

// testSecrets holds that files come with their contents and their owner, and that one
// that is there once is gone after it was read.
func testSecrets(t *testing.T, b *box) {
	const script = "cat /run/secrets/word; echo; cat /run/secrets/once; echo; cat /run/secrets/once 2>/dev/null || echo gone"
	if got := output(t, b, script); got != "open sesame\nonce only\ngone\n" {
		t.Errorf("it prints %q", got)
	}
}

// testStreams holds that bytes come as they were written, each stream for itself, and
// end where the program ends them.
func testStreams(t *testing.T, b *box) {
	r := shell(t, b, "cat; echo over >&2; exit 7")
	data := bytes.Repeat([]byte("\x00\xff\n0123456789"), 30_000)
	go func() {
		_, _ = r.stdin.Write(data)
		r.stdin.Close()
	}()
	if got := prints(t, r.stdout); got != string(data) {
		t.Errorf("cat gives %d bytes of %d", len(got), len(data))
	}
	if got := prints(t, r.stderr); got != "over\n" {
		t.Errorf("stderr = %q", got)
	}
	if code, signal := r.ends(t); code != 7 || signal != 0 {
		t.Errorf("it ends with %d, %d, want 7", code, signal)
	}
	// A program without an input has its end.
	proc, err := b.Spawn(&isolate.Program{Args: []string{"/bin/cat"}}, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if code, signal := (&running{Proc: proc}).ends(t); code != 0 || signal != 0 {
		t.Errorf("cat without streams ends with %d, %d", code, signal)
	}
}

// testOutputBeforeEnd holds that what a program printed is in the pipe once its end
// is told: an exec's client waits for no more.
func testOutputBeforeEnd(t *testing.T, b *box) {
	const size = 60_000
	r := shell(t, b, "(sleep 600 &); yes | head -c 60000; exit 3")
	if code, _ := r.ends(t); code != 3 {
		t.Errorf("it ends with %d, want 3", code)
	}
	if n := unread(t, r.stdout); n != size {
		t.Errorf("%d bytes are in the pipe, want %d", n, size)
	}
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := prints(t, r.stdout); len(got) != size {
		t.Errorf("%d bytes come, want %d", len(got), size)
	}
}

// unread is how much is in a pipe.
func unread(t *testing.T, f *os.File) (n int) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// testLeftBehind holds that a program has ended although another one holds its
// output, which ends with that one.
func testLeftBehind(t *testing.T, b *box) {
	r := shell(t, b, "sleep 600 & echo now")
	if code, signal := r.ends(t); code != 0 || signal != 0 {
		t.Errorf("it ends with %d, %d", code, signal)
	}
	if got := line(t, r.stdout); got != "now" {
		t.Errorf("it prints %q", got)
	}
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	if rest := prints(t, r.stdout); rest != "" {
		t.Errorf("then %q comes", rest)
	}
}

// testSlowReader holds that who does not read holds up his program only.
func testSlowReader(t *testing.T, b *box) {
	r := shell(t, b, "yes")
	if got := line(t, r.stdout); got != "y" {
		t.Errorf("yes prints %q", got)
	}
	for range 3 {
		if got := output(t, b, "echo on"); got != "on\n" {
			t.Errorf("another program prints %q", got)
		}
	}
	// Its pipes are full; it is killed all the same.
	if err := r.Signal(int(syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	if code, signal := r.ends(t); code != 0 || signal != int(syscall.SIGKILL) {
		t.Errorf("it ends with %d, %d, want signal 9", code, signal)
	}
}

// testNoReader holds that a program learns that nobody reads any more.
func testNoReader(t *testing.T, b *box) {
	r := shell(t, b, "trap '' PIPE; while echo x; do :; done; exit 5")
	line(t, r.stdout)
	r.stdout.Close()
	if code, signal := r.ends(t); code != 5 || signal != 0 {
		t.Errorf("it ends with %d, %d, want 5", code, signal)
	}
}

func testErrExec(t *testing.T, b *box) {
	for _, test := range []struct {
		program isolate.Program
		code    int
		part    string
	}{
		{isolate.Program{Args: []string{"absent"}}, 127, `"absent": command not found`},
		{isolate.Program{Args: []string{"/home"}}, 126, `"/home"`},
		{isolate.Program{Args: []string{"/bin/garbage"}}, 126, "neither a program"},
		{isolate.Program{Args: []string{"sh"}, Dir: "/absent"}, 126, `working directory "/absent"`},
		{isolate.Program{Args: []string{"absent"}, Terminal: true}, 127, "not found"},
	} {
		test.program.Env = []string{"PATH=/bin"}
		var execErr *isolate.ExecError
		_, err := trySpawn(t, b, &test.program)
		if !errors.As(err, &execErr) || execErr.Code != test.code || !strings.Contains(err.Error(), test.part) {
			t.Errorf("Spawn(%v) = %v, want %d with %s", test.program.Args, err, test.code, test.part)
		}
	}
}

func testSignals(t *testing.T, b *box) {
	r := shell(t, b, "trap 'echo caught; exit 4' TERM; echo ready; while :; do sleep 0.1; done")
	line(t, r.stdout)
	if err := r.Signal(int(syscall.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	if code, signal := r.ends(t); code != 4 || signal != 0 {
		t.Errorf("it ends with %d, %d, want 4", code, signal)
	}
	if got := prints(t, r.stdout); got != "caught\n" {
		t.Errorf("it prints %q", got)
	}
	if err := r.Signal(int(syscall.SIGTERM)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Signal() after the end = %v, want os.ErrProcessDone", err)
	}
	r = shell(t, b, "kill -USR1 $$")
	if code, signal := r.ends(t); code != 0 || signal != int(syscall.SIGUSR1) {
		t.Errorf("it ends with %d, %d, want signal 10", code, signal)
	}
}

// A sitting is a program on a terminal, and what it has printed that nobody has looked
// at.
type sitting struct {
	running
	got []byte
}

// terminal starts a program on a terminal.
func terminal(t *testing.T, b *box, script string) *sitting {
	t.Helper()
	proc, err := b.Spawn(&isolate.Program{
		Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}, Terminal: true, Cols: 100, Rows: 30,
	}, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proc.Terminal.Close() })
	return &sitting{running: running{Proc: proc}}
}

// until reads until a text has come.
func (s *sitting) until(t *testing.T, text string) {
	t.Helper()
	if err := s.Terminal.SetReadDeadline(time.Now().Add(testLimit)); err != nil {
		t.Fatal(err)
	}
	for buf := make([]byte, 1024); ; {
		if _, after, ok := bytes.Cut(s.got, []byte(text)); ok {
			s.got = after
			return
		}
		n, err := s.Terminal.Read(buf)
		if s.got = append(s.got, buf[:n]...); n == 0 && err != nil {
			t.Fatalf("%v before %q; there is %q", err, text, s.got)
		}
	}
}

// types writes to the terminal.
func (s *sitting) types(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(s.Terminal, text); err != nil {
		t.Fatal(err)
	}
}

func testTerminal(t *testing.T, b *box) {
	s := terminal(t, b, "tty; stty size; read x; echo got $x; trap 'stty size' WINCH; trap 'echo int; exit 6' INT; echo ready; while :; do sleep 0.1; done")
	s.until(t, "30 100\r\n")
	s.types(t, "word\r")
	// The guest's terminal echoes, and the host's does not.
	s.until(t, "word\r\ngot word\r\n")
	s.until(t, "ready\r\n")
	resize(t, s.Terminal, 90, 20)
	s.until(t, "20 90\r\n")
	s.types(t, "\x03")
	s.until(t, "int\r\n")
	if code, signal := s.ends(t); code != 6 || signal != 0 {
		t.Errorf("it ends with %d, %d, want 6", code, signal)
	}
	if n, err := s.Terminal.Read(make([]byte, 1)); n != 0 || !errors.Is(err, unix.EIO) {
		t.Errorf("then the terminal gives %d bytes, %v, want EIO", n, err)
	}
}

func resize(t *testing.T, f *os.File, cols, rows uint16) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// testHangUp holds that the program hears when its terminal is closed here.
func testHangUp(t *testing.T, b *box) {
	s := terminal(t, b, "trap 'exit 8' HUP; echo ready; while :; do sleep 0.1; done")
	s.until(t, "ready")
	s.Terminal.Close()
	if code, signal := s.ends(t); code != 8 || signal != 0 {
		t.Errorf("it ends with %d, %d, want 8", code, signal)
	}
}

// testFreeze holds that nothing goes on in a machine that is paused, and that it can
// be asked about, although not entered.
func testFreeze(t *testing.T, b *box) {
	r := shell(t, b, "while echo x; do sleep 0.01; done")
	line(t, r.stdout)
	if err := b.Freeze(true); err != nil {
		t.Fatal(err)
	}
	// What was on its way has come, and then nothing does.
	time.Sleep(500 * time.Millisecond)
	before := unread(t, r.stdout)
	time.Sleep(500 * time.Millisecond)
	if after := unread(t, r.stdout); after != before {
		t.Errorf("a paused program prints: %d bytes, then %d", before, after)
	}
	if _, err := trySpawn(t, b, &isolate.Program{Args: []string{"sh"}}); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Spawn() in a paused machine = %v, want ErrUnavailable", err)
	}
	if s, err := b.Stats(); err != nil || s.CPU < 0 {
		t.Errorf("Stats() of a paused machine = %+v, %v", s, err)
	}
	if err := b.Freeze(false); err != nil {
		t.Fatal(err)
	}
	for range before/2 + 5 {
		line(t, r.stdout)
	}
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	r.ends(t)
}

// testFreezeKill holds that a paused program can be killed.
func testFreezeKill(t *testing.T, b *box) {
	r := shell(t, b, "sleep 600")
	if err := b.Freeze(true); err != nil {
		t.Fatal(err)
	}
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, signal := r.ends(t); signal != int(syscall.SIGKILL) {
		t.Errorf("it ends with signal %d, want 9", signal)
	}
	if got := output(t, b, "echo on"); got != "on\n" {
		t.Errorf("then a program prints %q", got)
	}
}

func testStats(t *testing.T, b *box) {
	before, err := b.Stats()
	if err != nil {
		t.Fatal(err)
	}
	output(t, b, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
	after, err := b.Stats()
	if err != nil || after.CPU <= before.CPU {
		t.Errorf("CPU time %v, then %v, %v, want more", before.CPU, after.CPU, err)
	}
	if after.Memory <= 0 || after.OOMKills != 0 {
		t.Errorf("Stats() = %+v", after)
	}
}

// testMemory holds that the guest's own limit kills, is told, and harms nobody else.
func testMemory(t *testing.T, b *box) {
	r := shell(t, b, "dd if=/dev/zero of=/dev/null bs=100M count=1")
	if code, signal := r.ends(t); code == 0 && signal == 0 {
		t.Error("a program has got twice what its group may use")
	}
	if s, err := b.Stats(); err != nil || s.OOMKills != 1 {
		t.Errorf("Stats() = %+v, %v, want one kill for memory", s, err)
	}
}

func testDo(t *testing.T, b *box) {
	if _, _, err := b.Do("absent", nil); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Do(absent) = %v, want ErrUnsupported", err)
	}
	sockets, err := b.Sockets()
	if err != nil || len(sockets) != 0 {
		t.Errorf("Sockets() without a gateway = %v, %v", sockets, err)
	}
	b.Shut()
}

// testHalt holds that what runs can be halted for good, and others be started beside.
func testHalt(t *testing.T, b *box) {
	r := shell(t, b, "while echo x; do sleep 0.01; done")
	line(t, r.stdout)
	if err := b.Halt(); err != nil {
		t.Fatal(err)
	}
	if got := output(t, b, "echo beside"); got != "beside\n" {
		t.Errorf("a program beside prints %q", got)
	}
	before := unread(t, r.stdout)
	if got := output(t, b, "echo beside"); got != "beside\n" {
		t.Errorf("a program beside prints %q", got)
	}
	if after := unread(t, r.stdout); after != before {
		t.Errorf("a halted program prints: %d bytes, then %d", before, after)
	}
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, signal := r.ends(t); signal != int(syscall.SIGKILL) {
		t.Errorf("it ends with signal %d, want 9", signal)
	}
}

// testKill holds that nothing is left, and that the box can be used after it.
func testKill(t *testing.T, b *box) {
	r := shell(t, b, "trap '' TERM HUP; (trap '' TERM HUP; sleep 600)& sleep 600")
	for range 2 {
		if err := b.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	if code, signal := r.ends(t); code != 0 || signal != int(syscall.SIGKILL) {
		t.Errorf("it ends with %d, %d, want signal 9", code, signal)
	}
	if rest := prints(t, r.stdout); rest != "" {
		t.Errorf("it prints %q", rest)
	}
	if got := output(t, b, "echo on"); got != "on\n" {
		t.Errorf("then a program prints %q", got)
	}
	if err := b.Drain(); err != nil {
		t.Errorf("Drain() = %v", err)
	}
}
