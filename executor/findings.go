//go:build unix

package executor

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/atomicfile"
)

// findingsDir is the folder, in the runtime folder, of what probes have found.
const findingsDir = "findings"

// findingLimit is more than any engine's features take.
const findingLimit = 1 << 20

// A finding is what a probe of another process has found. A probe takes longer
// than many a task, and each `caisson run` is a process of its own.
type finding struct {
	// Under tells what the probe depended on: it is believed only where all of
	// that is the same.
	Under    string          `json:"under"`
	At       time.Time       `json:"at"`
	Features engine.Features `json:"features"`
}

// findings is where they are kept. The zero value keeps nothing.
type findings struct {
	dir   string
	under string
}

// openFindings returns where to keep what probes find: nowhere, if opts do not
// say what they depend on.
func (x *Executor) openFindings() findings {
	if x.opts.Fingerprint == "" {
		return findings{}
	}
	boot, err := x.bootID()
	if err != nil {
		return findings{}
	}
	program, err := identity()
	if err != nil {
		return findings{}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%s", boot, program, surroundings(), x.opts.Fingerprint))
	return findings{dir: filepath.Join(x.runtime, findingsDir), under: hex.EncodeToString(sum[:])}
}

// identity tells this program from any other, also from one that was installed
// over it.
func identity() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	id := fmt.Sprintf("%s %d %d", path, info.Size(), info.ModTime().UnixNano())
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id += fmt.Sprintf(" %d %d", st.Dev, st.Ino)
	}
	return id, nil
}

// surroundings is what this process may do: another one of the same user may
// have other rights, see another file system, or be in another cgroup.
func surroundings() string {
	var b strings.Builder
	groups, _ := os.Getgroups()
	fmt.Fprintln(&b, os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid(), groups)
	for _, ns := range []string{"mnt", "user", "pid", "net", "cgroup"} {
		link, _ := os.Readlink("/proc/self/ns/" + ns)
		fmt.Fprintln(&b, link)
	}
	cgroup, _ := os.ReadFile("/proc/self/cgroup")
	b.Write(cgroup)
	status, _ := os.ReadFile("/proc/self/status")
	for line := range bytes.Lines(status) {
		for _, field := range []string{"Cap", "NoNewPrivs:", "Seccomp:"} {
			if bytes.HasPrefix(line, []byte(field)) {
				b.Write(line)
			}
		}
	}
	return b.String()
}

func (f findings) path(name string) string { return filepath.Join(f.dir, name+".json") }

// read returns what was found for the engine of that name, if it can still be
// believed.
func (f findings) read(name string, now time.Time) (*finding, bool) {
	if f.dir == "" || !private(f.dir, os.ModeDir|0o700) {
		return nil, false
	}
	file, err := os.OpenFile(f.path(name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, false
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !own(info, 0o600) {
		return nil, false
	}
	data, err := io.ReadAll(io.LimitReader(file, findingLimit))
	if err != nil {
		return nil, false
	}
	var found finding
	if json.Unmarshal(data, &found) != nil || found.Under != f.under || !found.Features.Usable {
		return nil, false
	}
	age := now.Sub(found.At)
	return &found, age >= 0 && age < probeAge
}

// write remembers what was found. Only what works is worth it: what does not is
// tried again by whoever has mended it. That it can't be kept is nothing to
// tell anybody.
func (f findings) write(name string, features *engine.Features, at time.Time) {
	if f.dir == "" || !features.Usable {
		return
	}
	data, err := json.Marshal(&finding{Under: f.under, At: at, Features: *features})
	if err != nil || os.MkdirAll(f.dir, 0o700) != nil || !private(f.dir, os.ModeDir|0o700) {
		return
	}
	_ = atomicfile.Write(f.path(name), data, 0o600)
}

// forget has every process probe the engine again.
func (f findings) forget(name string) {
	if f.dir != "" {
		_ = os.Remove(f.path(name))
	}
}

// private reports whether path is of that very mode, and this user's own.
func private(path string, mode os.FileMode) bool {
	info, err := os.Lstat(path)
	return err == nil && own(info, mode)
}

func own(info os.FileInfo, mode os.FileMode) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode() == mode && int(st.Uid) == os.Geteuid()
}
