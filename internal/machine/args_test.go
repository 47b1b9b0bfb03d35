package machine

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/machine/qmp"
)

var update = flag.Bool("update", false, "write the golden files again")

// whole is a QEMU with everything that a spec can ask for.
func whole() *QEMU {
	q := &QEMU{
		Path: "/usr/bin/qemu", Version: qmp.Version{Major: 7, Minor: 2}, Arch: "amd64", Accels: []string{KVM, TCG},
		Machines: map[string]string{MicroVM: MicroVM, Q35: "pc-q35-7.2", PC: "pc-i440fx-7.2"},
		devices: map[string]bool{
			"virtserialport": true, "VGA": true, "vmware-svga": true, "qemu-xhci": true, "e1000": true, "usb-kbd": true, "usb-tablet": true,
		},
		options: map[string][]string{
			"sandbox": {"enable", "obsolete", "elevateprivileges", "spawn", "resourcecontrol"},
			"fsdev":   {"path", "readonly", "multidevs"}, "vnc": {},
		},
	}
	for _, name := range []string{"serial", "rng", "blk", "net", "9p"} {
		q.devices["virtio-"+name+"-pci"], q.devices["virtio-"+name+"-device"] = true, true
	}
	return q
}

// small is the least that a machine needs.
func small() *Spec {
	return &Spec{
		Type: Q35, Accel: TCG, Memory: 256 << 20, Kernel: "/boot/vmlinuz", Initrd: "/run/initrd",
		QMP: Descriptor(0), Agent: Descriptor(1),
	}
}

// specs are machines, by the name of their golden file. File names in them are
// relative to the folder that they are tried in.
func specs() map[string]*Spec {
	micro := small()
	micro.Type, micro.TSC, micro.Cmdline = MicroVM, 2_100_000, []string{"quiet", "loglevel=3"}
	kvm := small()
	kvm.Type, kvm.Accel, kvm.CPUs, kvm.Console = MicroVM, KVM, 2, Output("/dev/stderr")
	full := small()
	full.CPUs, full.Memory, full.UUID, full.Paused, full.Screen = 4, 1<<30, "5b1f6e8c-0a2d-4c3e-9f10-112233445566", true, true
	full.QMP, full.Agent, full.Console = Listener("/run/a,b/qmp"), Listener("/run/agent"), Listener("/run/console")
	full.Network = &Network{MAC: "52:54:00:12:34:56"}
	full.Shares = []Share{{Tag: "work", Path: "/srv/a,b"}, {Tag: "ro", Path: "/srv/ro", ReadOnly: true}}
	full.Disks = []Disk{
		{Name: "root", Path: "/img/root.squashfs", Format: "raw", ReadOnly: true},
		{Name: "layer", Path: "/run/layer.qcow2", Format: "qcow2", Ephemeral: true, Base: &Disk{Path: "/img/a,\"b\".img", Format: "raw"}},
		{Name: "own", Path: "/run/own.qcow2", Format: "qcow2"},
	}
	disk := small()
	disk.Type, disk.Kernel, disk.Initrd, disk.Incoming, disk.Unconfined = PC, "", "", true, true
	disk.Network = &Network{Open: true, Model: "e1000", Forwards: []Forward{{"tcp", 80}, {"udp", 53}}}
	disk.Disks = []Disk{{Name: "disk0", Path: "/img/disk.img", Format: "raw"}}
	chosen := small()
	chosen.CPUs, chosen.Topology, chosen.Screen, chosen.Graphics, chosen.Keyboard = 4, Topology{Sockets: 1, Cores: 2, Threads: 2}, true, "vmware-svga", "de-ch"
	chosen.USB, chosen.Inputs = "qemu-xhci", []string{"usb-kbd", "usb-tablet"}
	taps := small()
	taps.Taps = []Tap{{MAC: "52:54:00:12:34:57", FD: 3}, {MAC: "52:54:00:12:34:58", FD: 4, Model: "e1000"}}
	return map[string]*Spec{"small": small(), "taps": taps, "chosen": chosen, "microvm": micro, "microvm-kvm": kvm, "full": full, "disk": disk}
}

func TestArgs(t *testing.T) {
	for name, s := range specs() {
		t.Run(name, func(t *testing.T) {
			args, err := whole().Args(s)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(args, "\n") + "\n"
			file := filepath.Join("testdata", "args", name+".txt")
			if *update {
				put(t, file, []byte(got))
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("Args(), -want +got (-update writes it again):\n%s", diff)
			}
		})
	}
}

// TestArgsThreads holds that processors that are emulated have threads of their own
// only where QEMU can do that.
func TestArgsThreads(t *testing.T) {
	for _, test := range []struct {
		accel        string
		cpus         int
		major, minor int
		single       bool
	}{
		{TCG, 2, 5, 2, true},
		{TCG, 2, 8, 0, true},
		{TCG, 2, 8, 1, false},
		{TCG, 2, 10, 0, false},
		{TCG, 1, 7, 2, false},
		{TCG, 0, 7, 2, false},
		{KVM, 2, 7, 2, false},
	} {
		s, q := small(), whole()
		s.Accel, s.CPUs, q.Version = test.accel, test.cpus, qmp.Version{Major: test.major, Minor: test.minor}
		args, err := q.Args(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(strings.Join(args, " "), "thread=single"); got != test.single {
			t.Errorf("%d processors by %s of version %s: one thread for all is %v, want %v", test.cpus, test.accel, q.Version, got, test.single)
		}
	}
}

func TestArgsRefuses(t *testing.T) {
	tests := []struct {
		name string
		with func(s *Spec, q *QEMU)
		kind caisson.Kind
		err  string
	}{
		{"Type", func(s *Spec, _ *QEMU) { s.Type = "isapc" }, caisson.ErrInvalid, "type"},
		{"NoType", func(_ *Spec, q *QEMU) { delete(q.Machines, Q35) }, caisson.ErrUnsupported, "no machine q35"},
		{"Accel", func(s *Spec, _ *QEMU) { s.Accel = "" }, caisson.ErrInvalid, "accel"},
		{"NoAccel", func(_ *Spec, q *QEMU) { q.Accels = nil }, caisson.ErrUnsupported, "no accelerator tcg"},
		{"NoMemory", func(s *Spec, _ *QEMU) { s.Memory = 0 }, caisson.ErrInvalid, "memory"},
		{"OddMemory", func(s *Spec, _ *QEMU) { s.Memory++ }, caisson.ErrInvalid, "memory"},
		{"CPUs", func(s *Spec, _ *QEMU) { s.CPUs = 1000 }, caisson.ErrInvalid, "cpus"},
		{"Topology", func(s *Spec, _ *QEMU) { s.CPUs, s.Topology = 4, Topology{Sockets: 1, Cores: 3, Threads: 1} }, caisson.ErrInvalid, "topology"},
		{"Graphics", func(s *Spec, _ *QEMU) { s.Screen, s.Graphics = true, "cirrus-vga,x=y" }, caisson.ErrInvalid, "graphics"},
		{"Keyboard", func(s *Spec, _ *QEMU) { s.Screen, s.Keyboard = true, "../x" }, caisson.ErrInvalid, "keyboard"},
		{"USB", func(s *Spec, _ *QEMU) { s.Inputs = []string{"usb-kbd"} }, caisson.ErrInvalid, "usb"},
		{"Input", func(s *Spec, _ *QEMU) { s.USB, s.Inputs = "qemu-xhci", []string{"usb-host"} }, caisson.ErrInvalid, "inputs"},
		{"NoDevice", func(s *Spec, _ *QEMU) { s.USB = "piix4-usb-uhci" }, caisson.ErrUnsupported, "piix4-usb-uhci"},
		{"Card", func(s *Spec, _ *QEMU) { s.Network = &Network{Model: "ne2k,x=y"} }, caisson.ErrInvalid, "network"},
		{"UUID", func(s *Spec, _ *QEMU) { s.UUID = "x,y" }, caisson.ErrInvalid, "uuid"},
		{"NoKernel", func(s *Spec, _ *QEMU) { s.Kernel = "" }, caisson.ErrInvalid, "no kernel"},
		{"TSC", func(s *Spec, _ *QEMU) { s.Type = MicroVM }, caisson.ErrInvalid, "tsc"},
		{"TwoWords", func(s *Spec, _ *QEMU) { s.Cmdline = []string{"a b"} }, caisson.ErrInvalid, "no single parameter"},
		{"LongLine", func(s *Spec, _ *QEMU) { s.Cmdline = []string{strings.Repeat("x", 2048)} }, caisson.ErrInvalid, "longer"},
		{"NoQMP", func(s *Spec, _ *QEMU) { s.QMP = Channel{} }, caisson.ErrInvalid, "qmp"},
		{"NoAgent", func(s *Spec, _ *QEMU) { s.Agent = Channel{} }, caisson.ErrInvalid, "agent"},
		{"LongSocket", func(s *Spec, _ *QEMU) { s.QMP = Listener("/" + strings.Repeat("x", 107)) }, caisson.ErrInvalid, "longer"},
		{"NoSerial", func(_ *Spec, q *QEMU) { delete(q.devices, "virtio-serial-pci") }, caisson.ErrUnsupported, "virtio-serial-pci"},
		{"DiskName", func(s *Spec, _ *QEMU) { s.Disks = []Disk{{Name: "a,b", Path: "/x", Format: "raw"}} }, caisson.ErrInvalid, "can't be a name"},
		{"DiskPath", func(s *Spec, _ *QEMU) { s.Disks = []Disk{{Name: "a", Format: "raw"}} }, caisson.ErrInvalid, "no file"},
		{"DiskFormat", func(s *Spec, _ *QEMU) { s.Disks = []Disk{{Name: "a", Path: "/x", Format: "vmdk"}} }, caisson.ErrInvalid, "format"},
		{"RawWithBase", func(s *Spec, _ *QEMU) {
			s.Disks = []Disk{{Name: "a", Path: "/x", Format: "raw", Base: &Disk{Path: "/y", Format: "raw"}}}
		}, caisson.ErrInvalid, "format"},
		{"Chain", func(s *Spec, _ *QEMU) {
			s.Disks = []Disk{{Name: "a", Path: "/x", Format: "qcow2", Base: &Disk{Path: "/y", Format: "qcow2", Base: &Disk{Path: "/z", Format: "raw"}}}}
		}, caisson.ErrInvalid, "its base has a base"},
		{"TwoOfAName", func(s *Spec, _ *QEMU) {
			s.Disks = []Disk{{Name: "a", Path: "/x", Format: "raw"}}
			s.Shares = []Share{{Tag: "a", Path: "/y"}}
		}, caisson.ErrInvalid, "two called"},
		{"NoShares", func(s *Spec, q *QEMU) {
			delete(q.options, "fsdev")
			s.Shares = []Share{{Tag: "a", Path: "/y"}}
		}, caisson.ErrUnsupported, "shared folders"},
		{"Tap", func(s *Spec, _ *QEMU) { s.Taps = []Tap{{MAC: "1,2", FD: 3}} }, caisson.ErrInvalid, "taps"},
		{"TapStdio", func(s *Spec, _ *QEMU) { s.Taps = []Tap{{MAC: "52:54:00:12:34:56", FD: 2}} }, caisson.ErrInvalid, "taps"},
		{"Forward", func(s *Spec, _ *QEMU) { s.Network = &Network{Forwards: []Forward{{"tcp", 0}}} }, caisson.ErrInvalid, "network"},
		{"MAC", func(s *Spec, _ *QEMU) { s.Network = &Network{MAC: "1,2"} }, caisson.ErrInvalid, "mac"},
		{"ScreenOfMicroVM", func(s *Spec, _ *QEMU) { s.Type, s.TSC, s.Screen = MicroVM, 1, true }, caisson.ErrUnsupported, "no screen"},
		{"NoFilter", func(_ *Spec, q *QEMU) { delete(q.options, "sandbox") }, caisson.ErrUnsupported, "system call filter"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, q := small(), whole()
			tt.with(s, q)
			args, err := q.Args(s)
			if args != nil || !errors.Is(err, tt.kind) || !matches(err, tt.err) {
				t.Errorf("Args() = %q, %v, want %v: %q", args, err, tt.kind, tt.err)
			}
		})
	}
}
