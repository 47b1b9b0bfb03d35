//go:build unix

package qemu

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/keeper"
)

// wholeQEMU has everything, as it would be read from a cache.
const wholeQEMU = `{"path": "/usr/bin/env", "version": {"Major": 7, "Minor": 2}, "arch": "amd64",
	"machines": {"q35": "pc-q35-7.2", "pc": "pc-i440fx-7.2", "microvm": "microvm"}, "accels": ["kvm", "tcg"],
	"devices": ["virtio-serial-pci", "virtserialport", "virtio-rng-pci", "virtio-blk-pci", "virtio-9p-pci", "virtio-net-pci", "VGA"],
	"options": {"sandbox": ["obsolete", "elevateprivileges", "spawn", "resourcecontrol"], "fsdev": ["path", "readonly", "multidevs"], "vnc": ["id"]}}`

// testSetting is a setting of a sandbox that root makes, and a spec for it.
func testSetting(t *testing.T) (*setting, *engine.Spec) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kernel", "initrd", "disk"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := &base{Of: strings.Repeat("0", 64), Kernel: &machine.Kernel{Image: filepath.Join(dir, "kernel")}, Initrd: filepath.Join(dir, "initrd")}
	if err := json.Unmarshal([]byte(wholeQEMU), &b.QEMU); err != nil {
		t.Fatal(err)
	}
	opts := testOptions(t)
	set := &setting{
		opts: &opts, choice: &choice{}, base: b, accel: machine.TCG, kind: machine.Q35, root: true, slot: 1, kvmGroup: -1,
		run: "/run", group: "group", cgroup: true, user: kept.Person{User: isolate.User{UID: 7, GID: 8}},
	}
	return set, &engine.Spec{
		ID: "id", Dir: dir, Log: filepath.Join(dir, "log"), Args: []string{"true"}, Work: "/host/work", Tmp: "/host/tmp",
		WorkOwner: engine.Owner{UID: 1000, GID: 1000},
		RootFS:    &engine.RootFS{Path: dir, Disk: filepath.Join(dir, "disk"), Changes: dir},
	}
}

// testOptions are those of an engine that nothing is known of.
func testOptions(t *testing.T) Options {
	t.Helper()
	e, err := New(&Options{Runtime: "/run", Cache: filepath.Join(t.TempDir(), "cache"), Keeper: keeper.Command{"keeper"}})
	if err != nil {
		t.Fatal(err)
	}
	return e.opts
}

func TestNewErr(t *testing.T) {
	good := Options{Runtime: "/run", Cache: "/cache", Keeper: keeper.Command{"keeper"}}
	for name, change := range map[string]func(*Options){
		"program":  func(o *Options) { o.Program = "bin/qemu" },
		"kernel":   func(o *Options) { o.Kernel = "vmlinuz" },
		"both":     func(o *Options) { o.Kernel, o.KernelRoot = "/vmlinuz", "/root" },
		"modules":  func(o *Options) { o.Modules = "/lib/modules/6.1" },
		"kernels":  func(o *Options) { o.Kernels = map[string]Kernel{"x": {}} },
		"accel":    func(o *Options) { o.Accels = []string{"hvf"} },
		"type":     func(o *Options) { o.Types = []string{"virt"} },
		"cpus":     func(o *Options) { o.CPUs = -1 },
		"memory":   func(o *Options) { o.Memory = caisson.MiB },
		"disk":     func(o *Options) { o.Disk = caisson.KiB },
		"uid":      func(o *Options) { o.UID = 1 << 20 },
		"id_base":  func(o *Options) { o.IDBase = 1000 },
		"id_count": func(o *Options) { o.IDCount = 1 },
		"cache":    func(o *Options) { o.Cache = "cache" },
		"keeper":   func(o *Options) { o.Keeper = nil },
	} {
		opts := good
		change(&opts)
		if _, err := New(&opts); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("New() with a wrong %s = %v, want ErrInvalid", name, err)
		}
	}
}

// TestPlanPlaces holds where folders of the host and in memory come to be: a bind is
// a mount below the shared folder, with the owner and the rights that it has there.
func TestPlanPlaces(t *testing.T) {
	set, s := testSetting(t)
	s.Mounts = []engine.Mount{
		{Type: engine.MountBind, Source: "/host/data", Target: "/data", ReadOnly: true},
		{Type: engine.MountTmpfs, Target: "/fast", Size: caisson.MiB, Mode: 0o700},
	}
	s.Secrets = []engine.Secret{
		{Name: "FILE", Value: []byte("1"), As: caisson.SecretFile}, {Name: "ONCE", Value: []byte("2"), As: caisson.SecretFile, Once: true},
	}
	bs, err := set.boxSpec(s)
	if err != nil {
		t.Fatal(err)
	}
	var shared []isolate.Mount
	for _, m := range bs.Box.Mounts {
		if strings.HasPrefix(m.Target, insideShares+"/") {
			shared = append(shared, m)
		}
	}
	want := []isolate.Mount{
		{Type: isolate.Bind, Source: "/host/work", Target: "/shares/0", Owner: &isolate.User{UID: 1000, GID: 1000}},
		{Type: isolate.Bind, Source: "/host/data", Target: "/shares/1", ReadOnly: true},
	}
	if diff := cmp.Diff(want, shared); diff != "" {
		t.Errorf("shared, -want +got:\n%s", diff)
	}
	places := []guest.Mount{
		{Source: "/shares/0", Target: "/work", Flags: []string{"bind", "nosuid", "nodev"}},
		{Source: "/shares/1", Target: "/data", Flags: []string{"bind", "nosuid", "nodev", "ro"}},
		{Type: "tmpfs", Source: "tmpfs", Target: "/fast", Flags: []string{"nosuid", "nodev"}, Options: "mode=700,size=1048576"},
		{Type: "tmpfs", Source: "tmpfs", Target: "/run/secrets", Flags: []string{"nosuid", "nodev"}, Options: "mode=755"},
	}
	if diff := cmp.Diff(places, bs.Guest.Places); diff != "" {
		t.Errorf("places, -want +got:\n%s", diff)
	}
	if !slices.ContainsFunc(bs.Guest.Files, func(f guestFile) bool { return f.Path == "/tmp" && f.Dir && f.Mode == 0o1777 }) {
		t.Errorf("files = %+v, want a folder /tmp", bs.Guest.Files)
	}
	if !slices.ContainsFunc(bs.Guest.Files, func(f guestFile) bool { return f.Path == "/run/secrets/ONCE" && f.Once && f.Own }) {
		t.Errorf("files = %+v, want a secret that can be read once", bs.Guest.Files)
	}
	k, err := plan(s, set)
	if err != nil || len(k.Once) != 0 || len(k.Redact) != 2 {
		t.Errorf("plan() = %v, %v and %d, want secrets that are redacted, and none that the keeper makes", err, k.Once, len(k.Redact))
	}
}

// TestPlanNotShared holds that nothing of the host is mounted where nothing is
// shared, so that the machine can be saved, while its devices are the same.
func TestPlanNotShared(t *testing.T) {
	set, s := testSetting(t)
	s.Work, s.Tmp = "", ""
	bs, err := set.boxSpec(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range bs.Guest.Mounts {
		if m.Type == "9p" {
			t.Errorf("the guest mounts %+v", m)
		}
	}
	if !slices.ContainsFunc(bs.QEMU.Args, func(a string) bool { return strings.HasPrefix(a, "virtio-9p-pci,") }) {
		t.Errorf("QEMU's arguments %q have no shared folder", bs.QEMU.Args)
	}
	if !slices.ContainsFunc(bs.Guest.Files, func(f guestFile) bool { return f.Path == "/work" && f.Dir && f.Own }) {
		t.Errorf("files = %+v, want a work folder", bs.Guest.Files)
	}
	set.base.Missing = []string{"9p"}
	if bs, err = set.boxSpec(s); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(bs.QEMU.Args, func(a string) bool { return strings.Contains(a, "9p") }) {
		t.Errorf("QEMU's arguments %q have a shared folder that the kernel can't mount", bs.QEMU.Args)
	}
}

// TestPlanIDs holds who QEMU is: on the host somebody of the sandbox's own, or the
// caller; inside whoever the guest's program is.
func TestPlanIDs(t *testing.T) {
	set, s := testSetting(t)
	first := set.opts.ids().First(set.slot)
	bs, err := set.boxSpec(s)
	if err != nil {
		t.Fatal(err)
	}
	uids := []isolate.IDMap{{Inside: 0, Host: first, Size: 1}, {Inside: 7, Host: first + 1, Size: 1}}
	if diff := cmp.Diff(uids, bs.Box.UIDs); diff != "" || bs.Box.User.UID != 7 || bs.Box.User.GID != 8 {
		t.Errorf("user %+v, ids -want +got:\n%s", bs.Box.User, diff)
	}

	set.accel, set.kvmGroup = machine.KVM, 108
	if bs, err = set.boxSpec(s); err != nil {
		t.Fatal(err)
	}
	group := isolate.IDMap{Inside: kept.MaxAccount + 1, Host: 108, Size: 1}
	if !slices.Contains(bs.Box.GIDs, group) || !slices.Equal(bs.Box.User.Groups, []int{group.Inside}) {
		t.Errorf("groups %+v of %+v, want that of /dev/kvm", bs.Box.GIDs, bs.Box.User)
	}

	set.root, set.uid, set.gid, set.kvmGroup = false, 501, 502, -1
	if bs, err = set.boxSpec(s); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]isolate.IDMap{{Inside: 7, Host: 501, Size: 1}}, bs.Box.UIDs); diff != "" {
		t.Errorf("without root, ids -want +got:\n%s", diff)
	}
}

// TestPlanLimits holds that limits are held in the guest, and by the machine and
// its group on the host, which have room for what is not the programs'.
func TestPlanLimits(t *testing.T) {
	set, s := testSetting(t)
	s.Limits = caisson.Limits{Memory: 100 * caisson.MiB, CPUs: 500, PIDs: 9, Files: 10}
	bs, err := set.boxSpec(s)
	if err != nil {
		t.Fatal(err)
	}
	inside := bs.Guest.Setup
	if g := inside.Group; g.Memory != s.Limits.Memory || g.CPUs != 500 || g.PIDs != 9 || inside.Files != 10 {
		t.Errorf("in the guest: %+v, %d files", g, inside.Files)
	}
	m := set.machine(s)
	if m.CPUs != 1 || m.Memory < s.Limits.Memory+guestReserve || m.Memory%caisson.MiB != 0 {
		t.Errorf("the machine has %d processors and %s", m.CPUs, m.Memory)
	}
	if g := bs.Box.Cgroup; g.CPUs != 500 || g.Memory < m.Memory+machine.CodeCache+hostReserve {
		t.Errorf("on the host: %+v", g)
	}
	if got, want := bs.Patience.Std(), 2*set.opts.bootTime(set.accel); got != want {
		t.Errorf("half a processor has %v to boot, want %v", got, want)
	}
	for limit, want := range map[caisson.Bytes]caisson.Bytes{0: set.opts.Disk, 80 * caisson.MiB: 80 * caisson.MiB} {
		s.Limits.Disk = limit
		if got := set.layerSize(s); got != want {
			t.Errorf("with a limit of %s the disk has %s, want %s", limit, got, want)
		}
	}
	s.Work, s.Limits.Disk = "", 80*caisson.MiB
	if got, shm := set.layerSize(s), kept.Share(s).Shm; got+shm != s.Limits.Disk {
		t.Errorf("the disk has %s and /dev/shm %s of a limit of %s", got, shm, s.Limits.Disk)
	}
}

// TestKnown holds what is believed of a kind of machine: what worked, and for a while
// what did not.
func TestKnown(t *testing.T) {
	now := time.Now()
	b := &base{}
	b.note(tried{Accel: "kvm", Type: "q35", At: now.Add(-2 * retry), Missing: "no"}, tried{Accel: "tcg", Type: "pc", At: now.Add(-time.Minute), Missing: "no"})
	b.note(tried{Accel: "tcg", Type: "q35", At: now.Add(-1000 * time.Hour)})
	for kind, want := range map[string]bool{"kvm q35": false, "tcg pc": true, "tcg q35": true, "tcg microvm": false} {
		accel, kind, _ := strings.Cut(kind, " ")
		if got := b.known(accel, kind, now) != nil; got != want {
			t.Errorf("known(%s, %s) = %v, want %v", accel, kind, got, want)
		}
	}
	b.forget("tcg", "q35")
	if b.known("tcg", "q35", now) != nil {
		t.Error("what was forgotten is known")
	}
}

// TestCache holds that a base is read again, without what booting on another host has
// shown, and that a cache which others can write to is refused.
func TestCache(t *testing.T) {
	set, _ := testSetting(t)
	o := set.opts
	if err := o.openCache(); err != nil {
		t.Fatal(err)
	}
	b := set.base
	b.Version, b.Under = baseVersion, "here"
	b.note(tried{Accel: "tcg", Type: "q35"})
	if err := o.writeBase(b); err != nil {
		t.Fatal(err)
	}
	src := &sources{of: b.Of}
	read, err := o.readBase(src, "here")
	if err != nil || read == nil || len(read.Boots) != 1 || read.QEMU.Version != b.QEMU.Version {
		t.Fatalf("readBase = %+v, %v", read, err)
	}
	if read, err = o.readBase(src, "elsewhere"); err != nil || read == nil || len(read.Boots) != 0 {
		t.Errorf("readBase elsewhere = %+v, %v, want nothing that was booted", read, err)
	}
	if err := os.Remove(b.Initrd); err != nil {
		t.Fatal(err)
	}
	if read, err = o.readBase(src, "here"); err != nil || read != nil {
		t.Errorf("readBase without an initramfs = %+v, %v, want nothing", read, err)
	}
	if err := os.Chmod(o.Cache, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := o.openCache(); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("openCache = %v, want ErrDenied", err)
	}
}

// TestDiskless holds what a machine saves that there is no state of, and that it goes on
// from one of a guest without disks.
func TestDiskless(t *testing.T) {
	shape := &machine.Shape{Files: map[string]string{"kernel": "k", "disk-image": "d"}, Sizes: map[string]int64{layerDisk: 1}}
	for name, c := range map[string]struct {
		image          string
		snapshot, asks bool // of the operator's configuration, of the task
		early          bool // guests know their disks from the beginning
		there          bool // the state of a guest without disks
		saves, any     bool // its own state, that of a guest without disks
	}{
		"nobody asks":               {image: "i"},
		"nobody asks, there is one": {image: "i", there: true},
		"an image":                  {image: "i", snapshot: true, saves: true, any: true},
		"another image":             {image: "i", snapshot: true, there: true, saves: true},
		"no image":                  {snapshot: true, any: true},
		"no image, there is one":    {snapshot: true, there: true},
		"the task asks":             {asks: true, there: true, saves: true},
		"another kernel":            {snapshot: true, early: true, there: true, saves: true},
	} {
		t.Run(name, func(t *testing.T) {
			set, s := testSetting(t)
			s.RootFS.Image = c.image
			set.opts.Snapshot, set.choice, set.base.LateDisks = c.snapshot, &choice{Snapshot: c.asks}, !c.early
			states, err := set.opts.openStates()
			if err != nil {
				t.Fatal(err)
			}
			if c.there {
				g, err := states.Begin("any", shape.WithoutDisks())
				if err == nil {
					_, err = g.File().WriteString("memory")
				}
				if err == nil {
					_, err = g.Commit()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			bs := &boxSpec{}
			set.diskless(s, bs, set.machine(s), states, &saved{"own", shape})
			from := c.there && !c.early
			if bs.Diskless != from || (bs.State != "") != from || (set.state != "") != from {
				t.Errorf("it goes on from %q (%v), want a state: %v", bs.State, bs.Diskless, from)
			}
			if (bs.Save != nil) != c.saves || (bs.SaveDiskless != nil) != c.any {
				t.Errorf("it saves %+v and %+v, want one: %v, %v", bs.Save, bs.SaveDiskless, c.saves, c.any)
			}
		})
	}
}
