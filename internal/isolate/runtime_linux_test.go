package isolate_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/internal/isolate"
)

// runtimeVariable names the OCI runtime that makes all sandboxes of a test run.
const runtimeVariable = "CAISSON_TEST_ISOLATE_RUNTIME"

// runtimeOf finds a runtime by its name; none for an empty one.
func runtimeOf(name string) *isolate.Runtime {
	if name == "" {
		return nil
	}
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		panic(err)
	}
	return &isolate.Runtime{Path: path, Kind: name}
}

// TestRuntimes repeats the tests of sandboxes with each OCI runtime making
// them.
func TestRuntimes(t *testing.T) {
	needRoot(t)
	if os.Getenv(runtimeVariable) != "" {
		return
	}
	// gVisor's kernel has other files in /proc, other ids on the host, and neither
	// devices nor control groups for single programs.
	const onGvisor = "^Test(Descriptors|ExecErrors|Exit|Kill|Orphans|ReadOnlyStays|Entries|HostileImage|HostileWork|DeviceNodes)$"
	for name, filter := range map[string]string{
		isolate.Crun: "-test.skip=^Test(Runtimes|Plain.*|Gvisor.*)$", isolate.Runc: "-test.skip=^Test(Runtimes|Plain.*|Gvisor.*)$",
		isolate.Runsc: "-test.run=" + onGvisor,
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(self(t), "-test.v", filter)
			cmd.Env = append(os.Environ(), runtimeVariable+"="+name)
			out, err := cmd.CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("PASS: ")) {
				t.Errorf("%v: %s", err, strings.ReplaceAll(string(out), "\n", "\n\t"))
			}
		})
	}
}
