package machine

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/machine/qmp"
	"github.com/caissonrun/caisson/internal/qcow2"
)

// live starts this host's QEMU with a machine that boots nothing.
func live(t *testing.T, s *Spec) *process {
	t.Helper()
	q := testQEMU(t)
	args, err := q.Args(s)
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(within(t), q.Path, args)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

// within is a context that ends long after what it is for.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// bare is a machine that halts where a boot loader would begin.
func bare() *Spec {
	return &Spec{Type: PC, Accel: TCG, Memory: 32 << 20, QMP: Descriptor(qmpFD), Agent: Descriptor(agentFD), Paused: true}
}

// layer makes an empty image in the format qcow2.
func layer(t *testing.T, size caisson.Bytes) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "layer.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := qcow2.Create(f, &qcow2.Options{Size: size}); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// TestAccepted holds that this host's QEMU understands all that a spec can have:
// golden files prove nothing of that.
func TestAccepted(t *testing.T) {
	kernel := testKernel(t).Image
	for name, s := range specs() {
		// TAP devices need a namespace: the engine's tests have them.
		if s.Accel == KVM || len(s.Taps) > 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s.Paused, s.QMP, s.Agent = true, Descriptor(qmpFD), Descriptor(agentFD)
			if s.Kernel != "" {
				s.Kernel, s.Initrd = kernel, put(t, filepath.Join(dir, "initrd"), []byte("x"))
			}
			if s.Console.form != nowhere {
				s.Console = Output(filepath.Join(dir, "console,1"))
			}
			for i := range s.Shares {
				s.Shares[i].Path = dir
			}
			for i := range s.Disks {
				d := &s.Disks[i]
				d.Path = layer(t, 1<<30)
				if d.Format == "raw" {
					d.Path = put(t, filepath.Join(dir, "raw,1"), make([]byte, 1<<20))
				}
				if d.Base != nil {
					d.Base.Path = put(t, filepath.Join(dir, `base,"1`), make([]byte, 1<<20))
				}
			}
			if s.Network != nil {
				own := *s.Network
				own.Forwards = slices.Clone(own.Forwards)
				for i := range own.Forwards {
					own.Forwards[i].Port = freePort(t, own.Forwards[i].Protocol)
				}
				s.Network = &own
			}
			p := live(t, s)
			status, err := p.qmp.Status(within(t))
			if err != nil || status.Running {
				t.Errorf("Status() = %+v, %v, want that it waits", status, err)
			}
			for _, d := range s.Disks {
				if err := sameSize(t, p.qmp, d.Name, d.Format); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// freePort returns a port of this host's that nobody has.
func freePort(t *testing.T, protocol string) int {
	t.Helper()
	if protocol == "udp" {
		c, err := net.ListenPacket(protocol, ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).Port
	}
	l, err := net.Listen(protocol, ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// sameSize compares what QEMU sees of a disk.
func sameSize(t *testing.T, c *qmp.Client, name, format string) error {
	var nodes []struct {
		Name  string `json:"node-name"`
		Image struct {
			Size   int64  `json:"virtual-size"`
			Format string `json:"format"`
		} `json:"image"`
	}
	if err := c.Do(within(t), "query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return err
	}
	want := map[string]int64{"raw": 1 << 20, "qcow2": 1 << 30}[format]
	for _, n := range nodes {
		if n.Name == name && n.Image.Size == want && n.Image.Format == format {
			return nil
		}
	}
	return errors.New(name + ": QEMU does not see the disk as it is")
}

func TestCommands(t *testing.T) {
	s := bare()
	s.Disks = []Disk{{Name: "disk0", Path: layer(t, 1<<30), Format: "qcow2"}}
	s.Screen = true
	p := live(t, s)
	c := p.qmp
	if err := c.Continue(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Pause(within(t)); err != nil {
		t.Fatal(err)
	}
	if status, err := c.Status(within(t)); err != nil || status.Status != "paused" {
		t.Errorf("Status() = %+v, %v, want paused", status, err)
	}
	if err := c.Powerdown(within(t)); err != nil {
		t.Errorf("Powerdown() = %v", err)
	}

	shot := filepath.Join(t.TempDir(), "shot.png")
	if err := c.Screendump(within(t), shot, true); err != nil {
		t.Errorf("Screendump() = %v", err)
	}
	if data, err := os.ReadFile(shot); err != nil || !bytes.HasPrefix(data, []byte("\x89PNG")) {
		t.Errorf("the screen's picture = %d bytes, %v, want a PNG", len(data), err)
	}

	over := layer(t, 1<<30)
	if err := c.Snapshot(within(t), "disk0", qmp.Node{Driver: "qcow2", Name: "over", File: over}); err != nil {
		t.Errorf("Snapshot() = %v", err)
	}
	if err := c.Snapshot(within(t), "absent", qmp.Node{Driver: "qcow2", Name: "more", File: layer(t, 1<<30)}); err == nil {
		t.Error("Snapshot() of a disk that is not there = nil")
	}
	viewer(t, c)
	if err := c.Quit(within(t)); err != nil {
		t.Errorf("Quit() = %v", err)
	}
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		t.Error("QEMU lives on after Quit")
	}
	if err := c.Pause(within(t)); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Pause() after Quit = %v, want ErrUnavailable", err)
	}
}

// viewer has QEMU serve the screen at a connection that it is handed.
func viewer(t *testing.T, c *qmp.Client) {
	t.Helper()
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	if err := c.SendFile(within(t), "viewer1", theirs); err != nil {
		t.Fatal(err)
	}
	if err := c.AddVNC(within(t), "viewer1"); err != nil {
		t.Fatal(err)
	}
	greets(t, ours)
	if n, err := c.Viewers(within(t)); err != nil || n != 1 {
		t.Errorf("Viewers() = %d, %v, want 1", n, err)
	}
	if err := c.SendFile(within(t), "viewer2", theirs); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseFile(within(t), "viewer2"); err != nil {
		t.Errorf("CloseFile() = %v", err)
	}
	if err := c.AddVNC(within(t), "viewer2"); err == nil {
		t.Error("a file that was closed becomes a viewer")
	}
}

// greets holds that there is a VNC server at the other end.
func greets(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	hello := make([]byte, 12)
	if _, err := conn.Read(hello); err != nil || !bytes.HasPrefix(hello, []byte("RFB 003.")) {
		t.Errorf("the VNC server says %q, %v", hello, err)
	}
}

// TestState holds that a machine's state goes to a file that QEMU has no path of,
// under QEMU's own filter, and into another machine.
func TestState(t *testing.T) {
	state, err := os.Create(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	from := live(t, bare())
	if err := from.qmp.SendFile(within(t), "state", state); err != nil {
		t.Fatal(err)
	}
	if err := from.qmp.Migrate(within(t), "fd:state"); err != nil {
		t.Fatal(err)
	}
	if err := from.qmp.AwaitMigration(within(t)); err != nil {
		t.Fatal(err)
	}
	from.stop()
	if info, err := state.Stat(); err != nil || info.Size() < 10_000 {
		t.Fatalf("the state has %d bytes, %v", info.Size(), err)
	}

	if _, err := state.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	s := bare()
	s.Incoming = true
	to := live(t, s)
	if err := to.qmp.SendFile(within(t), "state", state); err != nil {
		t.Fatal(err)
	}
	if err := to.qmp.Incoming(within(t), "fd:state"); err != nil {
		t.Fatal(err)
	}
	if err := to.qmp.AwaitMigration(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := to.qmp.Continue(within(t)); err != nil {
		t.Fatal(err)
	}
	if status, err := to.qmp.Status(within(t)); err != nil || !status.Running {
		t.Errorf("Status() = %+v, %v, want running", status, err)
	}
}

// TestStateDamaged holds that a state that is none is refused by name.
func TestStateDamaged(t *testing.T) {
	f, err := os.Open(put(t, filepath.Join(t.TempDir(), "state"), bytes.Repeat([]byte("x"), 10_000)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bare()
	s.Incoming = true
	p := live(t, s)
	if err := p.qmp.SendFile(within(t), "state", f); err != nil {
		t.Fatal(err)
	}
	err = p.qmp.Incoming(within(t), "fd:state")
	if err == nil {
		err = p.qmp.AwaitMigration(within(t))
	}
	if !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("a damaged state: %v, want ErrUnavailable", err)
	}
	t.Logf("QEMU says %q", p.stderr.last())
}
