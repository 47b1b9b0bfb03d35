//go:build unix

// Package bootable makes disks of images that a machine boots by itself: the
// image's root file system with room to write, a distribution's kernel, and an
// initramfs that is Caisson's agent for guests (docs/machines.md). It needs no
// root and, but for what unpacks packages, no programs.
package bootable

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	imagemachine "github.com/caissonrun/caisson/image/machine"
	"github.com/caissonrun/caisson/internal/bootdisk"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/guest/embed"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/internal/safefs"
)

// Options say what is made.
type Options struct {
	Store *image.Store
	Image *image.Image
	// Packages are Debian's, with a kernel and its modules. Kernel is a folder with
	// such a package unpacked: boot/vmlinuz-VERSION and lib/modules/VERSION. One of
	// both is needed.
	Packages []string
	Kernel   string
	// Size is that of the root file system. 0: 4 GiB.
	Size caisson.Bytes
	// Cmdline is added to the kernel's command line.
	Cmdline []string
	// Archive has the disk written as a compressed archive with a description of
	// its machine. Otherwise it is a raw disk.
	Archive bool
	// Agent is the file of the agent's program. Empty: the one that is part of this
	// program.
	Agent string
	// Output is the file, which must not exist.
	Output string
}

const (
	defaultSize = 4 * caisson.GiB
	// rootDevice is the first virtio disk, which there always is.
	rootDevice = "/dev/vda"
	mebibyte   = 1 << 20
	// room is what a machine gets besides what it needs in order to boot.
	room = 256 * caisson.MiB
)

// A Result is what was made.
type Result struct {
	Kernel string        `json:"kernel"`         // its version
	Init   string        `json:"init,omitempty"` // the system's first process; empty: the agent
	Size   caisson.Bytes `json:"size"`           // of the disk
	Memory caisson.Bytes `json:"memory"`         // the least that a machine needs
}

// First is the system's first process, for people.
func (r *Result) First() string { return cmp.Or(r.Init, "the agent") }

// Build makes the disk.
//
// Errors: ErrExists if there is a file; ErrNotFound without a kernel;
// ErrUnsupported for a kernel that no BIOS boots, or lacks drivers, and where
// packages can't be unpacked; ErrInvalid; those of the store.
func Build(ctx context.Context, o *Options) (result *Result, err error) {
	if runtime.GOARCH != "amd64" {
		return nil, problem("caisson vm build", caisson.ErrUnsupported, errors.New("it makes disks for x86-64 alone, on such a host"))
	}
	if _, err := os.Lstat(o.Output); err == nil {
		return nil, problem(o.Output, caisson.ErrExists, errors.New("it exists; remove it, or name another file"))
	}
	dir, err := os.MkdirTemp(filepath.Dir(o.Output), ".caisson-build-*")
	if err != nil {
		return nil, safefs.Sorted("", filepath.Dir(o.Output), err)
	}
	// All that is written lies in it, until it is renamed.
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &builder{Options: *o, dir: dir}
	if b.Size == 0 {
		b.Size = defaultSize
	}
	for _, step := range []func(context.Context) error{b.findKernel, b.makeInitrd, b.makeDisk, b.pack} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	// A link, unlike a renaming, replaces nothing.
	if err := os.Link(b.made, o.Output); err != nil {
		return nil, safefs.Sorted("", o.Output, err)
	}
	return &b.result, nil
}

func problem(item string, kind caisson.Kind, err error) error {
	return &caisson.Error{Item: item, Kind: kind, Err: err}
}

// A builder is one disk on its way.
type builder struct {
	Options
	dir    string
	kernel *machine.Kernel
	agent  []byte
	initrd []byte
	made   string // the file to be handed over
	result Result
}

// findKernel unpacks packages and finds the kernel in them.
func (b *builder) findKernel(ctx context.Context) error {
	root := b.Kernel
	switch {
	case root == "" && len(b.Packages) == 0:
		return problem("kernel", caisson.ErrInvalid, errors.New("name the package of a kernel, or a folder with one"))
	case root != "" && len(b.Packages) > 0:
		return problem("kernel", caisson.ErrInvalid, errors.New("name packages or a folder, not both"))
	case root == "":
		root = filepath.Join(b.dir, "kernel")
		if err := os.Mkdir(root, 0o700); err != nil {
			return err
		}
		for _, file := range b.Packages {
			if err := unpackPackage(ctx, file, root); err != nil {
				return err
			}
		}
	}
	var err error
	b.kernel, err = machine.FindKernel(&machine.KernelOptions{Roots: []string{root}})
	if err == nil {
		b.result.Kernel = b.kernel.Version
	}
	return err
}

// makeInitrd makes the initramfs, with all that a guest may have a use for: the
// image need not have the kernel's modules.
func (b *builder) makeInitrd(context.Context) error {
	modules, err := machine.OpenModules(b.kernel)
	if err != nil {
		return err
	}
	plan, err := modules.Resolve(machine.Wanted...)
	if err != nil {
		return err
	}
	for _, name := range plan.Missing {
		if name == "virtio_blk" || name == "virtio_console" || name == "ext4" || name == "virtio_pci" {
			return problem("kernel "+b.kernel.Version, caisson.ErrUnsupported, fmt.Errorf("it has no %s", name))
		}
	}
	file := b.Agent
	if file == "" {
		file = filepath.Join(b.dir, "agent")
		if err := embed.Write(file); err != nil {
			return err
		}
	}
	if b.agent, err = os.ReadFile(file); err != nil {
		return err
	}
	var out bytes.Buffer
	if _, err := (&machine.Initramfs{Init: file, Modules: plan.Load}).WriteTo(&out); err != nil {
		return err
	}
	b.initrd = out.Bytes()
	return nil
}

// makeDisk writes the file system, and what boots it.
func (b *builder) makeDisk(ctx context.Context) error {
	b.made = filepath.Join(b.dir, "disk")
	f, err := os.OpenFile(b.made, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return safefs.Sorted("", b.made, err)
	}
	defer f.Close()
	if _, err := b.Store.WriteDisk(ctx, b.Image, f, &image.DiskOptions{Size: b.Size, Add: b.add}); err != nil {
		return err
	}
	kernel, err := os.Open(b.kernel.Image)
	if err != nil {
		return safefs.Sorted("", b.kernel.Image, err)
	}
	defer kernel.Close()
	disk, err := bootdisk.Install(f, &bootdisk.Boot{Kernel: kernel, Initrd: b.initrd, Cmdline: b.cmdline()})
	if err != nil {
		return err
	}
	// Whoever takes machines' disks wants whole MiB.
	b.result.Size = (disk.Size + mebibyte - 1) / mebibyte * mebibyte
	b.result.Memory = disk.Memory
	return errors.Join(f.Truncate(int64(b.result.Size)), f.Sync())
}

// cmdline is the kernel's command line. The last console is the one that the
// system prints to.
func (b *builder) cmdline() string {
	words := []string{"caisson.root=" + rootDevice, "panic=-1", "quiet", "console=tty0", "console=ttyS0"}
	if b.result.Init != "" {
		words = append(words, "caisson.init="+b.result.Init)
	}
	return strings.Join(append(words, b.Cmdline...), " ")
}

// add returns what makes the agent a service, if the image has systemd. Another
// system's first process starts nothing of ours: then the agent, which is in the
// initramfs, is the first process.
func (b *builder) add(root *safefs.Root) ([]image.DiskFile, error) {
	for _, name := range []string{"usr/lib/systemd/systemd", "lib/systemd/systemd"} {
		info, err := root.Stat(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, safefs.ErrLink) || err == nil && !info.Mode.IsRegular() {
			continue
		}
		if err != nil {
			return nil, err
		}
		b.result.Init = "/" + name
		const unit = "etc/systemd/system/caisson-guest.service"
		return []image.DiskFile{
			{Path: guest.ServicePath[1:], Mode: 0o755, Data: b.agent},
			{Path: unit, Mode: 0o644, Data: []byte(guest.Unit)},
			{Path: "etc/systemd/system/multi-user.target.wants/caisson-guest.service", Mode: fs.ModeSymlink | 0o777, Link: "/" + unit},
		}, nil
	}
	return nil, nil
}

// pack makes the disk an archive, if that is wanted.
func (b *builder) pack(ctx context.Context) error {
	if !b.Archive {
		return nil
	}
	disk, err := os.Open(b.made)
	if err != nil {
		return err
	}
	defer disk.Close()
	b.made = filepath.Join(b.dir, "archive")
	out, err := os.OpenFile(b.made, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return safefs.Sorted("", b.made, err)
	}
	defer out.Close()
	memory := max(b.result.Memory, room)
	m := &imagemachine.Machine{
		Version: imagemachine.Version, Chipset: machine.Q35, Network: "virtio-net-pci", Storage: "virtio-blk-pci",
		Memory: int((memory + mebibyte - 1) / mebibyte),
	}
	if err := imagemachine.Pack(ctx, out, disk, m); err != nil {
		return err
	}
	return errors.Join(out.Sync(), out.Close())
}
