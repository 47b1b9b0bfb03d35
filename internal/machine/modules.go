package machine

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
)

// Wanted are the modules that a guest may have a use for. A kernel need not have
// all of them: Plan.Missing says which, and with it what can't be had.
var Wanted = []string{
	"virtio_pci", "virtio_mmio", // the two ways in which devices are found
	"virtio_console", // the guest agent's port
	"virtio_blk", "virtio_net", "virtio_rng",
	"overlay", "ext4", "squashfs",
	"crc32c_generic",     // which ext4 asks for by another name when it mounts
	"9p", "9pnet_virtio", // folders of the host, by QEMU itself
	"virtiofs", // and by a program of their own
}

// maxModules bounds how many files a folder of modules may have.
const maxModules = 100_000

// diskModule is the driver of disks. No other module needs it.
const diskModule = "virtio_blk"

// LateDisks reports whether a guest knows nothing of its disks until it wants one:
// those of its state, if that is saved before, can become others.
func (p *Plan) LateDisks() bool {
	return slices.ContainsFunc(p.Load, func(m Module) bool { return m.Name == diskModule })
}

// Modules are the modules of one kernel.
type Modules struct {
	kernel  *Kernel
	files   map[string]string // paths, by name
	builtin map[string]bool
}

// A Module is one file with a kernel's module.
type Module struct {
	Name string // as the kernel has it: with _ and never -
	Path string
}

// A Plan says how what is wanted comes into a guest.
type Plan struct {
	// Load are the modules to load, in this order.
	Load []Module
	// Builtin are those of the wanted that the kernel has without a module.
	Builtin []string
	// Missing are those of the wanted that this kernel does not have.
	Missing []string
}

// OpenModules reads which modules the kernel has. One without a folder of
// modules has none, and nothing is known of what it has built in.
func OpenModules(k *Kernel) (*Modules, error) {
	m := &Modules{kernel: k, files: map[string]string{}, builtin: map[string]bool{}}
	if k.Modules == "" {
		return m, nil
	}
	if err := m.list(); err != nil {
		return nil, kernelError(k.Modules, fileKind(err), fmt.Errorf("modules: %w", err))
	}
	if err := m.readBuiltin(); err != nil {
		return nil, kernelError(k.Modules, fileKind(err), fmt.Errorf("modules: %w", err))
	}
	return m, nil
}

// list looks at the files themselves: modules.dep is made at installation, so
// that an unpacked package does not have it.
func (m *Modules) list() error {
	count := 0
	return filepath.WalkDir(m.kernel.Modules, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if count++; count > maxModules {
			return fmt.Errorf("there are more than %d files", maxModules)
		}
		if name, ok := moduleName(path); ok && d.Type().IsRegular() {
			// An operator's own, in updates or extra, comes before the kernel's.
			if old := m.files[name]; old == "" || !m.shipped(path) && m.shipped(old) {
				m.files[name] = path
			}
		}
		return nil
	})
}

// shipped reports whether the module came with the kernel.
func (m *Modules) shipped(path string) bool {
	return strings.HasPrefix(path, filepath.Join(m.kernel.Modules, "kernel")+string(filepath.Separator))
}

// readBuiltin reads what needs no module. Without the list nothing is known to
// be built in.
func (m *Modules) readBuiltin() error {
	f, err := os.Open(filepath.Join(m.kernel.Modules, "modules.builtin"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); ; {
		if !lines.Scan() {
			return lines.Err()
		}
		if name, ok := moduleName(lines.Text()); ok {
			m.builtin[name] = true
		}
	}
}

// moduleName is the name of the module in a file, and whether it is one.
func moduleName(path string) (string, bool) {
	base := filepath.Base(path)
	for _, suffix := range packed {
		base = strings.TrimSuffix(base, suffix)
	}
	name, ok := strings.CutSuffix(base, ".ko")
	return canonical(name), ok && name != ""
}

// canonical is a module's name as the kernel has it.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Resolve finds what is wanted, and what that needs in turn. A module that can't
// be read is an error; one that is not there is Missing, and so is one that needs
// such a one.
func (m *Modules) Resolve(wanted ...string) (*Plan, error) {
	r := resolver{m: m, state: map[string]resolution{}, plan: &Plan{}}
	for _, name := range wanted {
		name = canonical(name)
		if m.builtin[name] {
			r.plan.Builtin = append(r.plan.Builtin, name)
			continue
		}
		found, err := r.add(name)
		if err != nil {
			return nil, err
		}
		if !found {
			r.plan.Missing = append(r.plan.Missing, name)
		}
	}
	return r.plan, nil
}

// A resolution is what is known of a module while others are looked at.
type resolution int

const (
	unseen resolution = iota
	underWay
	available
	absent
)

// A resolver puts modules in order: what a module needs comes before it.
type resolver struct {
	m     *Modules
	state map[string]resolution
	plan  *Plan
}

// add puts the module and what it needs into the plan, and reports whether that
// is all there.
func (r *resolver) add(name string) (bool, error) {
	path := r.m.files[name]
	switch {
	case r.m.builtin[name] || r.state[name] == available:
		return true, nil
	case path == "" || r.state[name] == absent:
		return false, nil
	case r.state[name] == underWay:
		return false, kernelError(path, caisson.ErrInvalid, errors.New("the module needs itself"))
	}
	r.state[name] = underWay
	hard, soft, err := (&Module{name, path}).needs()
	if err != nil {
		return false, err
	}
	// A whole branch is taken back if a part of it is missing.
	before := len(r.plan.Load)
	for _, n := range hard {
		found, err := r.add(n)
		if err != nil {
			return false, err
		}
		if !found {
			r.drop(before)
			r.state[name] = absent
			return false, nil
		}
	}
	for _, n := range soft {
		// One that is only good to have may also be another one's alias.
		if r.state[n] == underWay {
			continue
		}
		if _, err := r.add(n); err != nil {
			return false, err
		}
	}
	r.state[name] = available
	r.plan.Load = append(r.plan.Load, Module{name, path})
	return true, nil
}

// drop takes back what was added after the first n.
func (r *resolver) drop(n int) {
	for _, m := range r.plan.Load[n:] {
		delete(r.state, m.Name)
	}
	r.plan.Load = slices.Clip(r.plan.Load[:n])
}

// needs reads from the module which others must be loaded before it, and which
// should be.
func (m *Module) needs() (hard, soft []string, err error) {
	data, err := m.Read()
	if err != nil {
		return nil, nil, err
	}
	info, err := modinfo(data)
	if err != nil {
		return nil, nil, kernelError(m.Path, caisson.ErrInvalid, err)
	}
	for _, entry := range bytes.Split(info, []byte{0}) {
		key, value, _ := strings.Cut(string(entry), "=")
		switch key {
		case "depends":
			hard = append(hard, strings.FieldsFunc(canonical(value), func(c rune) bool { return c == ',' })...)
		case "softdep":
			soft = append(soft, before(canonical(value))...)
		}
	}
	return hard, soft, nil
}

// before are the modules of a softdep that come before the module.
func before(softdep string) (names []string) {
	pre := false
	for _, word := range strings.Fields(softdep) {
		switch {
		case strings.HasSuffix(word, ":"):
			pre = word == "pre:"
		case pre:
			names = append(names, word)
		}
	}
	return names
}

// modinfo returns the part of a module in which it tells about itself.
func modinfo(module []byte) ([]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, fmt.Errorf("it is not a module: %w", err)
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("it is not a module: it says nothing of itself")
	}
	return section.Data()
}
