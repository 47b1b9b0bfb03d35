package native

import (
	"errors"
	"fmt"
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
	// homeDir is on the sandbox's limited storage, and unlike the work folder
	// nobody collects what programs keep in their home.
	homeDir         = "/tmp"
	standardHost    = "caisson"
	nsswitchContent = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nservices: files\nprotocols: files\n"
)

// A setting is what decides about a sandbox besides its spec.
type setting struct {
	opts      *Options
	isolation string // Full or None
	host      *host
	slot      int    // of host ids; root only
	run       string // the sandbox's runtime folder
	group     string // the name of its control group
	cgroup    bool   // control groups work
	landlock  bool   // the kernel has it
	// plain are the sources that can't be shown with other ids. Their files
	// belong to the sandbox's own ids meanwhile.
	plain []string
}

// plan turns a spec into what the keeper is told. It looks at nothing but its
// arguments.
//
// Errors: ErrInvalid or ErrUnsupported, with the name of the field at fault.
func plan(s *engine.Spec, set *setting) (*keeper.Spec, error) {
	box, err := set.box(s)
	if err != nil {
		return nil, err
	}
	return kept.KeeperSpec(s, set.run, box, set.program(s)), nil
}

// program is what runs in the sandbox.
func (set *setting) program(s *engine.Spec) isolate.Program {
	return isolate.Program{Args: set.args(s), Env: set.env(s), Dir: set.dir(s)}
}

// box says what isolate is to make.
func (set *setting) box(s *engine.Spec) (*isolate.Spec, error) {
	if err := set.checkSecrets(s); err != nil {
		return nil, err
	}
	user, err := parseUser(s.User, s.Group, set.standardUser())
	if err != nil {
		return nil, err
	}
	box := &isolate.Spec{ID: s.ID, Files: s.Limits.Files}
	if set.cgroup || s.Limits.CPUs != 0 || s.Limits.Memory != 0 || s.Limits.PIDs != 0 {
		box.Cgroup = &isolate.Cgroup{
			Name: set.group,
			CPUs: s.Limits.CPUs, Memory: s.Limits.Memory, PIDs: s.Limits.PIDs,
		}
	}
	if set.isolation == None {
		box.None = true
		if s.User != "" || s.Group != "" || set.opts.UID != 0 || set.opts.GID != 0 {
			box.User = &user
		}
		return box, nil
	}
	if err := kept.CheckDisk(s); err != nil {
		return nil, err
	}
	if err := set.mapIDs(box, user); err != nil {
		return nil, err
	}
	box.Hostname = s.Hostname
	setDefault(&box.Hostname, standardHost)
	box.HostNetwork = s.Network.Mode == caisson.NetworkHost
	kept.AddGateway(box, s.Gateway)
	box.Seccomp, box.Landlock = true, set.landlock
	box.Shm = kept.Share(s).Shm
	box.Entries = set.entries(s, user, box.Hostname)
	box.Mounts = set.mounts(s)
	return box, nil
}

// checkSecrets refuses secrets that can't be delivered as asked for.
func (set *setting) checkSecrets(s *engine.Spec) error {
	for _, secret := range s.Secrets {
		if secret.As == caisson.SecretFile && set.isolation == None {
			return kept.Unsupported("secrets."+secret.Name+".as", errors.New("without isolation there is no place for a file; use env"))
		}
	}
	return kept.CheckSecrets(s)
}

// standardUser is who the program runs as where the task does not say.
func (set *setting) standardUser() isolate.User {
	u := isolate.User{UID: set.opts.UID, GID: set.opts.GID}
	if set.isolation == None {
		if u.UID == 0 {
			u.UID = set.host.uid
		}
		if u.GID == 0 {
			u.GID = set.host.gid
		}
		return u
	}
	setDefault(&u.UID, DefaultUID)
	setDefault(&u.GID, DefaultGID)
	return u
}

// mapIDs gives the sandbox's ids their places on the host: with root three of
// its own, for init, the user and one more group; otherwise the caller's.
func (set *setting) mapIDs(box *isolate.Spec, user isolate.User) error {
	box.User = &user
	if !set.host.root {
		if len(user.Groups) > 0 {
			return kept.Unsupported("group", fmt.Errorf("%d: without root there is only one group; use user: uid:gid", user.Groups[0]))
		}
		box.UIDs = []isolate.IDMap{{Inside: user.UID, Host: set.host.uid, Size: 1}}
		box.GIDs = []isolate.IDMap{{Inside: user.GID, Host: set.host.gid, Size: 1}}
		return nil
	}
	base := set.opts.ids().First(set.slot)
	box.UIDs = mapEach(base, 0, user.UID)
	box.GIDs = mapEach(base, append([]int{0, user.GID}, user.Groups...)...)
	return nil
}

// mapEach maps each id once to the next one from base on.
func mapEach(base int, ids ...int) []isolate.IDMap {
	var maps []isolate.IDMap
	for _, id := range ids {
		if !slices.ContainsFunc(maps, func(m isolate.IDMap) bool { return m.Inside == id }) {
			maps = append(maps, isolate.IDMap{Inside: id, Host: base + len(maps), Size: 1})
		}
	}
	return maps
}

// entries are the links and files of the root view.
func (set *setting) entries(s *engine.Spec, user isolate.User, hostname string) []isolate.Entry {
	var list []isolate.Entry
	for _, l := range set.host.links {
		list = append(list, isolate.Entry{Path: l.path, Link: l.target})
	}
	add := func(path string, contents []byte) {
		list = append(list, isolate.Entry{Path: path, Contents: contents})
	}
	for _, f := range set.host.files {
		add(f.path, f.contents)
	}
	var resolv []byte
	if s.Network.Mode == caisson.NetworkHost {
		resolv = set.host.resolv
	}
	if s.Gateway != nil && s.Gateway.Resolver != "" {
		resolv = []byte("nameserver " + s.Gateway.Resolver + "\n")
	}
	hosts := "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 " + hostname + "\n" + kept.GatewayHosts(s.Gateway)
	add("/etc/passwd", passwd(user))
	add("/etc/group", group(user))
	add("/etc/hostname", []byte(hostname+"\n"))
	add("/etc/hosts", []byte(hosts))
	add("/etc/resolv.conf", resolv)
	add("/etc/nsswitch.conf", []byte(nsswitchContent))
	add("/etc/machine-id", []byte(kept.MachineID(s.ID)+"\n"))
	list = append(list, isolate.Entry{Path: "/etc/mtab", Link: "/proc/self/mounts"}, isolate.Entry{Path: "/run", Dir: true})
	return append(list, kept.SecretEntries(s)...)
}

// mounts are the host's programs, the work folder, /tmp, and what the task
// asks for.
func (set *setting) mounts(s *engine.Spec) []isolate.Mount {
	var list []isolate.Mount
	for _, b := range set.host.binds {
		list = append(list, isolate.Mount{Type: isolate.Bind, Source: b.source, Target: b.target, ReadOnly: true})
	}
	return append(list, kept.Mounts(s, func(source string) *isolate.User { return set.owner(s, source) })...)
}

// owner returns whose files those of source are on disk, for an idmapped mount.
func (set *setting) owner(s *engine.Spec, source string) *isolate.User {
	if !set.host.root || slices.Contains(set.plain, source) {
		return nil
	}
	return &isolate.User{UID: s.WorkOwner.UID, GID: s.WorkOwner.GID}
}

// args is the program's argv.
func (set *setting) args(s *engine.Spec) []string {
	if s.Run != "" {
		return append(set.shell(), s.Run)
	}
	return slices.Clone(s.Args)
}

// shell is the command that a script is appended to.
func (set *setting) shell() []string {
	if len(set.opts.Shell) > 0 {
		return slices.Clone(set.opts.Shell)
	}
	return []string{set.host.shell, "-c"}
}

// env is the program's environment, sorted: what the task sets, its secrets,
// and what is added where they lack it.
func (set *setting) env(s *engine.Spec) []string {
	work := set.work(s)
	all := map[string]string{
		"PATH": standardPath, "HOME": homeDir, "USER": set.userName(s), "TMPDIR": "/tmp", "CAISSON_WORK": work,
	}
	if set.isolation == None {
		all["HOME"], all[kept.Marker] = work, mark(set.opts.Installation, s.ID)
		if s.Tmp != "" {
			all["TMPDIR"] = s.Tmp
		}
	}
	for name, value := range s.Env {
		// Without a root of its own the program finds the work folder where it
		// is on the host.
		if strings.HasPrefix(name, "CAISSON_") {
			value = set.place(s, value)
		}
		all[name] = value
	}
	return kept.Environ(all, s.Secrets)
}

// userName is the name that USER has.
func (set *setting) userName(s *engine.Spec) string {
	u, err := parseUser(s.User, s.Group, set.standardUser())
	if err != nil || set.isolation == None {
		return fmt.Sprint(u.UID)
	}
	return nameOf(u)
}

// dir is where the program starts.
func (set *setting) dir(s *engine.Spec) string {
	if s.Workdir != "" {
		return set.place(s, path.Clean(s.Workdir))
	}
	return set.work(s)
}

// work is where the program finds the work folder.
func (set *setting) work(s *engine.Spec) string {
	switch {
	case set.isolation != None:
		return caisson.WorkDir
	case s.Work != "":
		return s.Work
	}
	return "/"
}

// place returns where the program finds a path of the inside.
func (set *setting) place(s *engine.Spec, inside string) string {
	if set.isolation != None || !kept.Below(inside, caisson.WorkDir) || s.Work == "" {
		return inside
	}
	return s.Work + strings.TrimPrefix(inside, caisson.WorkDir)
}

// mark is the value of marker in a sandbox.
func mark(installation, sandbox string) string { return installation + "/" + sandbox }
