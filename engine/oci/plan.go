package oci

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
)

const (
	standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	standardHost = "caisson"
	// standardHome is where programs keep things whose user the image does not
	// know, or whose home it has not.
	standardHome = "/tmp"
	shell        = "/bin/sh"
)

// A setting is what decides about a sandbox besides its spec.
type setting struct {
	opts     *Options
	choice   *choice
	user     kept.Person
	root     bool   // sandboxes have ids of their own; otherwise they have uid and gid
	uid, gid int    // of the caller
	slot     int    // of host ids; root only
	run      string // the sandbox's runtime folder
	group    string // the name of its control group
	cgroup   bool   // control groups work
	landlock bool   // the kernel has it
	// plain are the sources that can't be shown with other ids. Their files
	// belong to the sandbox's own ids meanwhile.
	plain []string
	// runtime makes the sandbox; nil: builtin.
	runtime *isolate.Runtime
	resolv  []byte // the host's resolv.conf, for its network
	joined  *joined
}

// plan turns a spec into what the keeper is told. It looks at nothing but its
// arguments.
//
// Errors: ErrInvalid, ErrDenied or ErrUnsupported, with the name of the field
// at fault.
func plan(s *engine.Spec, set *setting) (*keeper.Spec, error) {
	box, err := set.box(s)
	if err != nil {
		return nil, err
	}
	return kept.KeeperSpec(s, set.run, box, set.program(s)), nil
}

// program is what runs in the sandbox.
func (set *setting) program(s *engine.Spec) isolate.Program {
	return isolate.Program{Args: set.args(s), Env: set.env(s), Dir: dir(s)}
}

// box says what isolate is to make.
func (set *setting) box(s *engine.Spec) (*isolate.Spec, error) {
	if err := kept.CheckSecrets(s); err != nil {
		return nil, err
	}
	if err := kept.CheckDisk(s); err != nil {
		return nil, err
	}
	off, err := set.choice.weakened(set.opts)
	if err != nil {
		return nil, err
	}
	user := set.user.User
	box := &isolate.Spec{
		ID: s.ID, User: &user, Files: s.Limits.Files, Hostname: s.Hostname,
		RootFS: s.RootFS.Path, Changes: s.RootFS.Changes, RootReadOnly: set.choice.ReadOnly || unbounded(s), RootIDMap: set.root,
		HostNetwork: s.Network.Mode == caisson.NetworkHost,
		Shm:         kept.Share(s).Shm, Sys: s.Network.Mode != caisson.NetworkHost,
		Masked:        slices.Concat(isolate.DefaultMasked, set.choice.MaskedPaths),
		ReadOnlyPaths: slices.Concat(isolate.DefaultReadOnly, set.choice.ReadOnlyPaths),
		Seccomp:       !off["seccomp"], Landlock: set.landlock && !guest(set.runtime),
		Runtime: set.runtime,
	}
	setDefault(&box.Hostname, standardHost)
	set.mapIDs(box)
	if set.cgroup || s.Limits.CPUs != 0 || s.Limits.Memory != 0 || s.Limits.PIDs != 0 {
		box.Cgroup = &isolate.Cgroup{Name: set.group, CPUs: s.Limits.CPUs, Memory: s.Limits.Memory, PIDs: s.Limits.PIDs}
	}
	if off["paths"] {
		box.Masked, box.ReadOnlyPaths = []string{}, []string{}
	}
	if box.Caps, err = capsFor(set.opts, set.choice, user.UID, off["capabilities"]); err != nil {
		return nil, err
	}
	if guest(set.runtime) {
		if box.Caps, err = guestCaps(set.choice, box.Caps); err != nil {
			return nil, err
		}
	}
	if err := set.addLimits(box, s); err != nil {
		return nil, err
	}
	if box.Devices, err = set.opts.devices(s.Devices); err != nil {
		return nil, err
	}
	set.joined.apply(box)
	kept.AddGateway(box, s.Gateway)
	box.Entries = set.entries(s, box.Hostname)
	box.Mounts = kept.Mounts(s, func(source string) *isolate.User { return set.owner(s, source) })
	return box, nil
}

// unbounded reports whether nobody bounds what would be written to the root: the
// disk limit is that of folders in memory.
func unbounded(s *engine.Spec) bool { return s.Limits.Disk != 0 && !s.WorkLimited }

// mapIDs gives the sandbox's ids their places on the host: with root a range of
// its own, otherwise the caller's one.
func (set *setting) mapIDs(box *isolate.Spec) {
	if guest(set.runtime) {
		// Its kernel knows ids of its own, and shows those of files as they are.
		box.UIDs = []isolate.IDMap{{Inside: 0, Host: 0, Size: idsPerSandbox}}
		box.GIDs = box.UIDs
		return
	}
	if !set.root {
		box.User.Groups = nil
		box.UIDs = []isolate.IDMap{{Inside: box.User.UID, Host: set.uid, Size: 1}}
		box.GIDs = []isolate.IDMap{{Inside: box.User.GID, Host: set.gid, Size: 1}}
		return
	}
	box.UIDs = []isolate.IDMap{{Inside: 0, Host: set.opts.ids().First(set.slot), Size: idsPerSandbox}}
	box.GIDs = box.UIDs
}

// owner returns whose files those of source are on disk, for an idmapped mount.
func (set *setting) owner(s *engine.Spec, source string) *isolate.User {
	if !set.root || slices.Contains(set.plain, source) {
		return nil
	}
	return &isolate.User{UID: s.WorkOwner.UID, GID: s.WorkOwner.GID}
}

// entries are what is laid over the image's files. The image's own users and
// groups stay.
func (set *setting) entries(s *engine.Spec, hostname string) []isolate.Entry {
	var list []isolate.Entry
	add := func(name string, contents []byte) {
		list = append(list, isolate.Entry{Path: name, Contents: contents})
	}
	add("/etc/hostname", []byte(hostname+"\n"))
	add("/etc/hosts", set.hosts(s, hostname))
	if resolv, ok := set.resolvConf(s); ok {
		add("/etc/resolv.conf", resolv)
	}
	list = append(list, isolate.Entry{Path: "/run", Dir: true})
	// Docker makes a working directory that the image has not.
	if at := dir(s); at != "/" && !covered(s, at) {
		list = append(list, isolate.Entry{Path: at, Dir: true})
	}
	return append(list, kept.SecretEntries(s)...)
}

// covered reports whether a path lies where something is mounted.
func covered(s *engine.Spec, name string) bool {
	taken := []string{"/proc", "/sys", "/dev", "/tmp", caisson.WorkDir}
	for _, m := range s.Mounts {
		taken = append(taken, m.Target)
	}
	return slices.ContainsFunc(taken, func(t string) bool { return kept.Below(name, t) })
}

// args is the program's argv.
func (set *setting) args(s *engine.Spec) []string {
	if s.Run != "" {
		return []string{shell, "-c", s.Run}
	}
	return slices.Clone(s.Args)
}

// env is the program's environment, sorted: what the task and the image set,
// the task's secrets, and what is added where they lack it.
func (set *setting) env(s *engine.Spec) []string {
	all := map[string]string{
		"PATH": standardPath, "HOME": set.user.HomeDir(standardHome), "USER": set.user.UserName(), "TMPDIR": "/tmp", "CAISSON_WORK": caisson.WorkDir,
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

// addLimits adds resource limits, settings of the kernel, and the size of
// shared memory.
func (set *setting) addLimits(box *isolate.Spec, s *engine.Spec) error {
	c := set.choice
	for _, name := range slices.Sorted(maps.Keys(c.Ulimits)) {
		resource, known := resources[name]
		switch {
		case !known:
			return kept.Invalid("options.ulimits", fmt.Errorf("%q is no limit; there are: %s", name, strings.Join(slices.Sorted(maps.Keys(resources)), ", ")))
		case name == "nofile" && s.Limits.Files != 0:
			return twice("limits.files and ulimits.nofile")
		}
		box.Limits = append(box.Limits, isolate.Limit{Resource: resource, Soft: c.Ulimits[name].Soft, Hard: c.Ulimits[name].Hard})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Sysctls)) {
		if !own(name) {
			return kept.Denied("options.sysctls", fmt.Errorf("%q is a setting of the whole host", name))
		}
		if strings.HasPrefix(name, "net.") && box.HostNetwork {
			return kept.Denied("options.sysctls", fmt.Errorf("%q: the network is the host's", name))
		}
	}
	box.Sysctls = c.Sysctls
	if shm := caisson.Bytes(c.ShmSize); shm > 0 {
		if box.Shm > 0 && shm > box.Shm && s.Limits.Disk != 0 {
			return kept.Invalid("options.shm_size", fmt.Errorf("%s is beyond the disk limit's share of %s", shm, box.Shm))
		}
		box.Shm = shm
	}
	return nil
}

// resources are the limits of setrlimit by Docker's names.
var resources = map[string]int{
	"cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8, "as": 9,
	"locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}

// own reports whether a setting of the kernel is one that a sandbox has of its
// own, as Docker has it.
func own(name string) bool {
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
		return true
	}
	return strings.HasPrefix(name, "fs.mqueue.") || strings.HasPrefix(name, "net.")
}

// devices returns the host's devices that a task asks for, if the operator
// permits them.
func (o *Options) devices(list []caisson.Device) ([]isolate.Device, error) {
	var out []isolate.Device
	for i, d := range list {
		field := fmt.Sprintf("devices[%d]", i)
		if path.Clean(d.Source) != d.Source || !slices.ContainsFunc(o.AllowDevices, func(a string) bool { return kept.Below(d.Source, a) }) {
			return nil, kept.Denied(field, fmt.Errorf("%q: the operator does not permit it (engine.oci.allow_devices)", d.Source))
		}
		target := d.Target
		setDefault(&target, d.Source)
		if strings.Contains(d.Permissions, "m") {
			return nil, kept.Unsupported(field, fmt.Errorf("%q: no sandbox can make devices; leave m out", d.Permissions))
		}
		out = append(out, isolate.Device{
			Source: d.Source, Target: target, ReadOnly: d.Permissions != "" && !strings.Contains(d.Permissions, "w"),
		})
	}
	return out, nil
}
