package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/machine/early"
)

// maxCPUs and maxMemory bound what is asked of QEMU before it is.
const (
	maxCPUs   = 255
	maxMemory = caisson.Bytes(16 << 40)
	minMemory = caisson.Bytes(32 << 20)
	mebibyte  = caisson.Bytes(1 << 20)
)

// CodeCache is how much memory TCG may take for translated code, besides the
// guest's: whoever bounds QEMU's memory must count it. QEMU's own default is a
// gigabyte.
const CodeCache = caisson.Bytes(128 << 20)

// namePattern is for what becomes part of an option: nothing in it means anything
// to QEMU. A serial number has at most 20 letters.
var namePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,19}$`)

var uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

var macPattern = regexp.MustCompile(`^[0-9a-f]{2}(:[0-9a-f]{2}){5}$`)

// Args returns the command line that makes q the machine, without the program.
// The same spec gives the same line.
//
// Errors: ErrInvalid if the spec contradicts itself; ErrUnsupported if this QEMU
// does not have what it asks for.
func (q *QEMU) Args(s *Spec) ([]string, error) {
	b := &builder{q: q, s: s, suffix: "-pci", names: map[string]bool{}}
	if s.Type == MicroVM {
		b.suffix = "-device"
	}
	for _, part := range []func() error{
		b.general, b.processor, b.boot, b.channels, b.random, b.disks, b.shares, b.network, b.screen, b.inputs, b.filter,
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return b.args, nil
}

// A builder puts a command line together.
type builder struct {
	q      *QEMU
	s      *Spec
	suffix string          // of virtio devices: how the machine finds them
	names  map[string]bool // of disks and shares
	args   []string
}

func (b *builder) add(args ...string) { b.args = append(b.args, args...) }

// device adds a device that this QEMU must have.
func (b *builder) device(name, options string) error {
	if !b.q.devices[name] {
		return b.missing("device " + name)
	}
	b.add("-device", name+options)
	return nil
}

// virtio adds a device in the form that the machine finds.
func (b *builder) virtio(name, options string) error {
	return b.device("virtio-"+name+b.suffix, options)
}

func (b *builder) missing(what string) error {
	return &caisson.Error{Op: caisson.OpCreate, Item: "machine", Kind: caisson.ErrUnsupported, Err: fmt.Errorf("QEMU %s has no %s", b.q.Version, what)}
}

// invalid refuses a field of the spec.
func invalid(field, format string, args ...any) error {
	return &caisson.Error{Op: caisson.OpCreate, Item: "machine: " + field, Kind: caisson.ErrInvalid, Err: fmt.Errorf(format, args...)}
}

// general is the machine as such, with nothing that is not asked for.
func (b *builder) general() error {
	s := b.s
	if !slices.Contains([]string{MicroVM, Q35, PC}, s.Type) {
		return invalid("type", "%q is none of microvm, q35, pc", s.Type)
	}
	if b.q.Machines[s.Type] == "" {
		return b.missing("machine " + s.Type)
	}
	b.add("-nodefaults", "-no-user-config", "-no-reboot", "-machine", s.Type)
	if s.UUID != "" {
		if !uuidPattern.MatchString(s.UUID) {
			return invalid("uuid", "%q is none", s.UUID)
		}
		b.add("-uuid", s.UUID)
	}
	if s.Paused {
		b.add("-S")
	}
	if s.Incoming {
		b.add("-incoming", "defer")
	}
	return nil
}

// processor is the accelerator, with all that it can do, and memory.
func (b *builder) processor() error {
	s := b.s
	model := map[string]string{KVM: "host", TCG: "max"}[s.Accel]
	if model == "" {
		return invalid("accel", "%q is neither kvm nor tcg", s.Accel)
	}
	if !slices.Contains(b.q.Accels, s.Accel) {
		return b.missing("accelerator " + s.Accel)
	}
	if s.CPUs < 0 || s.CPUs > maxCPUs {
		return invalid("cpus", "%d is not from 1 to %d", s.CPUs, maxCPUs)
	}
	if s.Memory < minMemory || s.Memory > maxMemory || s.Memory%mebibyte != 0 {
		return invalid("memory", "%d bytes are no whole number of MiB from %d on", s.Memory, minMemory/mebibyte)
	}
	smp := strconv.Itoa(max(s.CPUs, 1))
	if t := s.Topology; t != (Topology{}) {
		if t.Sockets < 1 || t.Cores < 1 || t.Threads < 1 || t.Sockets*t.Cores*t.Threads != max(s.CPUs, 1) {
			return invalid("topology", "%d sockets of %d cores of %d threads are not %d processors", t.Sockets, t.Cores, t.Threads, s.CPUs)
		}
		smp += fmt.Sprintf(",sockets=%d,cores=%d,threads=%d", t.Sockets, t.Cores, t.Threads)
	}
	b.add("-accel", b.accel(), "-cpu", model, "-smp", smp, "-m", fmt.Sprintf("%dM", s.Memory/mebibyte))
	return nil
}

// accel is the accelerator with its options.
func (b *builder) accel() string {
	if b.s.Accel != TCG {
		return b.s.Accel
	}
	accel := fmt.Sprintf("%s,tb-size=%d", TCG, CodeCache/mebibyte)
	if b.s.CPUs > 1 && !b.q.AtLeast(8, 1) {
		// Until 8.1 QEMU could translate code that another processor was just changing,
		// and keep what it had seen. Linux changes its own while it runs: a guest then
		// executes a breakpoint for ever that is no longer there. In one thread only one
		// processor runs at a time.
		accel += ",thread=single"
	}
	return accel
}

// boot is the kernel with its parameters.
func (b *builder) boot() error {
	s := b.s
	if s.Kernel == "" {
		if s.Initrd != "" || len(s.Cmdline) > 0 {
			return invalid("kernel", "there is an initrd or a command line, and no kernel")
		}
		return nil
	}
	line, err := b.cmdline()
	if err != nil {
		return err
	}
	b.add("-kernel", s.Kernel)
	if s.Initrd != "" {
		b.add("-initrd", s.Initrd)
	}
	b.add("-append", line)
	return nil
}

// cmdline is the kernel's command line.
func (b *builder) cmdline() (string, error) {
	s := b.s
	// A kernel that panics ends the machine, as -no-reboot has it.
	words := []string{"panic=-1"}
	if s.Console.form != nowhere {
		words = append(words, "console=ttyS0")
	}
	if s.Type != MicroVM && s.Accel == TCG {
		// On a host that is busy the kernel finds fault with a timer that comes late,
		// and panics.
		words = append(words, "no_timer_check")
	}
	if s.Type == MicroVM {
		// It has no keyboard controller, which a kernel would reset it by.
		words = append(words, "reboot=t")
		if s.Accel == TCG {
			if s.TSC <= 0 {
				return "", invalid("tsc", "a microvm needs it with tcg")
			}
			words = append(words, fmt.Sprintf("tsc_early_khz=%d", s.TSC))
		}
	}
	for _, w := range s.Cmdline {
		if w == "" || strings.ContainsFunc(w, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return "", invalid("cmdline", "%q is no single parameter", w)
		}
		words = append(words, w)
	}
	line := strings.Join(words, " ")
	// What x86 kernels take.
	if len(line) > 2047 {
		return "", invalid("cmdline", "it is longer than 2047 bytes")
	}
	return line, nil
}

// channels are the connections to the outside.
func (b *builder) channels() error {
	s := b.s
	if err := b.chardev("qmp", s.QMP); err != nil {
		return err
	}
	b.add("-mon", "chardev=qmp,mode=control")
	if err := b.chardev("agent", s.Agent); err != nil {
		return err
	}
	// Port 0 is for consoles.
	if err := b.virtio("serial", ",max_ports=2"); err != nil {
		return err
	}
	if err := b.device("virtserialport", ",chardev=agent,nr=1,name="+early.AgentPort); err != nil {
		return err
	}
	if s.Console.form == nowhere {
		b.add("-serial", "none")
		return nil
	}
	if err := b.chardev("console", s.Console); err != nil {
		return err
	}
	b.add("-serial", "chardev:console")
	return nil
}

// chardev is one end of a connection.
func (b *builder) chardev(id string, c Channel) error {
	switch c.form {
	case descriptor:
		b.add("-chardev", fmt.Sprintf("socket,id=%s,fd=%d", id, c.fd))
	case listener:
		if len(c.path) > maxSocketPath {
			return invalid(id, "%q is longer than the %d bytes of a socket's path", c.path, maxSocketPath)
		}
		b.add("-chardev", fmt.Sprintf("socket,id=%s,server=on,wait=off,path=%s", id, escape(c.path)))
	case output:
		b.add("-chardev", fmt.Sprintf("file,id=%s,append=on,path=%s", id, escape(c.path)))
	default:
		return invalid(id, "it leads nowhere")
	}
	return nil
}

// maxSocketPath is the longest that a unix socket can have.
const maxSocketPath = 107

// escape makes a text a value in an option, where a comma would end it.
func escape(text string) string { return strings.ReplaceAll(text, ",", ",,") }

// random is the host's randomness, so that a guest has some when it boots.
func (b *builder) random() error {
	b.add("-object", "rng-random,id=random,filename=/dev/urandom")
	return b.virtio("rng", ",rng=random")
}

// name refuses what can't be part of an option, or is twice.
func (b *builder) name(field, name string) error {
	if !namePattern.MatchString(name) {
		return invalid(field, "%q can't be a name", name)
	}
	if b.names[name] {
		return invalid(field, "there are two called %q", name)
	}
	b.names[name] = true
	return nil
}

func (b *builder) disks() error {
	for i := range b.s.Disks {
		d := &b.s.Disks[i]
		if err := b.name("disk", d.Name); err != nil {
			return err
		}
		n, err := newNode(d)
		if err != nil {
			return err
		}
		n.Name = d.Name
		text, err := json.Marshal(n)
		if err != nil {
			return err
		}
		b.add("-blockdev", string(text))
		if err := b.virtio("blk", fmt.Sprintf(",drive=%s,serial=%s", d.Name, d.Name)); err != nil {
			return err
		}
	}
	return nil
}

// A node is a disk as QEMU has it: a format on top of a file.
type node struct {
	Driver   string   `json:"driver"`
	Name     string   `json:"node-name,omitempty"`
	ReadOnly bool     `json:"read-only"`
	Discard  string   `json:"discard"`
	Cache    *cache   `json:"cache,omitempty"`
	File     fileNode `json:"file"`
	// Backing is what a qcow2 lies over. That it is there, if only as null, keeps
	// QEMU from opening what the file names.
	Backing json.RawMessage `json:"backing,omitempty"`
}

type cache struct {
	NoFlush bool `json:"no-flush"`
}

type fileNode struct {
	Driver   string `json:"driver"`
	Filename string `json:"filename"`
	Locking  string `json:"locking"`
	ReadOnly bool   `json:"read-only"`
}

// newNode describes a disk with what is below it.
func newNode(d *Disk) (*node, error) {
	if d.Path == "" {
		return nil, invalid("disk "+d.Name, "it has no file")
	}
	n := &node{
		Driver: d.Format, ReadOnly: d.ReadOnly, Discard: "unmap",
		// Two machines that write to one file destroy it.
		File: fileNode{Driver: "file", Filename: d.Path, Locking: "on", ReadOnly: d.ReadOnly},
	}
	if d.ReadOnly {
		// Where a file system has no locks, there are none.
		n.File.Locking = "auto"
	}
	if d.Ephemeral {
		n.Cache = &cache{NoFlush: true}
	}
	switch {
	case d.Format == "raw" && d.Base == nil:
		return n, nil
	case d.Format != "qcow2":
		return nil, invalid("disk "+d.Name, "format %q is not raw, nor qcow2, which alone has a base", d.Format)
	case d.Base == nil:
		n.Backing = json.RawMessage("null")
		return n, nil
	case d.Base.Base != nil:
		return nil, invalid("disk "+d.Name, "its base has a base")
	}
	base := *d.Base
	base.ReadOnly = true
	below, err := newNode(&base)
	if err != nil {
		return nil, err
	}
	n.Backing, err = json.Marshal(below)
	return n, err
}

func (b *builder) shares() error {
	for _, s := range b.s.Shares {
		if err := b.name("share", s.Tag); err != nil {
			return err
		}
		if !b.q.has("fsdev", "path", "readonly", "multidevs") {
			return b.missing("shared folders")
		}
		ro := "off"
		if s.ReadOnly {
			ro = "on"
		}
		// The guest's idea of owners stays in the guest: QEMU can't change any.
		b.add("-fsdev", fmt.Sprintf("local,id=%s,security_model=none,multidevs=remap,readonly=%s,path=%s", s.Tag, ro, escape(s.Path)))
		if err := b.virtio("9p", fmt.Sprintf(",fsdev=%s,mount_tag=%s", s.Tag, s.Tag)); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) network() error {
	n := b.s.Network
	if n == nil {
		return b.taps()
	}
	restrict, mac := "on", ""
	if n.Open {
		restrict = "off"
	}
	if n.MAC != "" {
		if !macPattern.MatchString(n.MAC) {
			return invalid("mac", "%q is no address", n.MAC)
		}
		mac = ",mac=" + n.MAC
	}
	if n.FD != 0 {
		if n.FD < 3 || n.Open || len(n.Forwards) > 0 || len(b.s.Taps) > 0 {
			return invalid("network", "descriptor %d: nobody can make such a network", n.FD)
		}
		b.add("-netdev", fmt.Sprintf("socket,id=network,fd=%d", n.FD))
		return b.card(n.Model, ",netdev=network"+mac)
	}
	ports := ""
	for _, f := range n.Forwards {
		if f.Protocol != "tcp" && f.Protocol != "udp" || f.Port < 1 || f.Port > maxPort {
			return invalid("network", "%s port %d is none", f.Protocol, f.Port)
		}
		ports += fmt.Sprintf(",hostfwd=%s::%d-:%d", f.Protocol, f.Port, f.Port)
	}
	b.add("-netdev", "user,id=network,ipv6=off,restrict="+restrict+ports)
	if err := b.card(n.Model, ",netdev=network"+mac); err != nil {
		return err
	}
	return b.taps()
}

// card adds a network card.
func (b *builder) card(model, options string) error {
	switch model {
	case "", "virtio-net-pci":
		return b.virtio("net", options)
	case "e1000", "rtl8139":
		// Nothing is loaded into it to boot from.
		return b.device(model, options+",romfile=")
	}
	return invalid("network", "%q is no card", model)
}

// maxPort is the last port.
const maxPort = 65535

// taps are cards whose frames pass through descriptors.
func (b *builder) taps() error {
	for i := range b.s.Taps {
		t := &b.s.Taps[i]
		if !macPattern.MatchString(t.MAC) || t.FD < 3 {
			return invalid("taps", "%q, descriptor %d: there is no such card", t.MAC, t.FD)
		}
		b.add("-netdev", fmt.Sprintf("tap,id=tap%d,fd=%d", i, t.FD))
		if err := b.card(t.Model, fmt.Sprintf(",netdev=tap%d,mac=%s", i, t.MAC)); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) screen() error {
	if !b.s.Screen {
		b.add("-display", "none")
		return nil
	}
	if b.s.Type == MicroVM {
		return &caisson.Error{Op: caisson.OpCreate, Item: "machine", Kind: caisson.ErrUnsupported, Err: errors.New("a microvm has no screen")}
	}
	if !b.q.has("vnc") {
		return b.missing("VNC server")
	}
	// It does not listen.
	b.add("-display", "vnc=none,share=force-shared")
	size := ""
	if b.s.ScreenWidth > 0 && b.s.ScreenHeight > 0 {
		size = fmt.Sprintf(",xres=%d,yres=%d", b.s.ScreenWidth, b.s.ScreenHeight)
	}
	if b.s.Keyboard != "" {
		if !wordPattern.MatchString(b.s.Keyboard) {
			return invalid("keyboard", "%q is no layout", b.s.Keyboard)
		}
		b.add("-k", b.s.Keyboard)
	}
	if g := b.s.Graphics; g != "" && g != "VGA" {
		if !slices.Contains(graphics, g) {
			return invalid("graphics", "%q is none of %s", g, strings.Join(graphics, ", "))
		}
		return b.device(g, "")
	}
	return b.device("VGA", size)
}

// What a screen and its viewers can have, by QEMU's names.
var (
	graphics    = []string{"VGA", "vmware-svga", "qxl-vga", "virtio-vga"}
	controllers = []string{"piix3-usb-uhci", "piix4-usb-uhci", "nec-usb-xhci", "qemu-xhci"}
	inputs      = []string{"usb-kbd", "usb-mouse", "usb-tablet"}
	wordPattern = regexp.MustCompile(`^[a-z]{2}(-[a-z]{2})?$`)
)

// inputs are what is at the USB controller.
func (b *builder) inputs() error {
	s := b.s
	if s.USB == "" && len(s.Inputs) == 0 {
		return nil
	}
	if !slices.Contains(controllers, s.USB) {
		return invalid("usb", "%q is none of %s", s.USB, strings.Join(controllers, ", "))
	}
	if err := b.device(s.USB, ",id=usb"); err != nil {
		return err
	}
	for _, name := range s.Inputs {
		if !slices.Contains(inputs, name) {
			return invalid("inputs", "%q is none of %s", name, strings.Join(inputs, ", "))
		}
		if err := b.device(name, ",bus=usb.0"); err != nil {
			return err
		}
	}
	return nil
}

// filter is what QEMU forbids itself.
func (b *builder) filter() error {
	if b.s.Unconfined {
		return nil
	}
	if !b.q.has("sandbox", "obsolete", "elevateprivileges", "spawn", "resourcecontrol") {
		return b.missing("system call filter")
	}
	b.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
	return nil
}
