package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/machine/qmp"
)

// A QEMU is a program that runs machines, with what it says that it has. That it
// has something does not prove that it works: Probe does.
type QEMU struct {
	// Path is the program's file.
	Path    string
	Version qmp.Version
	// Arch is the processor of its machines, in Go's words.
	Arch string
	// Machines are the types of machine, each with the versioned name that it
	// stands for: a machine's state can be loaded into the same only.
	Machines map[string]string
	// Accels are the accelerators, such as kvm and tcg.
	Accels []string
	// devices and options are the names of devices, and the options of the command
	// line with their parameters' names. Options that are no more than a switch
	// are not among them.
	devices map[string]bool
	options map[string][]string
}

// A writtenQEMU is a QEMU as it is written down.
type writtenQEMU struct {
	Path     string              `json:"path"`
	Version  qmp.Version         `json:"version"`
	Arch     string              `json:"arch"`
	Machines map[string]string   `json:"machines"`
	Accels   []string            `json:"accels"`
	Devices  []string            `json:"devices"`
	Options  map[string][]string `json:"options"`
}

// MarshalJSON implements json.Marshaler: what a QEMU has does not change as long as
// its program does not, and asking takes longer than reading.
func (q *QEMU) MarshalJSON() ([]byte, error) {
	return json.Marshal(&writtenQEMU{
		Path: q.Path, Version: q.Version, Arch: q.Arch, Machines: q.Machines, Accels: q.Accels,
		Devices: slices.Sorted(maps.Keys(q.devices)), Options: q.options,
	})
}

// UnmarshalJSON implements json.Unmarshaler.
func (q *QEMU) UnmarshalJSON(data []byte) error {
	var w writtenQEMU
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	*q = QEMU{Path: w.Path, Version: w.Version, Arch: w.Arch, Machines: w.Machines, Accels: w.Accels, options: w.Options}
	q.devices = make(map[string]bool, len(w.Devices))
	for _, name := range w.Devices {
		q.devices[name] = true
	}
	return nil
}

// The oldest QEMU that microvm machines with ACPI, and devices as JSON-like
// options of today, work with.
const oldestMajor, oldestMinor = 5, 2

// programs are the names of QEMU by the processor of its machines.
var programs = map[string][]string{
	"amd64": {"qemu-system-x86_64", "/usr/libexec/qemu-kvm"},
	"arm64": {"qemu-system-aarch64", "/usr/libexec/qemu-kvm"},
}

// arches are QEMU's words for processors.
var arches = map[string]string{"x86_64": "amd64", "i386": "386", "aarch64": "arm64"}

// FindQEMU starts the QEMU at path, or the first of the usual names for arch if
// path is empty, and asks it what it has. ctx bounds the call.
//
// Errors: ErrNotFound if there is none; ErrUnsupported if it is too old, or for
// another processor; ErrUnavailable with its own words if it does not answer.
func FindQEMU(ctx context.Context, path, arch string) (*QEMU, error) {
	path, err := FindProgram(path, arch)
	if err != nil {
		return nil, err
	}
	q, err := ask(ctx, path)
	if err != nil {
		return nil, err
	}
	if q.Arch != arch {
		return nil, qemuError(path, caisson.ErrUnsupported, fmt.Errorf("its machines are %s, and %s is needed", q.Arch, arch))
	}
	return q, nil
}

// FindProgram returns the file of the QEMU that FindQEMU would ask.
//
// Errors: as FindQEMU's.
func FindProgram(path, arch string) (string, error) {
	names := programs[arch]
	if path != "" {
		names = []string{path}
	}
	for _, name := range names {
		if file, err := exec.LookPath(name); err == nil {
			return file, nil
		} else if path != "" {
			return "", qemuError(path, caisson.ErrNotFound, plainCause(errors.Unwrap(err)))
		}
	}
	if len(names) == 0 {
		return "", qemuError("qemu", caisson.ErrUnsupported, fmt.Errorf("there are no machines for %s", arch))
	}
	return "", qemuError("qemu", caisson.ErrNotFound, fmt.Errorf("there is no %s in PATH", names[0]))
}

// ask starts a QEMU without a machine, and asks.
func ask(ctx context.Context, path string) (*QEMU, error) {
	p, err := start(ctx, path, []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-S",
		// Either will do: no machine is made, so that none is used.
		"-machine", "none,accel=tcg:kvm",
		"-chardev", "socket,id=qmp,fd=0", "-mon", "chardev=qmp,mode=control",
	})
	if err != nil {
		return nil, err
	}
	defer p.stop()
	q := &QEMU{Path: path, Version: p.qmp.Version()}
	if !q.AtLeast(oldestMajor, oldestMinor) {
		return nil, qemuError(path, caisson.ErrUnsupported, fmt.Errorf("version %s is too old: %d.%d is needed", q.Version, oldestMajor, oldestMinor))
	}
	for _, f := range []func(context.Context, *qmp.Client) error{q.askTarget, q.askMachines, q.askAccels, q.askDevices, q.askOptions} {
		if err := f(ctx, p.qmp); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return q, nil
}

// AtLeast reports whether its version is that one or later.
func (q *QEMU) AtLeast(major, minor int) bool {
	return q.Version.Major > major || q.Version.Major == major && q.Version.Minor >= minor
}

func (q *QEMU) askTarget(ctx context.Context, c *qmp.Client) error {
	var t struct {
		Arch string `json:"arch"`
	}
	err := c.Do(ctx, "query-target", nil, &t)
	if q.Arch = arches[t.Arch]; q.Arch == "" {
		q.Arch = t.Arch
	}
	return err
}

func (q *QEMU) askMachines(ctx context.Context, c *qmp.Client) error {
	var list []struct {
		Name  string `json:"name"`
		Alias string `json:"alias"`
	}
	err := c.Do(ctx, "query-machines", nil, &list)
	q.Machines = map[string]string{}
	for _, m := range list {
		q.Machines[m.Name] = m.Name
		if m.Alias != "" {
			q.Machines[m.Alias] = m.Name
		}
	}
	return err
}

func (q *QEMU) askAccels(ctx context.Context, c *qmp.Client) error {
	types, err := typesOf(ctx, c, "accel")
	for name := range types {
		if accel, ok := strings.CutSuffix(name, "-accel"); ok {
			q.Accels = append(q.Accels, accel)
		}
	}
	slices.Sort(q.Accels)
	return err
}

func (q *QEMU) askDevices(ctx context.Context, c *qmp.Client) (err error) {
	q.devices, err = typesOf(ctx, c, "device")
	return err
}

// typesOf returns the names of what QEMU has of a kind.
func typesOf(ctx context.Context, c *qmp.Client, kind string) (map[string]bool, error) {
	var list []struct {
		Name string `json:"name"`
	}
	err := c.Do(ctx, "qom-list-types", map[string]any{"implements": kind, "abstract": false}, &list)
	names := make(map[string]bool, len(list))
	for _, t := range list {
		names[t.Name] = true
	}
	return names, err
}

func (q *QEMU) askOptions(ctx context.Context, c *qmp.Client) error {
	var list []struct {
		Option     string `json:"option"`
		Parameters []struct {
			Name string `json:"name"`
		} `json:"parameters"`
	}
	err := c.Do(ctx, "query-command-line-options", nil, &list)
	q.options = map[string][]string{}
	for _, o := range list {
		names := []string{}
		for _, p := range o.Parameters {
			names = append(names, p.Name)
		}
		q.options[o.Option] = names
	}
	return err
}

// Screens reports whether it has what a machine's screen needs: see Spec.Screen.
func (q *QEMU) Screens() bool { return q.has("vnc") && q.devices["VGA"] }

// has reports whether the option exists, with all of the parameters.
func (q *QEMU) has(option string, parameters ...string) bool {
	known, ok := q.options[option]
	for _, p := range parameters {
		ok = ok && slices.Contains(known, p)
	}
	return ok
}
