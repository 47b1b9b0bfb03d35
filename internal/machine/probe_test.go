package machine

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hello builds the program that says so.
func hello(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hello")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", file, "./hello")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return file
}

// TestProbe boots guests: each type once without KVM, and whatever KVM does here.
func TestProbe(t *testing.T) {
	if testing.Short() || runtime.GOARCH != "amd64" {
		t.Skip("it boots four guests of amd64")
	}
	before := openFiles(t)
	k, q := testKernel(t), testQEMU(t)
	o := &ProbeOptions{QEMU: q, Kernel: k, Init: hello(t), Dir: t.TempDir(), Accels: []string{KVM}}
	boots, err := Probe(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	// Where other tests run, an emulated processor may get little of the real one.
	o.Accels, o.Limit = []string{TCG}, 5*time.Minute
	more, err := Probe(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	boots = append(boots, more...)
	if len(boots) != 6 {
		t.Errorf("Probe() = %d boots, want three types with two accelerators", len(boots))
	}
	for _, b := range boots {
		t.Logf("%s, %s: %s %s %s", b.Type, b.Accel, b.Took.Round(time.Millisecond), b.Release, b.Missing)
		if b.Accel == TCG && (b.Release != k.Version || b.Missing != "" || b.Took == 0) {
			t.Errorf("%s with tcg: %+v, want that %s boots", b.Type, b, k.Version)
		}
		if (b.Took == 0) != (b.Missing != "") {
			t.Errorf("%+v: it either boots or says why not", b)
		}
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

// openFiles counts this process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(list)
}

// fake is a QEMU that greets and then does what a shell's commands say; the
// guest's port is descriptor 1.
func fake(t *testing.T, body string) *ProbeOptions {
	t.Helper()
	q := whole()
	q.Path = script(t, `printf '{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}\n' >&0
read x; echo '{"return": {}, "id": 0}' >&0
`+body)
	init := put(t, filepath.Join(t.TempDir(), "init"), []byte("x"))
	return &ProbeOptions{
		QEMU: q, Kernel: &Kernel{Image: "/vmlinuz", Arch: runtime.GOARCH}, Init: init, Dir: t.TempDir(),
		Types: []string{Q35}, Accels: []string{TCG}, Limit: 10 * time.Second,
	}
}

func TestProbeFailures(t *testing.T) {
	tests := []struct{ name, body, missing string }{
		{"Works", "echo caisson-hello 6.1.0; exec sleep 20", ""},
		{"Ends", "echo qemu: could not load kernel >&2; exit 1", "the guest does not boot: qemu: could not load kernel"},
		{"EndsSilently", "exit 0", "without a word"},
		{"SaysElse", "echo root@guest; exec sleep 20", `it says "root@guest\n"`},
		{"Lies", "echo caisson-hello ../../x; exec sleep 20", "it says"},
		{"Endless", "exec yes | tr -d '\\n'", "without a word"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := fake(t, tt.body)
			boots, err := Probe(t.Context(), o)
			if err != nil || len(boots) != 1 {
				t.Fatalf("Probe() = %+v, %v, want one boot", boots, err)
			}
			if b := boots[0]; (b.Missing == "") != (tt.missing == "") || !strings.Contains(b.Missing, tt.missing) || strings.Contains(b.Missing, "\n") {
				t.Errorf("Probe() = %+v, want missing %q", b, tt.missing)
			}
			if left, _ := os.ReadDir(o.Dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	t.Run("Hangs", func(t *testing.T) {
		o := fake(t, "exec sleep 20")
		o.Limit = 50 * time.Millisecond
		boots, err := Probe(t.Context(), o)
		if err != nil || boots[0].Missing != "no guest boots within 50ms" {
			t.Errorf("Probe() = %+v, %v, want that none boots within the limit", boots, err)
		}
	})
	t.Run("Cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		boots, err := Probe(ctx, fake(t, "exec sleep 20"))
		if err != nil || !strings.Contains(boots[0].Missing, "canceled") {
			t.Errorf("Probe() = %+v, %v, want that it was not tried", boots, err)
		}
	})
	t.Run("NoAccel", func(t *testing.T) {
		o := fake(t, "")
		o.QEMU.Accels = []string{"xen"}
		boots, err := Probe(t.Context(), o)
		if err != nil || boots[0].Missing != "QEMU 7.2.0 has no accelerator tcg" {
			t.Errorf("Probe() = %+v, %v, want that there is no tcg", boots, err)
		}
	})
	t.Run("NoInit", func(t *testing.T) {
		o := fake(t, "")
		o.Init += "absent"
		if _, err := Probe(t.Context(), o); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Probe() = %v, want that there is no init", err)
		}
	})
}

// TestTSC holds that the measured rate is one that a processor has, and the same
// twice to a thousandth or so.
func TestTSC(t *testing.T) {
	a, b := TSCKHz(), TSCKHz()
	if runtime.GOARCH != "amd64" {
		if a != 0 {
			t.Errorf("TSCKHz() = %d, want 0", a)
		}
		return
	}
	if a < 500_000 || a > 10_000_000 || max(a-b, b-a) > a/200 {
		t.Errorf("TSCKHz() = %d, then %d", a, b)
	}
}
