package kept

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/isolate"
)

// What is in a sandbox's runtime folder, which is RUNTIME/INSTALLATION/ID, mode
// 0700, and, as everything in the runtime folder, gone after a reboot.
const (
	socketName  = "keeper"  // the keeper's socket; see Socket
	dirName     = "dir"     // a link to Spec.Dir: Sweep finds the sandbox by it
	programName = "program" // what Exec needs to know; it may hold secrets
)

// None is the Record.Isolation of a sandbox that has no root of its own.
const None = "none"

// A Record is what the handle says of a sandbox.
type Record struct {
	Isolation    string `json:"isolation"` // None, or what the engine calls it
	Installation string `json:"installation"`
	Run          string `json:"run"`              // the runtime folder
	Cgroup       string `json:"cgroup,omitempty"` // its name, if there is one
	// Chowned are folders whose files belong to the sandbox's ids until it is
	// destroyed, and then to Owner again.
	Chowned []string `json:"chowned,omitempty"`
	UID     int      `json:"uid"` // of Owner
	GID     int      `json:"gid"`
	// Changes is the folder of an overlay, in which the kernel leaves what an
	// ordinary user can't simply remove.
	Changes string `json:"changes,omitempty"`
	// Kept says that the sandbox can be entered for a while after its program's
	// end.
	Kept bool `json:"kept,omitempty"`
	// Inside says that the sandbox has a network of its own that root can enter.
	Inside bool `json:"inside,omitempty"`
	// Sockets are those of Spec.Gateway, in order, which the keeper holds.
	Sockets []engine.Socket `json:"sockets,omitempty"`
	// Displays are those of Spec.Displays, or what the engine has set in their
	// place.
	Displays []caisson.Display `json:"displays,omitempty"`
	// Blind says that nobody sees the sandbox's files, nor starts anything in it but
	// its program.
	Blind bool `json:"blind,omitempty"`
	// Shape is what Assign can't change.
	Shape engine.Shape `json:"shape,omitzero"`
	// Data is the engine's own.
	Data json.RawMessage `json:"data,omitempty"`
}

// A program is what Exec starts programs with.
type program struct {
	Main  isolate.Program `json:"main"`
	Shell string          `json:"shell"`
	UID   int             `json:"uid"` // of the program's user, on the host
	GID   int             `json:"gid"`
}

// Socket is where the keeper of a sandbox listens.
func (b *Sandboxes) Socket(sandbox string) string { return filepath.Join(b.Dir(sandbox), socketName) }

// makeRun makes a sandbox's runtime folder.
//
// Errors: ErrExists if the sandbox lives.
func makeRun(run, sandbox, dir string) error {
	for range 100 {
		if err := os.MkdirAll(filepath.Dir(run), 0o700); err != nil {
			return err
		}
		err := os.Mkdir(run, 0o700)
		switch {
		case err == nil:
			return os.Symlink(dir, filepath.Join(run, dirName))
		case errors.Is(err, fs.ErrExist):
			return exists(sandbox)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return fmt.Errorf("%s: %w", filepath.Dir(run), fs.ErrNotExist)
}

// removeRun removes a sandbox's runtime folder, unless it belongs to a sandbox
// with another Spec.Dir. It can be called again.
func removeRun(run, dir string) error {
	if owner, err := os.Readlink(filepath.Join(run, dirName)); err == nil && owner != dir {
		return nil
	}
	if err := os.RemoveAll(run); err != nil {
		return err
	}
	// The folder of the installation goes with the last one.
	_ = os.Remove(filepath.Dir(run))
	return nil
}

func writeProgram(run string, p *program) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(run, programName), data, 0o600)
}

func readProgram(run string) (*program, error) {
	data, err := os.ReadFile(filepath.Join(run, programName))
	if err != nil {
		return nil, err
	}
	p := new(program)
	return p, json.Unmarshal(data, p)
}
