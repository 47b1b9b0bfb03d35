//go:build unix

package qemu

import (
	"encoding/json"
	"maps"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/keeper"
)

const (
	standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	standardHost = "caisson"
	// standardHome is where programs keep things whose user the image does not know,
	// or whose home it has not.
	standardHome  = "/tmp"
	standardShell = "/bin/sh"
)

// What a machine takes besides what its programs may.
const (
	// guestReserve is what the guest's kernel and the agent need of its memory, and
	// one part in guestShare more, with which the kernel keeps account of it.
	guestReserve = 128 * caisson.MiB
	guestShare   = 32
	// hostReserve is what QEMU needs on the host besides the guest's memory.
	hostReserve = 128 * caisson.MiB
	// standardCPUs bounds the processors of a machine whose task sets no limit.
	standardCPUs = 2
)

// Where things are in the sandbox of a QEMU, and in a guest's first root.
const (
	insideLayer  = "/machine/layer"
	insideShares = "/shares"
	shareTag     = "shares"
	imageDisk    = "image"
	layerDisk    = "layer"
	guestImage   = "/image"
	guestLayer   = "/layer"
	guestRoot    = "/root"
	guestShares  = "/shares"
	secretsDir   = "/run/secrets"
	// shareOptions are the most data at once that QEMU takes, pages that can be
	// mapped, and nothing remembered of what the host may change.
	shareOptions = "trans=virtio,version=9p2000.L,cache=mmap,msize=512000,access=any"
	// overcommit has the guest's kernel give programs as much as they ask for, as those
	// of hosts do: what they use is what the limit is about.
	overcommit = "sysctl.vm.overcommit_memory=1"
	// guestGroup is the control group of programs in a guest.
	guestGroup = "task"
	// deviceTime is how long a device may take to appear in a guest, in milliseconds.
	deviceTime = 10_000
)

// A setting is what decides about a sandbox besides its spec.
type setting struct {
	opts     *Options
	choice   *choice
	own      *own // nil: the machine runs an image
	base     *base
	accel    string
	kind     string // type of the machine
	root     bool   // sandboxes have ids of their own; otherwise they have uid and gid
	uid, gid int    // of the caller
	slot     int    // of host ids; root only
	kvmGroup int    // the group of /dev/kvm; -1: none is needed
	run      string // the sandbox's runtime folder
	group    string // the name of its control group
	cgroup   bool   // control groups work
	landlock bool   // the kernel has it
	user     kept.Person
	// plain are the sources that can't be shown with other ids. Their files belong
	// to the sandbox's own ids meanwhile.
	plain  []string
	resolv []byte // the host's resolv.conf
	nets   *nets
	// ready says that the disk is there that the guest writes to; boots that the
	// machine must boot. State is the key of the saved state that it goes on from.
	ready, boots bool
	state        string
}

// layer is where the disk is that a sandbox writes to.
func layer(s *engine.Spec) string { return filepath.Join(s.RootFS.Changes, "layer.ext4") }

// plan turns a spec into what the keeper is told. It changes nothing.
//
// Errors: ErrInvalid or ErrUnsupported, with the name of the field at fault;
// ErrNotFound if something that the machine needs is not there.
func plan(s *engine.Spec, set *setting) (*keeper.Spec, error) {
	if err := kept.CheckDisk(s); err != nil {
		return nil, err
	}
	bs, err := set.boxSpec(s)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(bs)
	if err != nil {
		return nil, err
	}
	// What the keeper itself needs to know of the sandbox. Secrets that can be read
	// once are the box's own.
	own := *s
	own.Secrets = slices.Clone(s.Secrets)
	for i := range own.Secrets {
		own.Secrets[i].Once = false
	}
	box := &isolate.Spec{ID: s.ID, User: bs.Box.User, UIDs: bs.Box.UIDs, GIDs: bs.Box.GIDs}
	if bs.Box.Cgroup != nil || s.Limits.Memory != 0 {
		// The limit is for messages, the name for whoever removes the group.
		box.Cgroup = &isolate.Cgroup{Memory: s.Limits.Memory}
		if bs.Box.Cgroup != nil {
			box.Cgroup.Name = bs.Box.Cgroup.Name
		}
	}
	k := kept.KeeperSpec(&own, set.run, box, set.program(s))
	k.Foreign = &keeper.Foreign{Kind: Kind, Data: data}
	return k, nil
}

// boxSpec says what the keeper's box is to make.
func (set *setting) boxSpec(s *engine.Spec) (*boxSpec, error) {
	bs := &boxSpec{Patience: caisson.Duration(set.patience(s))}
	if set.own != nil {
		bs.Patience *= ownTimes
	}
	bs.Box = isolate.Spec{ID: s.ID, Hostname: standardHost, Landlock: set.landlock}
	set.mapIDs(&bs.Box)
	m := set.machine(s)
	if set.cgroup {
		memory := m.Memory + hostReserve
		if m.Accel == machine.TCG {
			memory += machine.CodeCache
		}
		if m.Screen {
			memory += screenReserve
		}
		bs.Box.Cgroup = &isolate.Cgroup{Name: set.group, CPUs: s.Limits.CPUs, Memory: memory}
	}
	in, err := set.base.QEMU.Confine(&bs.Box, m, nil)
	if err != nil {
		return nil, err
	}
	bs.Guest = set.guest(s)
	set.addLayer(s, &bs.Box, in)
	set.addShares(s, bs, in)
	set.addNetwork(bs, in)
	if err := set.begin(s, bs, in); err != nil {
		return nil, err
	}
	args, err := set.base.QEMU.Args(in)
	if err != nil {
		return nil, err
	}
	bs.QEMU = isolate.Program{Args: append([]string{set.base.QEMU.Path}, args...), Dir: "/"}
	return bs, nil
}

// patience is how long a guest may take until its agent answers: with a part of a
// processor it takes the longer.
func (set *setting) patience(s *engine.Spec) time.Duration {
	const one, most = 1000, 10
	limit := set.opts.bootTime(set.accel)
	if share := s.Limits.CPUs; set.cgroup && share > 0 && share < one {
		limit = min(limit*one/time.Duration(share), limit*most)
	}
	return limit
}

// mapIDs gives QEMU's ids their places on the host. Inside it has those of the
// guest's program, so that it sees the files of shared folders as that is to: with
// root they are the sandbox's own on the host, otherwise the caller's.
func (set *setting) mapIDs(box *isolate.Spec) {
	user := isolate.User{UID: set.user.UID, GID: set.user.GID}
	box.User = &user
	if !set.root {
		box.UIDs = []isolate.IDMap{{Inside: user.UID, Host: set.uid, Size: 1}}
		box.GIDs = []isolate.IDMap{{Inside: user.GID, Host: set.gid, Size: 1}}
		return
	}
	first := set.opts.ids().First(set.slot)
	box.UIDs, box.GIDs = mapEach(first, 0, user.UID), mapEach(first, 0, user.GID)
	if set.accel == machine.KVM && set.kvmGroup >= 0 {
		// No id of an image's: it is seen as nobody's file anyway.
		const inside = kept.MaxAccount + 1
		box.GIDs = append(box.GIDs, isolate.IDMap{Inside: inside, Host: set.kvmGroup, Size: 1})
		user.Groups = []int{inside}
	}
}

// mapEach maps each id once, to the next one from base on.
func mapEach(base int, ids ...int) []isolate.IDMap {
	var list []isolate.IDMap
	for _, id := range ids {
		if !slices.ContainsFunc(list, func(m isolate.IDMap) bool { return m.Inside == id }) {
			list = append(list, isolate.IDMap{Inside: id, Host: base + len(list), Size: 1})
		}
	}
	return list
}

// machine is the machine, with files as they are on the host. Tasks with the same
// image and limits have the same, but for what addLayer and addShares add.
func (set *setting) machine(s *engine.Spec) *machine.Spec {
	if set.own != nil {
		return set.ownMachine(s)
	}
	m := &machine.Spec{
		Type: set.kind, Accel: set.accel, CPUs: set.cpus(s), Memory: memory(set.programMemory(s)),
		Kernel: set.base.Kernel.Image, Initrd: set.base.Initrd, Cmdline: append([]string{"quiet", overcommit}, cmdline(s)...),
		QMP: machine.Descriptor(0), Agent: machine.Descriptor(1), Console: machine.Output("/dev/stderr"),
		Disks: []machine.Disk{{Name: imageDisk, Path: s.RootFS.Disk, Format: "raw", ReadOnly: true}},
	}
	if m.Type == machine.MicroVM && m.Accel == machine.TCG {
		m.TSC = set.base.TSC
	}
	set.addScreen(s, m)
	return m
}

// cmdline is what the task adds to the kernel's command line.
func cmdline(s *engine.Spec) []string {
	if s.Machine == nil {
		return nil
	}
	return strings.Fields(s.Machine.Cmdline)
}

// cpus is how many processors the machine has.
func (set *setting) cpus(s *engine.Spec) int {
	const one = 1000
	switch limit := int(s.Limits.CPUs); {
	case limit > 0:
		return min((limit+one-1)/one, runtime.NumCPU())
	case set.opts.CPUs > 0:
		return set.opts.CPUs
	}
	return min(runtime.NumCPU(), standardCPUs)
}

// programMemory is what programs may use.
func (set *setting) programMemory(s *engine.Spec) caisson.Bytes {
	if s.Limits.Memory > 0 {
		return s.Limits.Memory
	}
	return set.opts.Memory
}

// memory is that of a machine whose programs may use so much.
func memory(programs caisson.Bytes) caisson.Bytes {
	whole := programs + guestReserve + programs/guestShare
	return (whole + caisson.MiB - 1) / caisson.MiB * caisson.MiB
}

// addLayer adds the disk that the guest writes to. Confine would look for it, and
// it is made later.
func (set *setting) addLayer(s *engine.Spec, box *isolate.Spec, m *machine.Spec) {
	if set.own != nil {
		set.addOwnLayer(s, box, m)
		return
	}
	box.Mounts = append(box.Mounts, isolate.Mount{Type: isolate.Bind, Source: layer(s), Target: insideLayer})
	m.Disks = append(m.Disks, machine.Disk{Name: layerDisk, Path: insideLayer, Format: "raw", Ephemeral: true})
}

// addShares adds folders of the host: each is a mount below one folder that QEMU
// passes on, so that all machines have one device for it, and the same.
func (set *setting) addShares(s *engine.Spec, bs *boxSpec, m *machine.Spec) {
	if set.own != nil {
		set.addOwnShares(s, bs, m)
		return
	}
	if set.base.shares() {
		bs.Box.Entries = append(bs.Box.Entries, isolate.Entry{Path: insideShares, Dir: true})
		m.Shares = append(m.Shares, machine.Share{Tag: shareTag, Path: insideShares})
	}
	places := set.mounts(s)
	// A machine whose guest has mounted the device can't be saved.
	if slices.ContainsFunc(places, func(m isolate.Mount) bool { return m.Type == isolate.Bind }) {
		bs.Guest.Mounts = append(bs.Guest.Mounts, guest.Mount{
			Type: "9p", Source: shareTag, Target: guestShares, Options: shareOptions,
		})
	}
	for i, place := range places {
		if place.Type == isolate.Bind {
			name := strconv.Itoa(i)
			inside := place
			inside.Target = path.Join(insideShares, name)
			bs.Box.Mounts = append(bs.Box.Mounts, inside)
			place.Source = path.Join(guestShares, name)
		}
		bs.Guest.Places = append(bs.Guest.Places, guestMount(&place))
	}
}

// program is what runs in the guest.
func (set *setting) program(s *engine.Spec) isolate.Program {
	return isolate.Program{Args: args(s), Env: set.env(s), Dir: dir(s)}
}

// args is the program's argv.
func args(s *engine.Spec) []string {
	if s.Run != "" {
		return []string{standardShell, "-c", s.Run}
	}
	return slices.Clone(s.Args)
}

// env is the program's environment, sorted: what the task and the image set, the
// task's secrets, and what is added where they lack it.
func (set *setting) env(s *engine.Spec) []string {
	all := map[string]string{
		"PATH": standardPath, "HOME": set.user.HomeDir(standardHome), "USER": set.user.UserName(), "TMPDIR": "/tmp", "CAISSON_WORK": caisson.WorkDir,
	}
	if set.own != nil {
		// The system there knows.
		delete(all, "HOME")
		delete(all, "USER")
	}
	maps.Copy(all, s.Env)
	return kept.Environ(all, s.Secrets)
}

// dir is where the program starts.
func dir(s *engine.Spec) string {
	if s.Workdir == "" {
		return caisson.WorkDir
	}
	return path.Clean(s.Workdir)
}
