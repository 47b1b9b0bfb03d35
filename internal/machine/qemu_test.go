package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
)

// script makes a program of a shell's commands.
func script(t *testing.T, body string) string {
	t.Helper()
	path := put(t, filepath.Join(t.TempDir(), "qemu"), []byte("#!/bin/sh\n"+body))
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// testQEMU is this host's.
func testQEMU(t *testing.T) *QEMU {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		need(t, "qemu", err)
	}
	q, err := FindQEMU(t.Context(), "", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestFindQEMU(t *testing.T) {
	q := testQEMU(t)
	t.Logf("version %s, %d machines, accelerators %q, %d devices", q.Version, len(q.Machines), q.Accels, len(q.devices))
	for _, name := range []string{Q35, PC} {
		if q.Machines[name] == "" || q.Machines[name] == name {
			t.Errorf("Machines[%s] = %q, want a versioned name", name, q.Machines[name])
		}
	}
	if q.Machines[MicroVM] != MicroVM {
		t.Errorf("Machines[microvm] = %q", q.Machines[MicroVM])
	}
	if !slices.Contains(q.Accels, TCG) || !q.devices["virtio-serial-pci"] || q.devices["virtio-nothing"] {
		t.Errorf("accelerators = %q, virtio-serial-pci %v", q.Accels, q.devices["virtio-serial-pci"])
	}
	if !q.has("sandbox", "spawn") || q.has("sandbox", "nothing") || q.has("nothing") {
		t.Errorf("options = %q", q.options["sandbox"])
	}
	if q.AtLeast(q.Version.Major, q.Version.Minor+1) || !q.AtLeast(q.Version.Major, 0) || !q.AtLeast(q.Version.Major-1, 99) {
		t.Errorf("AtLeast is wrong about %s", q.Version)
	}
}

func TestFindQEMUErrors(t *testing.T) {
	greet := `printf '{"QMP": {"version": {"qemu": {"major": %s, "minor": %s, "micro": 0}, "package": ""}, "capabilities": []}}\n' >&0; read x; echo '{"return": {}, "id": 0}' >&0; `
	old := fmt.Sprintf(greet, "4", "2")
	tests := []struct {
		name string
		path string
		kind caisson.Kind
		err  string
	}{
		{"Absent", "/absent/qemu", caisson.ErrNotFound, "/absent/qemu: no such file"},
		{"Refuses", script(t, "echo qemu: unknown option >&2; exit 1"), caisson.ErrUnavailable, "qemu: unknown option"},
		{"Other", script(t, "echo GNU bash >&0; sleep 20"), caisson.ErrUnavailable, "a message that is none"},
		{"TooOld", script(t, old+"sleep 20"), caisson.ErrUnsupported, "4.2.0 is too old: 5.2 is needed"},
		{"Dies", script(t, fmt.Sprintf(greet, "9", "0")), caisson.ErrUnavailable, "it has ended"},
		{"NotExecutable", put(t, filepath.Join(t.TempDir(), "qemu"), nil), caisson.ErrNotFound, "permission denied"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, err := FindQEMU(t.Context(), tt.path, "amd64")
			if q != nil || !errors.Is(err, tt.kind) || !matches(err, tt.err) {
				t.Errorf("FindQEMU() = %+v, %v, want %v: %q", q, err, tt.kind, tt.err)
			}
		})
	}
	t.Run("Hangs", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := FindQEMU(ctx, script(t, "exec sleep 20"), "amd64"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("FindQEMU() = %v, want that the deadline is over", err)
		}
	})
	t.Run("NoneInPath", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if _, err := FindQEMU(t.Context(), "", "amd64"); !errors.Is(err, caisson.ErrNotFound) && err != nil {
			t.Errorf("FindQEMU() = %v, want ErrNotFound", err)
		}
	})
	t.Run("OtherArch", func(t *testing.T) {
		if _, err := FindQEMU(t.Context(), "", "wasm"); !errors.Is(err, caisson.ErrUnsupported) {
			t.Errorf("FindQEMU() = %v, want ErrUnsupported", err)
		}
	})
}

// TestQEMUWritten checks that a QEMU that was written down and read makes the same
// command lines.
func TestQEMUWritten(t *testing.T) {
	q := testQEMU(t)
	data, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	read := new(QEMU)
	if err := json.Unmarshal(data, read); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(q, read, cmp.AllowUnexported(QEMU{})); diff != "" {
		t.Errorf("written and read (-want +got)\n%s", diff)
	}
}
