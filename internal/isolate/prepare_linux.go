package isolate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/cgroup"
	"github.com/caissonrun/caisson/internal/landlock"
	"github.com/caissonrun/caisson/internal/seccomp"
)

// A preparation turns a Spec into a setup, and holds the descriptors that go
// with it.
type preparation struct {
	spec *Spec
	root bool // whether this process is root
	pid  int  // of init
	// identity says that ids are the host's: there is no user namespace.
	identity bool
	setup    setup
	fds      []int

	ownUserns   int // the sandbox's, once it is needed; -1 before
	ownerUserns map[[2]int]int
}

// check refuses a spec that contradicts itself, or asks for more than the
// caller's rights or the kernel allow.
func check(spec *Spec, root bool) error {
	switch {
	case len(spec.UIDs) == 0 || len(spec.GIDs) == 0:
		return invalid("user namespace", "it has no ids")
	case root && (hostID(spec.UIDs, 0) < 0 || hostID(spec.GIDs, 0) < 0):
		return invalid("user namespace", "id 0, for init, is not mapped")
	case hostID(spec.UIDs, user(spec).UID) < 0 || hostID(spec.GIDs, user(spec).GID) < 0:
		return invalid("user", "its ids are not mapped")
	case spec.Sys && spec.HostNetwork:
		return unsupported("/sys", "it needs a network of its own")
	case spec.NetNS != "" && spec.HostNetwork:
		return invalid("network", "it can't be both the host's and that of a namespace")
	case spec.NetNS != "" && !root:
		return unsupported("network", "only root can put a sandbox into a network namespace")
	case len(spec.Devices) > 0 && !root:
		return unsupported("devices", "only root can give them")
	case spec.Changes != "" && spec.RootFS == "":
		return invalid("root file system", "changes need something to be changed")
	case spec.RootIDMap && !root:
		return unsupported("root file system", "only root can show it with other ids")
	case spec.Seccomp && !seccomp.Available():
		return unsupported("seccomp", "this kernel has no seccomp filters")
	case spec.Landlock && landlock.Available() == 0:
		return unsupported("landlock", "this kernel has none, or it is switched off")
	}
	for _, list := range [][]IDMap{spec.UIDs, spec.GIDs} {
		for _, m := range list {
			if m.Inside < 0 || m.Host < 0 || m.Size < 1 || m.Inside+m.Size-1 > maxID || m.Host+m.Size-1 > maxID {
				return invalid("user namespace", fmt.Sprintf("there are no such ids: %+v", m))
			}
		}
	}
	for _, g := range user(spec).Groups {
		if root && hostID(spec.GIDs, g) < 0 {
			return invalid("user", fmt.Sprintf("group %d is not mapped", g))
		}
	}
	for _, c := range spec.Caps {
		if c < 0 || c > lastCap() {
			return unsupported("capabilities", fmt.Sprintf("this kernel has no capability %d", c))
		}
	}
	for name := range spec.Sysctls {
		if name == "" || strings.ContainsAny(name, "/\x00") || strings.Contains(name, "..") {
			return invalid("sysctl", strconv.Quote(name)+" is not the name of one")
		}
	}
	if _, err := filesLimit(spec.Files); err != nil {
		return err
	}
	if err := checkSockets(spec); err != nil {
		return err
	}
	for i := range spec.Entries {
		if err := checkPath(spec.Entries[i].Path); err != nil {
			return err
		}
	}
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if m.Type != Bind && m.Type != Tmpfs {
			return invalid(strconv.Quote(m.Target), fmt.Sprintf("unknown type of mount %q", m.Type))
		}
		if err := checkPath(m.Target); err != nil {
			return err
		}
	}
	return nil
}

// checkPath refuses paths that are not absolute and clean, and the root.
func checkPath(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" || strings.Contains(path, "\x00") {
		return invalid(strconv.Quote(path), "not an absolute, clean path below the root")
	}
	return nil
}

func invalid(item, why string) error {
	return &caisson.Error{Item: item, Kind: caisson.ErrInvalid, Err: errors.New(why)}
}

func unsupported(item, why string) error {
	return &caisson.Error{Item: item, Kind: caisson.ErrUnsupported, Err: errors.New(why)}
}

// user returns who programs run as.
func user(spec *Spec) User {
	if spec.User == nil {
		return User{}
	}
	return *spec.User
}

// hostID returns what an id of the inside is on the host, or -1.
func hostID(ids []IDMap, inside int) int {
	for _, m := range ids {
		if inside >= m.Inside && inside-m.Inside < m.Size {
			return m.Host + inside - m.Inside
		}
	}
	return -1
}

// prepare gathers all that init needs from the host. On error it leaves
// nothing; otherwise the caller closes the descriptors once they are sent.
func prepare(spec *Spec, pid int, group *cgroup.Group) (*preparation, error) {
	p := newPreparation(spec, pid)
	return p, p.prepare(group)
}

func newPreparation(spec *Spec, pid int) *preparation {
	return &preparation{spec: spec, root: os.Geteuid() == 0, pid: pid, ownUserns: -1, ownerUserns: map[[2]int]int{}}
}

func (p *preparation) prepare(group *cgroup.Group) error {
	err := p.gather(group)
	closeAll([]int{p.ownUserns})
	for _, fd := range p.ownerUserns {
		unix.Close(fd)
	}
	if err != nil {
		closeAll(p.fds)
	}
	return err
}

func (p *preparation) gather(group *cgroup.Group) (err error) {
	spec, who := p.spec, user(p.spec)
	p.setup = setup{
		hostname: spec.Hostname, alone: !p.root, loopback: !spec.HostNetwork && spec.NetNS == "", nested: spec.Nested,
		uid: who.UID, gid: who.GID,
		root: -1, rootPath: spec.RootFS, changes: -1, changesPath: spec.Changes, rootReadOnly: spec.RootReadOnly || spec.RootFS == "", entries: spec.Entries,
		dev: -1, sys: spec.Sys, sysTree: -1, runtime: -1, program: -1, masked: spec.Masked, readOnly: spec.ReadOnlyPaths, shm: int64(spec.Shm),
		files: spec.Files, limits: spec.Limits, sysctls: spec.Sysctls, lastCap: lastCap(), landlock: spec.Landlock,
	}
	s := &p.setup
	if spec.NetNS == "" {
		s.everything, s.sockets = spec.Everything, spec.Sockets
	}
	if s.hostname == "" {
		s.hostname = spec.ID
	}
	if s.masked == nil {
		s.masked = DefaultMasked
	}
	if s.readOnly == nil {
		s.readOnly = DefaultReadOnly
	}
	if s.shm == 0 {
		s.shm = int64(64 * caisson.MiB)
	}
	for _, c := range spec.Caps {
		s.caps |= 1 << c
	}
	if p.root {
		s.groups = groupsOf(who)
	}
	if spec.Seccomp {
		if s.filter, err = filter(); err != nil {
			return err
		}
	}
	if spec.RootFS != "" {
		if err := p.gatherRoot(); err != nil {
			return err
		}
	}
	for i := range spec.Mounts {
		if err := p.gatherMount(&spec.Mounts[i]); err != nil {
			return err
		}
	}
	if err := p.gatherDev(); err != nil {
		return err
	}
	if err := p.gatherSys(); err != nil {
		return err
	}
	return p.gatherCgroup(group)
}

// groupsOf are a user's supplementary groups, not nil.
func groupsOf(who User) []uint32 {
	list := make([]uint32, 0, len(who.Groups))
	for _, g := range who.Groups {
		list = append(list, uint32(g))
	}
	return list
}

// filter returns package seccomp's filter. Init, which all have to wait for,
// need not make it.
func filter() ([]syscall.SockFilter, error) {
	list, err := seccomp.Filter()
	if err != nil {
		return nil, err
	}
	filter := make([]syscall.SockFilter, len(list))
	for i, x := range list {
		filter[i] = syscall.SockFilter(x)
	}
	return filter, nil
}

// add keeps a descriptor for init and returns its place in the frame.
func (p *preparation) add(fd int) int {
	p.fds = append(p.fds, fd)
	return len(p.fds) - 1
}

// gatherRoot takes the root file system.
func (p *preparation) gatherRoot() error {
	fd, stat, err := openSource(p.spec.RootFS)
	if err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		unix.Close(fd)
		return invalid(strconv.Quote(p.spec.RootFS), "not a folder")
	}
	userns := -1
	if p.spec.RootIDMap {
		if userns, err = p.sandboxUserns(); err != nil {
			unix.Close(fd)
			return err
		}
	}
	fd, err = p.take(fd, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, userns)
	if err != nil {
		return fmt.Errorf("%q: %w", p.spec.RootFS, err)
	}
	p.setup.root = p.add(fd)
	if p.spec.Changes == "" {
		return nil
	}
	return p.gatherChanges()
}

// gatherMount takes the source of one mount.
func (p *preparation) gatherMount(m *Mount) error {
	at := place{Mount: *m, source: -1}
	if m.Type == Bind {
		fd, stat, err := openSource(m.Source)
		if err != nil {
			return err
		}
		at.folder = stat.Mode&unix.S_IFMT == unix.S_IFDIR
		userns, err := p.ownerNamespace(m.Owner)
		if err != nil {
			unix.Close(fd)
			return err
		}
		fd, err = p.take(fd, bindAttrs(m), userns)
		if err != nil {
			return fmt.Errorf("%q: %w", m.Source, err)
		}
		at.source = p.add(fd)
	}
	p.setup.mounts = append(p.setup.mounts, at)
	return nil
}

// bindAttrs returns a bind's mount attributes.
func bindAttrs(m *Mount) uint64 {
	attrs := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if m.ReadOnly {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	return attrs
}

// take exchanges an open file for a tree of its mounts. Only root can do that
// outside of the sandbox: otherwise init does it, and the open file tells it
// what it must find at the path.
func (p *preparation) take(fd int, attrs uint64, userns int) (int, error) {
	if !p.root {
		return fd, nil
	}
	defer unix.Close(fd)
	return cloneTree(fd, attrs, userns)
}

// ownerNamespace returns a user namespace that shows files of owner as the
// sandbox's user's, or -1 where none is needed. The caller does not close it.
func (p *preparation) ownerNamespace(owner *User) (int, error) {
	if owner == nil || !p.root {
		return -1, nil
	}
	who := user(p.spec)
	uid, gid := hostID(p.spec.UIDs, who.UID), hostID(p.spec.GIDs, who.GID)
	if hostID(p.spec.UIDs, owner.UID) == uid && hostID(p.spec.GIDs, owner.GID) == gid {
		if p.identity {
			return -1, nil
		}
		return p.sandboxUserns()
	}
	key := [2]int{owner.UID, owner.GID}
	if fd, ok := p.ownerUserns[key]; ok {
		return fd, nil
	}
	fd, err := newUserNamespace(p.ownerMap(owner.UID, uid), p.ownerMap(owner.GID, gid))
	if err == nil {
		p.ownerUserns[key] = fd
	}
	return fd, err
}

// ownerMap shows an owner's id as another one. Where ids are the host's, files are
// made by root, and then given away.
func (p *preparation) ownerMap(owner, id int) []IDMap {
	list := []IDMap{{owner, id, 1}}
	if p.identity && owner != 0 && id != 0 {
		list = append(list, IDMap{0, 0, 1})
	}
	return list
}

// sandboxUserns returns the sandbox's own user namespace.
func (p *preparation) sandboxUserns() (fd int, err error) {
	if p.ownUserns < 0 {
		p.ownUserns, err = userNamespace(p.pid)
	}
	return p.ownUserns, err
}

// gatherDev makes /dev where device nodes can be made; otherwise init binds
// the host's.
func (p *preparation) gatherDev() error {
	if !p.root {
		return nil
	}
	list := append([]node(nil), nodes...)
	for i := range list {
		list[i].uid, list[i].gid = hostID(p.spec.UIDs, 0), hostID(p.spec.GIDs, 0)
	}
	for i := range p.spec.Devices {
		n, err := deviceNode(p.spec, &p.spec.Devices[i])
		if err != nil {
			return err
		}
		list = append(list, n)
	}
	fd, err := newDev(hostID(p.spec.UIDs, 0), hostID(p.spec.GIDs, 0), list)
	if errors.Is(err, unix.EPERM) && len(p.spec.Devices) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	p.setup.dev = p.add(fd)
	return nil
}

// deviceNode returns the node for a device of the host. It belongs to the user.
func deviceNode(spec *Spec, d *Device) (node, error) {
	fd, stat, err := openSource(d.Source)
	if err != nil {
		return node{}, err
	}
	unix.Close(fd)
	name, below := strings.CutPrefix(d.Target, "/dev/")
	switch {
	case stat.Mode&unix.S_IFMT != unix.S_IFCHR:
		return node{}, invalid(strconv.Quote(d.Source), "not a character device")
	case !below || strings.Contains(name, "/") || name == "" || name == "." || name == "..":
		return node{}, invalid(strconv.Quote(d.Target), "devices can only appear as /dev/NAME")
	}
	mode := uint32(0o600)
	if d.ReadOnly {
		mode = 0o400
	}
	who := user(spec)
	return node{
		name: name, major: unix.Major(stat.Rdev), minor: unix.Minor(stat.Rdev), mode: mode,
		uid: hostID(spec.UIDs, who.UID), gid: hostID(spec.GIDs, who.GID),
	}, nil
}

// gatherCgroup hands over what programs need to move themselves into the
// group, where they are not born in it.
func (p *preparation) gatherCgroup(group *cgroup.Group) error {
	if group == nil {
		return nil
	}
	files, err := group.ThreadFiles()
	if err != nil {
		return err
	}
	defer closeFiles(files)
	for _, f := range files {
		fd, err := high(int(f.Fd()))
		if err != nil {
			return err
		}
		p.setup.cgroups = append(p.setup.cgroups, p.add(fd))
	}
	return nil
}
