//go:build linux

package qemu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/guest/agent"
	"github.com/caissonrun/caisson/internal/guest/wire"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/slowtest"
)

// A fake QEMU speaks its protocol, and has an agent without a machine: what QEMU and
// the agent do wrong takes no guest.

// fakeWord has this program be one, or the agent of one.
const fakeWord = "fake-qemu"

// What a fake QEMU does.
const (
	fakeAgent   = "agent"   // it is the agent
	fakeMachine = "machine" // all that it should, until it is signalled
	fakeFails   = "fails"   // it ends at once
	fakeDeaf    = "deaf"    // it says nothing
	fakeSilent  = "silent"  // its guest does not
	fakePanics  = "panics"  // its guest does
	fakeOff     = "off"     // its guest switches itself off
	fakeLater   = "later"   // its agent is of a later version
)

// What it does when it is signalled.
const (
	lies = syscall.SIGUSR1 // the agent breaks the protocol
	dies = syscall.SIGUSR2 // the agent is gone, and nobody says so
)

// fakeMain is a fake QEMU from its start to its end.
func fakeMain(args []string) int {
	switch args[0] {
	case fakeAgent:
		return agent.Main([]string{"3"})
	case fakeFails:
		fmt.Fprintln(os.Stderr, "fake: -accel kvm: \x1b[31mno such thing")
		return 3
	case fakeDeaf:
		time.Sleep(time.Hour)
	}
	fmt.Fprintln(os.Stderr, "the last word")
	control, port := os.NewFile(0, "control"), os.NewFile(1, "port")
	begun := make(chan struct{})
	go fakeControl(control, begun)
	<-begun
	switch args[0] {
	case fakeMachine:
		fakeGuest(port)
	case fakePanics:
		fmt.Fprintln(os.Stderr, "[    0.9] Kernel panic - not syncing: No working init found.\n[    0.9] Rebooting in 0 seconds")
		fmt.Fprintln(control, `{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}`)
	case fakeOff:
		fmt.Fprintln(control, `{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}`)
	case fakeLater:
		laterAgent(port)
	case fakeSilent:
		time.Sleep(time.Hour)
	}
	return 0
}

// laterAgent says of which versions it is.
func laterAgent(port *os.File) {
	f, err := wire.NewReader(port).Greeting(wire.KindHello)
	if err != nil {
		return
	}
	hello, err := wire.ParseHello(f.Body)
	if err != nil {
		return
	}
	welcome := &wire.Welcome{Nonce: hello.Nonce, Lowest: wire.Version + 1, Highest: wire.Version + 2}
	_, _ = port.Write(welcome.Frame().Append(nil))
	time.Sleep(time.Hour)
}

// fakeControl does whatever it is told, which is nothing.
func fakeControl(control *os.File, begun chan<- struct{}) {
	fmt.Fprintln(control, `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}`)
	in := bufio.NewScanner(control)
	for first := true; in.Scan(); first = false {
		var command struct {
			ID json.RawMessage `json:"id,omitempty"`
		}
		_ = json.Unmarshal(in.Bytes(), &command)
		if command.ID == nil {
			command.ID = json.RawMessage("null")
		}
		fmt.Fprintf(control, `{"return": {}, "id": %s}`+"\n", command.ID)
		if first {
			close(begun)
		}
	}
}

// fakeGuest is an agent until a signal says what becomes of it.
func fakeGuest(port *os.File) {
	cmd := exec.Command("/proc/self/exe", fakeWord, fakeAgent)
	cmd.ExtraFiles, cmd.Stderr = []*os.File{port}, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, lies, dies)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	if <-signals == lies {
		fmt.Fprintln(port, "something that is no frame of the agent's protocol")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	fmt.Fprintln(os.Stderr, "the agent is gone")
	time.Sleep(time.Hour)
}

// bury has the agent of a fake go.
func bury(t *testing.T, b *box) {
	t.Helper()
	send(t, b, dies)
	eventually(t, "the agent is gone", func() bool { return strings.Contains(b.console.words(), "the agent is gone") })
}

// fakeSpec is a box with a fake QEMU, whose guest has the programs of this host.
func fakeSpec(t *testing.T, mode string) *boxSpec {
	t.Helper()
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := emptySpec()
	s.QEMU = isolate.Program{Args: []string{"/fake", fakeWord, mode}}
	s.Guest.Setup.User = s.Box.User
	s.Box.Mounts = []isolate.Mount{{Type: isolate.Bind, Source: self, Target: "/fake", ReadOnly: true}}
	for _, dir := range []string{"/usr", "/bin", "/lib", "/lib64"} {
		target, err := os.Readlink(dir)
		if err == nil {
			s.Box.Entries = append(s.Box.Entries, isolate.Entry{Path: dir, Link: target})
		} else if _, err := os.Stat(dir); err == nil {
			s.Box.Mounts = append(s.Box.Mounts, isolate.Mount{Type: isolate.Bind, Source: dir, Target: dir, ReadOnly: true})
		}
	}
	return s
}

// openFake opens one, with less patience than others have.
func openFake(t *testing.T, mode string) *box {
	t.Helper()
	b := open(t, fakeSpec(t, mode))
	b.callTime, b.killTime = 2*time.Second, 2*time.Second
	return b
}

func send(t *testing.T, b *box, number syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(b.proc.PID, number); err != nil {
		t.Fatal(err)
	}
}

// TestErrBoot holds what is said of a machine that does not come up, and that nothing
// of it is left.
func TestErrBoot(t *testing.T) {
	for _, test := range []struct {
		mode     string
		patience time.Duration
		root     string
		kind     caisson.Kind
		parts    []string
	}{
		{fakeFails, testLimit, "", caisson.ErrUnavailable, []string{"QEMU has ended with status 3: -accel kvm: [31mno such thing"}},
		{fakePanics, testLimit, "", caisson.ErrUnavailable, []string{"the guest's kernel has panicked: No working init found."}},
		{fakeOff, testLimit, "", caisson.ErrUnavailable, []string{"the guest has switched itself off", `"the last word"`}},
		{fakeSilent, time.Second, "", caisson.ErrUnavailable, []string{"no agent has answered within", "must start caisson-guest"}},
		{fakeSilent, time.Second, "/root", caisson.ErrUnavailable, []string{"no agent has answered within", "needs more patience"}},
		{fakeLater, testLimit, "", caisson.ErrUnsupported, []string{"it speaks versions 2 to 3 of the protocol, and this program 1", "vm build"}},
		{fakeLater, testLimit, "/root", caisson.ErrUnsupported, []string{"it speaks versions 2 to 3 of the protocol, and this program 1"}},
		{fakeDeaf, time.Second, "/root", caisson.ErrUnavailable, []string{"QEMU has not answered within 1s"}},
	} {
		t.Run(test.mode+test.root, func(t *testing.T) {
			err := failing(t, test.mode, test.root, test.patience)
			if !errors.Is(err, test.kind) {
				t.Errorf("OpenBox() = %v, want %v", err, test.kind)
			}
			for _, part := range test.parts {
				if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
					t.Errorf("OpenBox() = %v, want one line with %s", err, part)
				}
			}
		})
	}
}

// failing returns why a machine does not come up. On a busy host a fake may take
// longer to begin than there is patience with its guest.
func failing(t *testing.T, mode, root string, patience time.Duration) error {
	t.Helper()
	for ; ; patience *= 2 {
		s := fakeSpec(t, mode)
		s.Patience, s.Guest.Root = caisson.Duration(patience), root
		_, err := tryOpen(t, s)
		if mode != fakeSilent || err == nil || !strings.Contains(err.Error(), "QEMU has not answered") || patience > testLimit {
			return err
		}
	}
}

func TestErrOpen(t *testing.T) {
	if b, err := OpenBox(json.RawMessage(`{}`), true); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("OpenBox() of one that runs = %v, %v, want ErrUnsupported", b, err)
	}
	if b, err := OpenBox(json.RawMessage(`[]`), false); err == nil {
		t.Errorf("OpenBox() of something else = %v", b)
	}
	s := fakeSpec(t, fakeMachine)
	s.QEMU.Args[0] = "/absent"
	if _, err := tryOpen(t, s); err == nil || !strings.Contains(err.Error(), "/absent") {
		t.Errorf("OpenBox() without a QEMU = %v", err)
	}
	s = fakeSpec(t, fakeMachine)
	s.Guest.Mounts = []guest.Mount{{Type: "nonsense", Source: "x", Target: "/usr"}}
	if _, err := tryOpen(t, s); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("OpenBox() with a mount that can't be = %v", err)
	}
}

// TestAgentLies holds that a guest whose agent was replaced is ended.
func TestAgentLies(t *testing.T) {
	b := openFake(t, fakeMachine)
	main := shell(t, b, "echo begins; sleep 600")
	line(t, main.stdout)
	send(t, b, lies)
	lost(t, b, main, "the machine was ended because")
}

// TestAgentDies holds that no call hangs where the agent does not answer any more, and
// that the machine can be ended all the same.
func TestAgentDies(t *testing.T) {
	slowtest.Skip(t)
	b := openFake(t, fakeMachine)
	main := shell(t, b, "echo begins; sleep 600")
	line(t, main.stdout)
	bury(t, b)
	if _, err := b.Stats(); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Stats() = %v, want ErrUnavailable", err)
	}
	if err := main.Signal(int(syscall.SIGTERM)); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Signal() = %v, want ErrUnavailable", err)
	}
	if _, err := trySpawn(t, b, &isolate.Program{Args: []string{"/bin/sh"}}); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Spawn() = %v, want ErrUnavailable", err)
	}
	if err := b.Kill(); err != nil {
		t.Errorf("Kill() = %v", err)
	}
	lost(t, b, main, "the guest has not ended its programs within 2s, so the machine was ended")
}

// TestStopped holds that whoever asks is told of a QEMU that somebody has halted, that
// it goes on as if nothing had been, and that it can be ended.
func TestStopped(t *testing.T) {
	slowtest.Skip(t)
	b := openFake(t, fakeMachine)
	main := shell(t, b, "read x; echo $x; sleep 600")
	send(t, b, syscall.SIGSTOP)
	stopAgent(t, b, syscall.SIGSTOP)
	if _, err := b.Stats(); !errors.Is(err, caisson.ErrUnavailable) || !strings.Contains(err.Error(), "was stopped by a signal; kill -CONT") {
		t.Errorf("Stats() = %v, want what has happened", err)
	}
	send(t, b, syscall.SIGCONT)
	stopAgent(t, b, syscall.SIGCONT)
	if _, err := main.stdin.WriteString("on\n"); err != nil {
		t.Fatal(err)
	}
	if got := line(t, main.stdout); got != "on" {
		t.Errorf("it prints %q", got)
	}
	send(t, b, syscall.SIGSTOP)
	stopAgent(t, b, syscall.SIGSTOP)
	if err := b.Kill(); err != nil {
		t.Errorf("Kill() = %v", err)
	}
	lost(t, b, main, "the guest has not ended its programs within 2s, so the machine was ended: QEMU, process")
}

// stopAgent signals the fake's agent, too, which would be in the machine.
func stopAgent(t *testing.T, b *box, number syscall.Signal) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", b.proc.PID))
	if err != nil || len(lists) == 0 {
		t.Fatal(lists, err)
	}
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		for child := range strings.FieldsSeq(string(data)) {
			pid, err := strconv.Atoi(child)
			if err == nil {
				err = syscall.Kill(pid, number)
			}
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the agent has got the signal", func() bool { return stopped(pid) == (number == syscall.SIGSTOP) })
		}
	}
}

// TestCloseEnds holds that whoever waits for a guest is let go when the box is closed.
func TestCloseEnds(t *testing.T) {
	b := openFake(t, fakeMachine)
	main := shell(t, b, "echo begins; sleep 600")
	line(t, main.stdout)
	b.callTime = testLimit
	bury(t, b)
	over := make(chan struct{}, 2)
	go func() {
		_, _ = b.Stats()
		over <- struct{}{}
	}()
	go func() {
		if _, err := b.Spawn(&isolate.Program{Args: []string{"/bin/sh"}}, nil, nil, nil); err == nil {
			t.Error("Spawn() in a guest that is gone = nil")
		}
		over <- struct{}{}
	}()
	if err := b.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	for range 2 {
		select {
		case <-over:
		case <-time.After(testLimit):
			t.Fatal("a call waits for a guest that is gone")
		}
	}
	if _, signal := main.ends(t); signal != int(syscall.SIGKILL) {
		t.Errorf("the program ends with signal %d, want 9", signal)
	}
	if err := b.Drain(); err != nil {
		t.Errorf("Drain() of a box that was closed = %v", err)
	}
}

// TestKilledWhole is TestBox's test of the same name, with a fake.
func TestKilledWhole(t *testing.T) {
	b := openFake(t, fakeMachine)
	main := shell(t, b, "echo begins; sleep 600")
	line(t, main.stdout)
	killQEMU(t, b)
	lost(t, b, main, "QEMU was killed by signal 9")
}
