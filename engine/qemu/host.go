//go:build unix

package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/guest/embed"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/internal/version"
)

// A host is what was found out about this host.
type host struct {
	root    bool // QEMUs can have ids of their own
	support kept.Support
	resolv  []byte // its resolv.conf
	nets    kept.Nets
	taps    error // why there are no TAP devices
	// broken is why no machine can be made, or nil.
	broken error
	// base is what machines without a kernel of their own boot from.
	base *base
}

// A base is what guests boot from: a QEMU, a kernel, an initramfs with the agent,
// and what is known of how they get on. It is written down, because finding it out
// takes longer than many a task.
type base struct {
	Version int `json:"version"` // baseVersion
	// Of tells everything that it was made of.
	Of     string          `json:"of"`
	QEMU   *machine.QEMU   `json:"qemu"`
	Kernel *machine.Kernel `json:"kernel"` // its image may be a copy
	Initrd string          `json:"initrd"`
	// Missing are modules that the kernel does not have.
	Missing []string `json:"missing,omitempty"`
	// LateDisks is machine.Plan's: a saved state may be of no disk at all.
	LateDisks bool `json:"late_disks,omitempty"`
	// Under tells what else booting depends on: Boots and TSC count for nothing
	// elsewhere.
	Under string  `json:"under"`
	Boots []tried `json:"boots,omitempty"`
	TSC   int64   `json:"tsc,omitempty"` // machine.TSCKHz

	mu sync.Mutex // held for Boots once the base is known to several
}

// baseVersion is that of the form in which a base is written.
const baseVersion = 1

// A tried is what became of booting a guest on one kind of machine, and of running
// a program in it.
type tried struct {
	Accel string        `json:"accel"`
	Type  string        `json:"type"`
	At    time.Time     `json:"at"`
	Took  time.Duration `json:"took"`
	// Missing says why it does not work, in words an operator can act on.
	Missing string     `json:"missing,omitempty"`
	Works   kept.Works `json:"works"`
}

// retry is how long a failure is believed: a host that was busy may boot a guest
// later. What has worked is believed as long as nothing has changed.
const retry = 30 * time.Minute

// known returns what is known of a kind of machine, or nil.
func (b *base) known(accel, kind string, now time.Time) *tried {
	for _, t := range b.boots() {
		if t.Accel == accel && t.Type == kind && (t.Missing == "" || now.Sub(t.At) < retry && !now.Before(t.At)) {
			return &t
		}
	}
	return nil
}

// boots returns what is known of kinds of machines.
func (b *base) boots() []tried {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.Boots)
}

// note remembers what became of kinds of machines.
func (b *base) note(list ...tried) {
	for _, t := range list {
		b.forget(t.Accel, t.Type)
		b.mu.Lock()
		b.Boots = append(b.Boots, t)
		b.mu.Unlock()
	}
}

// forget has a kind of machine be tried again.
func (b *base) forget(accel, kind string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Boots = slices.DeleteFunc(b.Boots, func(t tried) bool { return t.Accel == accel && t.Type == kind })
}

// lacks reports whether the kernel lacks a module.
func (b *base) lacks(name string) bool { return slices.Contains(b.Missing, name) }

// shares reports whether guests can mount folders of the host.
func (b *base) shares() bool { return !b.lacks("9p") && !b.lacks("9pnet_virtio") }

// needed are the modules without which nothing works.
var needed = []string{"virtio_console", "virtio_blk", "ext4", "overlay"}

// check returns what the kernel lacks of what every machine needs.
func (b *base) check() error {
	var missing []string
	for _, name := range needed {
		if b.lacks(name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("kernel %s has no %s, neither built in nor as a module in %q; name another one as engine.qemu.kernel",
		b.Kernel.Version, strings.Join(missing, ", "), b.Kernel.Modules)
}

// sources is what a base is made of.
type sources struct {
	program string // QEMU's file
	kernel  *machine.Kernel
	agent   func(path string) error // writes the agent to a file
	of      string                  // base.Of
}

// look finds what a base is made of, without starting anything. Chosen is the
// kernel's name among those that tasks may name; empty: the operator's own choice.
func (o *Options) look(chosen string) (*sources, error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return nil, kept.Unsupported("engine", fmt.Errorf("machines need Linux on x86-64, and this is %s on %s", runtime.GOOS, runtime.GOARCH))
	}
	s := &sources{}
	var err error
	if s.program, err = machine.FindProgram(o.Program, runtime.GOARCH); err != nil {
		return nil, &remedied{err, "install qemu-system-x86, or name QEMU's file as engine.qemu.program"}
	}
	if s.kernel, err = o.findKernel(chosen); err != nil {
		return nil, err
	}
	agent, err := o.findAgent(s)
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	build := version.Get()
	fmt.Fprintln(hash, baseVersion, build.Version, build.Commit, agent)
	for _, path := range []string{s.program, s.kernel.Image, s.kernel.Modules, filepath.Join(s.kernel.Modules, "modules.builtin")} {
		fmt.Fprintln(hash, path, identity(path))
	}
	s.of = hex.EncodeToString(hash.Sum(nil))
	return s, nil
}

// findKernel finds the kernel that guests boot.
func (o *Options) findKernel(chosen string) (*machine.Kernel, error) {
	want := &machine.KernelOptions{Image: o.Kernel, Modules: o.Modules, Arch: runtime.GOARCH}
	switch {
	case chosen != "":
		k, ok := o.Kernels[chosen]
		if !ok {
			return nil, kept.Invalid("machine.kernel", fmt.Errorf("%q is none of the operator's (engine.qemu.kernels)", chosen))
		}
		want.Image, want.Modules = k.Image, k.Modules
	case o.KernelRoot != "":
		want.Roots = []string{o.KernelRoot}
	}
	k, err := machine.FindKernel(want)
	switch {
	case err == nil || chosen != "":
		return k, err
	case errors.Is(err, caisson.ErrNotFound) && want.Image == "":
		return nil, &remedied{err, "install one, such as linux-image-amd64, or name one as engine.qemu.kernel"}
	}
	return nil, &remedied{err, "name another one as engine.qemu.kernel"}
}

// findAgent finds the agent for guests, and returns what tells it from others.
func (o *Options) findAgent(s *sources) (string, error) {
	if o.Agent != "" {
		s.agent = func(path string) error {
			data, err := os.ReadFile(o.Agent)
			if err != nil {
				return err
			}
			return os.WriteFile(path, data, 0o755)
		}
		return o.Agent + " " + identity(o.Agent), nil
	}
	packed, err := embed.Packed(runtime.GOARCH)
	if err != nil {
		return "", err
	}
	s.agent = embed.Write
	sum := sha256.Sum256(packed)
	return hex.EncodeToString(sum[:]), nil
}

// identity tells a file from any other that is or was at a path.
func identity(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "absent"
	}
	id := fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano())
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id += fmt.Sprintf(" %d %d", st.Dev, st.Ino)
	}
	return id
}

// surroundings tells what booting depends on besides what a guest boots from: the
// host's kernel since it was started, /dev/kvm and what this process may do with
// it.
func surroundings() (string, error) {
	boot, err := engine.BootID()
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	groups, _ := os.Getgroups()
	fmt.Fprintln(hash, boot, os.Geteuid(), os.Getegid(), groups, runtime.NumCPU())
	if info, err := os.Stat(kvmDevice); err == nil {
		st, _ := info.Sys().(*syscall.Stat_t)
		fmt.Fprintln(hash, info.Mode(), st.Dev, st.Ino, st.Rdev, st.Uid, st.Gid)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

const kvmDevice = "/dev/kvm"

// kvmGroup returns the group that may use /dev/kvm, or -1 where everybody may.
//
// Errors: why a QEMU that is an ordinary user's can't use it.
func kvmGroup(root bool) (int, error) {
	info, err := os.Stat(kvmDevice)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, errors.New("there is no /dev/kvm: the processor's virtualization is off, or this is a machine without it")
	}
	if err != nil {
		return -1, err
	}
	if !root {
		f, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
		if err != nil {
			return -1, fmt.Errorf("%w; add this user to its group", err)
		}
		return -1, f.Close()
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	const everybody, group = 0o006, 0o060
	switch mode := info.Mode().Perm(); {
	case mode&everybody == everybody:
		return -1, nil
	case ok && mode&group == group && st.Gid != 0:
		return int(st.Gid), nil
	}
	return -1, errors.New("only root may use /dev/kvm, and QEMU runs without rights: give it a group (chgrp kvm /dev/kvm; chmod 660 /dev/kvm)")
}
