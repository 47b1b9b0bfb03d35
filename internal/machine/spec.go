package machine

import (
	"github.com/caissonrun/caisson"
)

// The types of machine.
const (
	// MicroVM has next to nothing but virtio devices, and boots first.
	MicroVM = "microvm"
	// Q35 and PC are a computer with PCI Express, and one with PCI. They can have a
	// screen.
	Q35 = "q35"
	PC  = "pc"
)

// The accelerators.
const (
	KVM = "kvm"
	// TCG emulates the processor: slow, and it needs nothing of the host.
	TCG = "tcg"
)

// A Spec says what machine QEMU is to be. The zero value of a field means "none".
type Spec struct {
	Type  string // MicroVM, Q35 or PC
	Accel string // KVM or TCG
	CPUs  int    // 0: 1
	// Topology says how CPUs come about; zero: it is QEMU's choice.
	Topology Topology
	Memory   caisson.Bytes // a whole number of MiB
	// UUID is what the guest sees as the machine's, in the usual form.
	UUID string

	// Kernel and Initrd are files. Cmdline is added to what the machine needs, one
	// parameter each. Without a Kernel the machine boots from its first disk.
	Kernel  string
	Initrd  string
	Cmdline []string
	// TSC is how often in a millisecond the host's time stamp counter counts, as
	// of TSCKHz. A microvm needs it under TCG: it has none of the clocks that a
	// kernel would measure the counter by.
	TSC int64

	Disks  []Disk
	Shares []Share
	// Network is a card in a network of QEMU's own making. Nil: there is none.
	Network *Network
	// Taps are cards on TAP devices.
	Taps []Tap
	// Screen adds a screen. Viewers are handed over by qmp.Client.AddVNC; nothing
	// listens.
	Screen bool
	// ScreenWidth and ScreenHeight, in pixels, are what the screen says that it
	// prefers: which size it has is the guest's choice. Zero: the device's own.
	ScreenWidth, ScreenHeight int
	// Graphics is the device that makes the screen. Empty: VGA.
	Graphics string
	// Keyboard is the layout that viewers of the screen type in, such as de. Empty:
	// QEMU's own.
	Keyboard string
	// USB is the controller that Inputs are at, usb-kbd and such. Empty: there are
	// none, and what the machine has of PS/2 is used.
	USB    string
	Inputs []string

	// QMP is where QEMU is talked to, Agent what the guest's port leads to. Both
	// are needed. Console takes what the guest prints.
	QMP     Channel
	Agent   Channel
	Console Channel

	// Paused has the processors wait for qmp.Client.Continue.
	Paused bool
	// Incoming has the machine wait for qmp.Client.Incoming in place of booting.
	Incoming bool
	// Unconfined leaves out QEMU's own system call filter, which forbids it to
	// start programs and to change its user. Some are built without it.
	Unconfined bool
}

// A Topology is how many of what make up all processors.
type Topology struct {
	Sockets int // of the machine
	Cores   int // of a socket
	Threads int // of a core
}

// A Disk is a block device.
type Disk struct {
	// Name is what it is called in QEMU, and its serial number in the guest: small
	// letters, digits and dashes, beginning with a letter.
	Name string
	Path string
	// Format is raw or qcow2. A qcow2's own idea of what lies below it is not
	// followed: it is Base, or nothing.
	Format   string
	ReadOnly bool
	// Base is what lies below a qcow2, read only; its Name may be empty.
	Base *Disk
	// Ephemeral says that nobody needs its contents after QEMU: what the guest
	// wants to be durable is not waited for.
	Ephemeral bool
}

// A Share is a folder of the host that the guest mounts by 9p.
type Share struct {
	Tag      string // by which the guest mounts it; formed as Disk.Name
	Path     string
	ReadOnly bool
}

// A Network is one that QEMU makes, with the host at its other end: DHCP, and
// connections of the guest's made by QEMU itself.
type Network struct {
	// Open lets the guest reach whatever QEMU can. Otherwise there is nothing but
	// the network itself.
	Open bool
	// Model is the card. Empty: virtio-net-pci.
	Model string
	// MAC is the card's address. Empty: QEMU's choice, the same in each machine.
	MAC string
	// Forwards are ports at which QEMU listens, on all addresses, for the guest.
	Forwards []Forward
	// FD is a descriptor that QEMU is started with, as those of Taps: a connection
	// (Pair) to whoever makes the network in QEMU's place, to which frames go with
	// their length before them. Zero: QEMU makes the network. Open and Forwards are
	// then no business of QEMU's.
	FD int
}

// A Forward passes what arrives at a port to the same port of the guest.
type Forward struct {
	Protocol string // tcp or udp
	Port     int
}

// A Tap is a card whose frames pass through a TAP device, which QEMU is started
// with as one of its descriptors.
type Tap struct {
	MAC   string // the card's address
	Model string // as Network.Model
	FD    int
}

// A Channel is where QEMU's end of a connection leads to. Its zero value is
// nowhere.
type Channel struct {
	form channelForm
	path string
	fd   int
}

type channelForm int

const (
	nowhere channelForm = iota
	descriptor
	listener
	output
)

// Descriptor is a connection that QEMU is started with: see Pair.
func Descriptor(fd int) Channel { return Channel{form: descriptor, fd: fd} }

// Listener is a unix socket that QEMU makes and listens at, for one connection
// at a time.
func Listener(path string) Channel { return Channel{form: listener, path: path} }

// Output is a file, such as /dev/stderr, to which QEMU appends.
func Output(path string) Channel { return Channel{form: output, path: path} }
