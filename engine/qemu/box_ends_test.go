//go:build linux

package qemu

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/keeper/server"
)

// testEnds holds that a machine's end is told as what it is, whatever ended it.
func testEnds(t *testing.T, p *parts) {
	for _, test := range []struct {
		name   string
		script string                     // of root in the guest
		from   func(t *testing.T, b *box) // does it from outside
		want   string
	}{
		{"PowerOff", "poweroff -f", nil, "the guest has switched itself off"},
		{"Restart", "reboot -f", nil, "the guest has restarted itself"},
		{"Panic", "echo c > /proc/sysrq-trigger", nil, "the guest's kernel has panicked: sysrq triggered crash"},
		{"Killed", ":", killQEMU, "QEMU was killed by signal 9"},
		{"Flood", "(while :; do yes Kernel panic - not syncing: flood; done > /dev/ttyS0) & sleep 1; poweroff -f", nil, "the guest has switched itself off"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := p.spec(t)
			s.Guest.User, s.Guest.Setup = "", guest.Setup{User: &isolate.User{}, Privileged: true}
			b := open(t, s)
			main := shell(t, b, "echo begins; read x; "+test.script+"; sleep 600")
			if got := line(t, main.stdout); got != "begins" {
				t.Errorf("it prints %q", got)
			}
			if _, err := main.stdin.WriteString("\n"); err != nil {
				t.Fatal(err)
			}
			if test.from != nil {
				test.from(t, b)
			}
			lost(t, b, main, test.want)
		})
	}
}

// testErrBoot holds what is said of a real guest without an agent.
func testErrBoot(t *testing.T, p *parts) {
	file := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(file, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	m := p.machine()
	m.Initrd = filepath.Join(t.TempDir(), "initrd")
	f, err := os.Create(m.Initrd)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := (&machine.Initramfs{Init: file, Raw: true}).WriteTo(f); err != nil {
		t.Fatal(err)
	}
	_, err = tryOpen(t, p.specOf(t, m))
	const want = "the guest's kernel has panicked: No working init found"
	if !errors.Is(err, caisson.ErrUnavailable) || !strings.Contains(err.Error(), want) {
		t.Errorf("OpenBox() = %v, want ErrUnavailable, %s", err, want)
	}
}

func killQEMU(t *testing.T, b *box) {
	if err := syscall.Kill(b.proc.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// lost holds that a program has ended with its machine, and that this is told.
func lost(t *testing.T, b *box, main *running, want string) {
	t.Helper()
	if code, signal := main.ends(t); code != 0 || signal != int(syscall.SIGKILL) {
		t.Errorf("the program ends with %d, %d, want signal 9", code, signal)
	}
	if rest := prints(t, main.stdout); rest != "" {
		t.Errorf("then it prints %q", rest)
	}
	if err := b.Kill(); err != nil {
		t.Errorf("Kill() = %v", err)
	}
	if err := b.Halt(); err != nil {
		t.Errorf("Halt() = %v", err)
	}
	err := b.Drain()
	if !errors.Is(err, server.ErrLost) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Drain() = %v, want %s", err, want)
	}
	if _, err := b.Spawn(&isolate.Program{Args: []string{"sh"}}, nil, nil, nil); !errors.Is(err, caisson.ErrEnded) || !strings.Contains(err.Error(), want) {
		t.Errorf("Spawn() = %v, want ErrEnded with the same words", err)
	}
	if _, err := b.Stats(); err != nil {
		t.Errorf("Stats() = %v", err)
	}
	if n := len(b.console.tail); n > maxConsole {
		t.Errorf("%d bytes are kept of the console, more than %d", n, maxConsole)
	}
}
