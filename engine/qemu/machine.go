//go:build unix

package qemu

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/cleanup"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/internal/qcow2"
	"github.com/caissonrun/caisson/internal/safefs"
)

// A machine with a system of its own boots a disk: by its firmware and the boot
// loader that is on it, or by a kernel of the operator's. The agent is a service of
// that system, or its first process. Users, files and mounts are the system's.

const (
	// ownDisk is the disk's name. It is the first, so that it is what boots.
	ownDisk = "disk"
	// ownLayer is where QEMU has the layer that the guest writes to.
	ownLayer = "/machine/layer.qcow2"
	// ownShares is where folders of the host are mounted in such a system.
	ownShares = "/run/caisson/shares"
	// rootWord is the agent's parameter for the disk that is the root, and rootDisk
	// the first disk, as kernels call it.
	rootWord = "caisson.root="
	rootDisk = "/dev/vda"
	// ownTimes is how much longer than a guest of the engine's own making a whole
	// system may take until its agent answers.
	ownTimes = 5
)

// An own is a machine with a system of its own.
type own struct {
	image *engine.MachineImage
	// metadata says that there is no agent: see meta.go.
	metadata bool
	hardware
}

// A hardware is what an image says of its machine: image/machine.Machine, which
// has checked it. Zero values are what it does not say.
type hardware struct {
	UUID           string `json:"uuid"`
	Chipset        string `json:"chipset"`
	CPU            string `json:"cpu"`
	Threads        int    `json:"threads"`
	Cores          int    `json:"cores"`
	Sockets        int    `json:"sockets"`
	Memory         int    `json:"memory"` // MiB
	USB            string `json:"usb"`
	Network        string `json:"network"`
	MAC            string `json:"mac"`
	Storage        string `json:"storage"`
	Graphics       string `json:"graphics"`
	VGAMemory      int    `json:"vgaMemory"`
	GraphicsRAM    int    `json:"graphicsRam"`
	GraphicsVRAM   int    `json:"graphicsVRam"`
	Sound          string `json:"sound"`
	Keyboard       string `json:"keyboard"`
	KeyboardLayout string `json:"keyboardLayout"`
	Mouse          string `json:"mouse"`
	Tablet         string `json:"tablet"`
}

// readOwn reads what the spec says of a machine with a system of its own, and
// refuses what can't be had. It is nil for a machine that runs an image.
func readOwn(s *engine.Spec, c *choice) (*own, error) {
	img, m := s.MachineImage, s.Machine
	switch {
	case c.Metadata && (m == nil || m.Image == ""):
		return nil, kept.Invalid("options.metadata", errors.New("an image has nobody who asks for the task; it is for a machine.image"))
	case m == nil:
		return nil, nil
	case m.Image != "" && img == nil, m.Image == "" && img != nil:
		return nil, kept.Invalid("machine.image", errors.New("the disk and its name do not belong together"))
	case m.Firmware == "uefi":
		return nil, kept.Unsupported("machine.firmware", errors.New("machines have a BIOS here; use firmware bios, or a machine.kernel"))
	case m.Firmware != "" && (img == nil || m.Kernel != ""):
		return nil, kept.Invalid("machine.firmware", errors.New("a kernel is booted without one; leave it out"))
	case img == nil:
		return nil, nil
	case m.Cmdline != "" && m.Kernel == "":
		return nil, kept.Unsupported("machine.cmdline", errors.New("the boot loader of the disk has its own; name a machine.kernel"))
	case m.Type == machine.MicroVM && m.Kernel == "":
		return nil, kept.Unsupported("machine.type", errors.New("a microvm boots no disk; use q35 or pc, or name a machine.kernel"))
	case s.Limits.Disk > 0 && s.Limits.Disk < img.Size:
		return nil, kept.Invalid("limits.disk", fmt.Errorf("%s: the machine's disk has %s", s.Limits.Disk, img.Size))
	}
	o := &own{image: img, metadata: c.Metadata}
	if err := o.alone(s); err != nil {
		return nil, err
	}
	if len(img.Machine) > 0 {
		if err := json.Unmarshal(img.Machine, &o.hardware); err != nil {
			return nil, kept.Invalid("machine.json", err)
		}
	}
	if err := o.hardware.permit(s); err != nil {
		return nil, err
	}
	if m.Kernel == "" && img.Format == "raw" && img.Layer == "" {
		return o, checkBoot(img.Disk)
	}
	return o, nil
}

// alone refuses what nobody can do in a machine without an agent.
func (o *own) alone(s *engine.Spec) error {
	if !o.metadata {
		return nil
	}
	inFile := func(secret engine.Secret) bool { return secret.As == caisson.SecretFile }
	for _, field := range []struct {
		name  string
		asked bool
	}{
		{"mounts", len(s.Mounts) > 0},
		{"user", s.User != ""},
		{"group", s.Group != ""},
		{"workdir", s.Workdir != "" && s.Workdir != caisson.WorkDir},
		{"hostname", s.Hostname != ""},
		{"dns", s.DNS != nil},
		{"network", s.Network.Mode != "" && s.Network.Mode != caisson.NetworkNone || len(s.Network.Attach) > 0},
		{"keep", s.Keep > 0},
		{"limits.pids", s.Limits.PIDs > 0},
		{"limits.files", s.Limits.Files > 0},
		{"secrets", slices.ContainsFunc(s.Secrets, inFile)},
	} {
		if field.asked {
			return kept.Unsupported(field.name, errors.New("a machine without an agent can't have it; leave it out, or options.metadata"))
		}
	}
	if g := s.Gateway; g != nil {
		if part := onlyProxies(g.Everything, g.For); part != "" {
			return kept.Unsupported(part, errors.New("a machine without an agent can have proxies alone, and none called engine; leave it out, or options.metadata"))
		}
	}
	return nil
}

// checkBoot refuses a disk whose first sector no BIOS would start, so that nobody
// waits for it.
func checkBoot(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return safefs.Sorted(caisson.OpCreate, "machine.image", err)
	}
	defer f.Close()
	const sector = 512
	b := make([]byte, sector)
	if _, err := io.ReadFull(f, b); err != nil || !bytes.Equal(b[sector-2:], []byte{0x55, 0xaa}) {
		return kept.Invalid("machine.image", errors.New("it is no disk that boots: its first sector is no boot sector; name a machine.kernel to boot it with"))
	}
	return nil
}

// permit refuses by name what an image wants and no machine here has.
func (h *hardware) permit(s *engine.Spec) error {
	refuse := func(what string, value any) error {
		return kept.Unsupported("machine.json", fmt.Errorf("%s %v: machines here have none", what, value))
	}
	switch {
	case h.Sound != "" && h.Sound != "none":
		return refuse("sound", h.Sound)
	case h.VGAMemory != 0:
		return refuse("vgaMemory", h.VGAMemory)
	case h.GraphicsRAM != 0:
		return refuse("graphicsRam", h.GraphicsRAM)
	case h.GraphicsVRAM != 0:
		return refuse("graphicsVRam", h.GraphicsVRAM)
	case h.Chipset == machine.MicroVM && s.Machine.Type == "" && s.Machine.Kernel == "":
		return kept.Unsupported("machine.json", errors.New("chipset microvm boots no disk; name a machine.type or a machine.kernel"))
	}
	if n := h.processors(); s.Limits.CPUs == 0 && n > runtime.NumCPU() {
		return kept.Unsupported("machine.json", fmt.Errorf("it wants %d processors, and this host has %d; set limits.cpus", n, runtime.NumCPU()))
	}
	wants := caisson.Bytes(h.Memory) * caisson.MiB
	if has := hostMemory(); s.Limits.Memory == 0 && has > 0 && wants > has {
		return kept.Unsupported("machine.json", fmt.Errorf("it wants %s of memory, and this host has %s; set limits.memory", wants, has))
	}
	return nil
}

// hostMemory is what this host has, or 0 where it does not say.
func hostMemory() caisson.Bytes {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var kib int64
	_, _ = fmt.Sscanf(string(data), "MemTotal: %d kB", &kib)
	return caisson.Bytes(kib) * caisson.KiB / caisson.MiB * caisson.MiB
}

// processors is how many the image wants; 0: it does not say.
func (h *hardware) processors() int {
	if h.Threads == 0 && h.Cores == 0 && h.Sockets == 0 {
		return 0
	}
	return max(h.Threads, 1) * max(h.Cores, 1) * max(h.Sockets, 1)
}

// types are the types of machine to be tried, most wanted first: what the task says, or
// else the image, or else what boots a disk.
func (o *own) types(s *engine.Spec) []string {
	switch {
	case s.Machine.Type != "":
		return []string{s.Machine.Type}
	case strings.HasPrefix(o.Chipset, "pc-q35"):
		return []string{machine.Q35}
	case strings.HasPrefix(o.Chipset, "pc-i440fx"):
		return []string{machine.PC}
	case o.Chipset != "":
		return []string{o.Chipset}
	}
	return []string{machine.Q35, machine.PC}
}

// howOwn decides what kind of machine it is.
func (e *Engine) howOwn(ctx context.Context, how *making, s *engine.Spec) error {
	var why error
	for _, kind := range how.own.types(s) {
		t, err := e.tried(ctx, how.host, how.accel, kind)
		switch {
		case err != nil:
			return err
		case t.Missing == "":
			how.kind = kind
			return nil
		case why == nil:
			why = kept.Unsupported("machine.type", fmt.Errorf("%q: %s", kind, t.Missing))
		}
	}
	return why
}

// ownMachine is the machine, but for the disk that addOwnLayer adds.
func (set *setting) ownMachine(s *engine.Spec) *machine.Spec {
	o := set.own
	m := &machine.Spec{
		Type: set.kind, Accel: set.accel, CPUs: set.cpus(s), Memory: set.ownMemory(s), UUID: cmp.Or(o.UUID, uuid(s.ID)),
		QMP: machine.Descriptor(0), Agent: machine.Descriptor(1), Console: machine.Output("/dev/stderr"),
		Disks: []machine.Disk{{Name: ownDisk, Path: o.image.Disk, Format: o.image.Format, ReadOnly: true}},
	}
	if n := o.processors(); s.Limits.CPUs == 0 && n > 0 {
		m.CPUs = n
		m.Topology = machine.Topology{Sockets: max(o.Sockets, 1), Cores: max(o.Cores, 1), Threads: max(o.Threads, 1)}
	}
	if s.Machine.Kernel != "" {
		m.Kernel, m.Initrd, m.Cmdline = set.base.Kernel.Image, set.base.Initrd, append([]string{"quiet"}, ownCmdline(s)...)
	}
	if m.Type == machine.MicroVM {
		if m.Accel == machine.TCG {
			m.TSC = set.base.TSC
		}
		return m
	}
	if o.metadata {
		m.Network = &machine.Network{Open: true, Model: o.Network, MAC: o.MAC}
	}
	set.addScreen(s, m)
	if m.Screen {
		m.Graphics, m.Keyboard = o.Graphics, o.KeyboardLayout
	}
	for _, device := range []string{o.Keyboard, o.Mouse, o.Tablet} {
		if strings.HasPrefix(device, "usb-") {
			m.Inputs = append(m.Inputs, device)
		}
	}
	if m.USB = o.USB; m.USB == "" && len(m.Inputs) > 0 {
		m.USB = "qemu-xhci"
	}
	return m
}

// uuid is the machine's where its image does not say: another one in each sandbox.
// systemd makes a machine id of it where the image has none.
func uuid(id string) string {
	s := kept.MachineID("uuid of " + id)
	return strings.Join([]string{s[:8], s[8:12], s[12:16], s[16:20], s[20:]}, "-")
}

// ownCmdline is what the task adds to the kernel's command line, and which disk is
// the root, unless the task says that.
func ownCmdline(s *engine.Spec) []string {
	words := strings.Fields(s.Machine.Cmdline)
	if slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, rootWord) }) {
		return words
	}
	return append(words, rootWord+rootDisk)
}

// ownMemory is the machine's: as the task says, or the image, or the operator.
func (set *setting) ownMemory(s *engine.Spec) caisson.Bytes {
	switch {
	case s.Limits.Memory == 0 && set.own.Memory > 0:
		return caisson.Bytes(set.own.Memory) * caisson.MiB
	case s.Limits.Memory > 0 && set.own.metadata:
		// Nobody in it holds its programs to less.
		return s.Limits.Memory / caisson.MiB * caisson.MiB
	}
	return memory(set.programMemory(s))
}

// ownGuest says what is done in a system of its own.
func (set *setting) ownGuest(s *engine.Spec) guestSpec {
	g := guestSpec{
		Hostname: s.Hostname, User: s.User, Group: s.Group,
		Setup: guest.Setup{Files: s.Limits.Files},
	}
	if !set.opts.Root && !s.Root {
		g.Standard = &guest.Owner{UID: set.opts.UID, GID: set.opts.GID}
	}
	if s.Snapshot != "" {
		g.MachineID, g.NewKeys = kept.MachineID(s.ID), true
		if set.own.UUID == "" {
			g.UUID = uuid(s.ID)
		}
	}
	g.Setup.Caps = guest.DefaultCaps()
	if l := &s.Limits; l.CPUs > 0 || l.Memory > 0 || l.PIDs > 0 {
		g.Setup.Group = &isolate.Cgroup{Name: guestGroup, CPUs: l.CPUs, Memory: l.Memory, PIDs: l.PIDs}
	}
	if s.Gateway != nil {
		g.Gateway = &guestGateway{Sockets: kept.Sockets(s.Gateway), Everything: s.Gateway.Everything}
	}
	g.Files = set.ownFiles(s)
	return g
}

// ownFiles are those of the guest's that a system of its own needs to have changed:
// names are only added to where the task asks for something.
func (set *setting) ownFiles(s *engine.Spec) []guestFile {
	var list []guestFile
	for _, f := range set.files(s) {
		switch f.Path {
		case "/etc/hostname":
			if s.Hostname == "" {
				continue
			}
		case "/etc/hosts":
			if s.Gateway == nil && s.Hostname == "" {
				continue
			}
		case "/etc/resolv.conf":
			if s.DNS == nil && (s.Gateway == nil || s.Gateway.Resolver == "") {
				continue
			}
		case "/run":
			continue
		}
		list = append(list, f)
	}
	return list
}

// ownLayerFile is where the layer of a sandbox lies on the host.
func ownLayerFile(s *engine.Spec) string { return filepath.Join(s.MachineImage.Changes, "layer.qcow2") }

// addOwnLayer puts a layer over the disk, which nobody writes to. The layer is made
// later.
func (set *setting) addOwnLayer(s *engine.Spec, box *isolate.Spec, m *machine.Spec) {
	box.Mounts = append(box.Mounts, isolate.Mount{Type: isolate.Bind, Source: ownLayerFile(s), Target: ownLayer})
	base := m.Disks[0]
	base.Name = ""
	m.Disks[0] = machine.Disk{Name: ownDisk, Path: ownLayer, Format: "qcow2", Base: &base, Ephemeral: true}
}

// makeOwnLayer makes that layer: a copy of the image's, or an empty one. What a
// copy's header names is not followed.
func (set *setting) makeOwnLayer(s *engine.Spec, undo *cleanup.List) error {
	name := ownLayerFile(s)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	undo.Add(func() error { return os.Remove(name) })
	if there, copyErr := copied(s, f, ownDisk); there {
		err = copyErr
	} else if s.MachineImage.Layer != "" {
		err = copyFile(f, s.MachineImage.Layer)
	} else {
		err = qcow2.Create(f, &qcow2.Options{Size: s.MachineImage.Size})
	}
	if err != nil {
		return err
	}
	return set.give(f)
}

// copyFile copies what is mostly a small file.
func copyFile(to *os.File, name string) error {
	from, err := os.Open(name)
	if err != nil {
		return err
	}
	defer from.Close()
	_, err = io.Copy(to, from)
	return err
}

// addOwnShares adds the task's mounts. Folders of the host need a system whose
// kernel has 9p.
func (set *setting) addOwnShares(s *engine.Spec, bs *boxSpec, m *machine.Spec) {
	if set.own.metadata {
		// Whatever address the guest connects to is QEMU's network's own, and at one
		// somebody listens.
		bs.Meta, bs.Guest = true, guestSpec{}
		if s.Gateway != nil {
			bs.Guest.Gateway, bs.Proxies = &guestGateway{Sockets: kept.Sockets(s.Gateway)}, s.Gateway.Names
		}
		bs.Box.Sockets, bs.Box.Everything = []isolate.Socket{{IP: net.ParseIP(metaAddress).To4(), Port: metaPort}}, true
		return
	}
	if slices.ContainsFunc(s.Mounts, func(m engine.Mount) bool { return m.Type == engine.MountBind }) {
		bs.Box.Entries = append(bs.Box.Entries, isolate.Entry{Path: insideShares, Dir: true})
		m.Shares = append(m.Shares, machine.Share{Tag: shareTag, Path: insideShares})
		bs.Guest.Mounts = append(bs.Guest.Mounts, guest.Mount{
			Type: "9p", Source: shareTag, Target: ownShares, Options: shareOptions,
		})
	}
	secret := func(m *isolate.Mount) bool { return m.Target == secretsDir }
	asked := func(m *isolate.Mount) bool {
		return slices.ContainsFunc(s.Mounts, func(own engine.Mount) bool { return own.Target == m.Target })
	}
	for i, place := range set.mounts(s) {
		if !secret(&place) && !asked(&place) {
			continue
		}
		if place.Type == isolate.Bind {
			name := strconv.Itoa(i)
			inside := place
			inside.Target = path.Join(insideShares, name)
			bs.Box.Mounts = append(bs.Box.Mounts, inside)
			place.Source = path.Join(ownShares, name)
		}
		bs.Guest.Places = append(bs.Guest.Places, guestMount(&place))
	}
}
