package engine

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/caissonrun/caisson"
)

// maxID is the most bytes that a sandbox's id may have.
const maxID = 60

// Validate returns nil unless s contradicts itself. Otherwise it returns one
// error of kind ErrInvalid that names every field at fault and what is wrong
// with it. Engines call it in Create, together with Features.Check; it looks
// at nothing but s.
func (s *Spec) Validate() error {
	v := &validation{}
	v.add("id", checkID(s.ID))
	v.add("dir", checkHostPath(s.Dir, true))
	v.add("log", checkHostPath(s.Log, true))
	v.add("work", checkHostPath(s.Work, false))
	v.add("tmp", checkHostPath(s.Tmp, false))
	v.add("snapshot", checkHostPath(s.Snapshot, false))
	v.add("shared_network", checkHostPath(s.SharedNetwork, false))
	v.program(s)
	v.mounts(s.Mounts)
	v.gateway(s)
	v.displays(s)
	v.numbers(s)
	for _, secret := range s.Secrets {
		v.secret(&secret)
	}
	return v.err()
}

// CheckEnv returns what is wrong with a variable of a sandbox's environment.
// A name is any text but the empty one, without "=" and NUL; a value is any
// text without NUL. Both are UTF-8, as everything that passes through a
// document is. The value is never in the error.
func CheckEnv(name, value string) error {
	if name == "" {
		return errors.New("empty name")
	}
	if strings.Contains(name, "=") {
		return errors.New("name with \"=\"")
	}
	if err := checkText(name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if err := checkText(value); err != nil {
		return fmt.Errorf("value: %w", err)
	}
	return nil
}

// checkText wants what every engine can pass on unchanged.
func checkText(s string) error {
	switch {
	case strings.Contains(s, "\x00"):
		return errors.New("contains NUL")
	case !utf8.ValidString(s):
		return errors.New("is not UTF-8")
	}
	return nil
}

// Validate returns nil unless e contradicts itself, as Spec.Validate does.
func (e *ExecSpec) Validate() error {
	v := &validation{op: caisson.OpExec}
	v.args(e.Args)
	v.env(e.Env)
	v.add("workdir", checkInside(e.Workdir, false))
	v.addIf(e.Timeout < 0, "timeout", "negative")
	return v.err()
}

// A validation collects what is wrong.
type validation struct {
	op       caisson.Op
	problems []string
}

func (v *validation) add(field string, err error) {
	if err != nil {
		v.problems = append(v.problems, field+": "+err.Error())
	}
}

func (v *validation) addIf(wrong bool, field, why string) {
	if wrong {
		v.add(field, errors.New(why))
	}
}

func (v *validation) err() error {
	if len(v.problems) == 0 {
		return nil
	}
	if v.op == "" {
		v.op = caisson.OpCreate
	}
	return &caisson.Error{Op: v.op, Kind: caisson.ErrInvalid, Err: errors.New(strings.Join(v.problems, "; "))}
}

// program checks that there is one form of program at most, and what belongs
// to it.
func (v *validation) program(s *Spec) {
	v.addIf(len(s.Args) > 0 && s.Run != "", "cmd, run", "both are set, use one")
	bodies := 0
	for _, set := range []bool{s.Image != "" || s.RootFS != nil, s.Module != "", s.Machine != nil} {
		if set {
			bodies++
		}
	}
	none := len(s.Args) == 0 && s.Run == "" && bodies == 0 && len(s.Options) == 0
	v.addIf(none, "cmd", "nothing to run: set cmd, run, image, module, machine or options")
	v.addIf(s.Module != "" && (s.RootFS != nil || s.Image != ""), "image, module", "both are set, use one")
	v.rootFS(s.RootFS)
	v.args(s.Args)
	v.add("run", checkText(s.Run))
	v.env(s.Env)
	v.add("workdir", checkInside(s.Workdir, false))
	for _, f := range []struct{ name, value string }{{"user", s.User}, {"group", s.Group}, {"hostname", s.Hostname}} {
		v.addIf(strings.ContainsAny(f.value, "\x00\n/ "), f.name, fmt.Sprintf("%q is not one", f.value))
	}
}

func (v *validation) rootFS(r *RootFS) {
	if r == nil {
		return
	}
	v.add("rootfs.path", checkHostPath(r.Path, true))
	v.add("rootfs.changes", checkHostPath(r.Changes, false))
}

func (v *validation) args(args []string) {
	v.addIf(len(args) > 0 && args[0] == "", "cmd[0]", "empty, name a program")
	for i, arg := range args {
		v.add(fmt.Sprintf("cmd[%d]", i), checkText(arg))
	}
}

func (v *validation) env(env map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		v.add(fmt.Sprintf("env.%q", name), CheckEnv(name, env[name]))
	}
}

func (v *validation) mounts(mounts []Mount) {
	seen := make(map[string]bool)
	for i, m := range mounts {
		field := fmt.Sprintf("mounts[%d]", i)
		switch m.Type {
		case MountBind:
			v.add(field+".source", checkHostPath(m.Source, true))
		case MountTmpfs:
			v.addIf(m.Source != "", field+".source", "a tmpfs has none")
			v.addIf(m.Mode&^0o1777 != 0, field+".mode", "not permission bits")
		default:
			v.add(field+".type", fmt.Errorf("%q is neither %s nor %s", m.Type, MountBind, MountTmpfs))
		}
		v.add(field+".target", checkTarget(m.Target))
		v.addIf(seen[m.Target], field+".target", fmt.Sprintf("%q is mounted twice", m.Target))
		seen[m.Target] = true
		v.addIf(m.Size < 0, field+".size", "negative")
	}
}

func (v *validation) numbers(s *Spec) {
	for _, n := range []struct {
		field string
		value int64
	}{
		{"limits.cpus", int64(s.Limits.CPUs)},
		{"limits.memory", int64(s.Limits.Memory)},
		{"limits.pids", s.Limits.PIDs},
		{"limits.disk", int64(s.Limits.Disk)},
		{"limits.log", int64(s.Limits.Log)},
		{"limits.files", s.Limits.Files},
		{"timeout", int64(s.Timeout)},
		{"grace", int64(s.Grace)},
		{"linger", int64(s.Linger)},
		{"keep", int64(s.Keep)},
	} {
		v.addIf(n.value < 0, n.field, "negative")
	}
	v.addIf(s.StopSignal != 0 && !ValidSignal(s.StopSignal), "stop_signal", fmt.Sprintf("%d is no signal", s.StopSignal))
}

func (v *validation) secret(s *Secret) {
	field := fmt.Sprintf("secrets.%q", s.Name)
	switch s.As {
	case "":
	case caisson.SecretEnv:
		v.add(field, CheckEnv(s.Name, string(s.Value)))
	case caisson.SecretFile:
		v.addIf(s.Name == "" || s.Name == "." || s.Name == ".." || strings.ContainsAny(s.Name, "/\x00"), field, "not a file name")
	default:
		v.add(field+".as", fmt.Errorf("%q is neither env nor file", s.As))
	}
}

// maxSignal is the largest signal number of Linux.
const maxSignal = 64

// ValidSignal reports whether there is a signal of that Linux number.
func ValidSignal(signal int) bool { return signal >= 1 && signal <= maxSignal }

// checkID keeps ids to what can be part of every name on the host.
func checkID(id string) error {
	switch {
	case id == "":
		return errors.New("empty")
	case len(id) > maxID:
		return fmt.Errorf("longer than %d", maxID)
	case strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || id[0] == '-':
		return fmt.Errorf("%q: only a-z, 0-9 and, not first, \"-\"", id)
	}
	return nil
}

// checkHostPath wants an absolute, clean path of the host.
func checkHostPath(p string, required bool) error {
	switch {
	case p == "" && !required:
		return nil
	case p == "":
		return errors.New("not set")
	case strings.Contains(p, "\x00"):
		return errors.New("contains NUL")
	case !filepath.IsAbs(p) || filepath.Clean(p) != p:
		return fmt.Errorf("%q is not an absolute, clean path", p)
	}
	return nil
}

// checkInside wants an absolute path inside of the sandbox.
func checkInside(p string, required bool) error {
	switch {
	case p == "" && !required:
		return nil
	case strings.Contains(p, "\x00"):
		return errors.New("contains NUL")
	case !path.IsAbs(p):
		return fmt.Errorf("%q is not an absolute path", p)
	}
	return nil
}

// checkTarget wants a place where something can be mounted: not the root, nor
// what the engine itself mounts. Shared memory is the task's own.
func checkTarget(p string) error {
	if err := checkInside(p, true); err != nil {
		return err
	}
	if path.Clean(p) != p {
		return fmt.Errorf("%q is not clean", p)
	}
	if p == "/dev/shm" {
		return nil
	}
	for _, taken := range []string{"/proc", "/sys", "/dev"} {
		if p == "/" || p == taken || strings.HasPrefix(p, taken+"/") {
			return fmt.Errorf("%q belongs to the sandbox itself", p)
		}
	}
	return nil
}
