package isolate

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// mountAttrs are the attributes of all mounts but /dev.
const mountAttrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV

// A view builds the root view: what programs see as the file system.
type view struct {
	setup *setup
	root  int // the new root's folder
	proc  int // mounts that can only be made while the host's are visible
	sys   int
	nodes []int  // the host's devices, as trees
	guard uint64 // the device of places that are the runtime's; 0: there are none
	files int    // a folder for files that are laid over an image's; 0: none yet
	open  []int  // to be closed in the end
}

// buildView makes the calling process's mount namespace what the setup says,
// with nothing of the host in it, and returns the root as an O_PATH descriptor.
func buildView(s *setup) (root int, err error) {
	v := &view{setup: s, root: -1}
	defer func() { closeAll(v.open) }()
	for _, step := range []func() error{
		v.gather, v.pivot, v.fillRoot, v.mountProc, v.mountDev, v.mountAll, v.hide, v.seal, v.finish,
	} {
		if err := step(); err != nil {
			return -1, err
		}
	}
	return unix.FcntlInt(uintptr(v.root), unix.F_DUPFD_CLOEXEC, initSocket+1)
}

// keep has a descriptor closed in the end.
func (v *view) keep(fd int, err error) (int, error) {
	if err == nil {
		v.open = append(v.open, fd)
	}
	return fd, err
}

// gather does what needs the host's mounts.
func (v *view) gather() (err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if v.proc, err = v.keep(newMount("proc", mountAttrs|unix.MOUNT_ATTR_NOEXEC)); err != nil {
		return err
	}
	if v.setup.sysTree >= 0 {
		v.sys = v.setup.sysTree
	} else if v.setup.sys {
		if v.sys, err = v.keep(newMount("sysfs", mountAttrs|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_RDONLY)); err != nil {
			return err
		}
	}
	s := v.setup
	for i := range s.mounts {
		m := &s.mounts[i]
		if m.Type == Bind && s.alone {
			if m.source, err = v.keep(takeSource(m.Source, m.source, bindAttrs(&m.Mount))); err != nil {
				return err
			}
		}
	}
	if s.root >= 0 && s.alone {
		if s.root, err = v.keep(takeSource(s.rootPath, s.root, mountAttrs)); err != nil {
			return err
		}
	}
	if s.changes >= 0 && s.alone {
		if s.changes, err = v.keep(takeSource(s.changesPath, s.changes, mountAttrs)); err != nil {
			return err
		}
	}
	if s.changes >= 0 {
		if s.root, err = v.keep(newOverlay(s.root, s.changes)); err != nil {
			return err
		}
	}
	if s.dev < 0 {
		for _, n := range nodes {
			fd, err := unix.Open("/dev/"+n.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("device %s: %w", n.name, err)
			}
			tree, err := v.keep(cloneTree(fd, devAttrs, -1))
			unix.Close(fd)
			if err != nil {
				return fmt.Errorf("device %s: %w", n.name, err)
			}
			v.nodes = append(v.nodes, tree)
		}
	}
	return nil
}

// takeSource clones the mounts at a path of the host's, which must be what the
// parent has opened there.
func takeSource(name string, opened int, attrs uint64) (int, error) {
	var want unix.Stat_t
	if err := unix.Fstat(opened, &want); err != nil {
		return -1, sourceError(name, err)
	}
	fd, got, err := openSource(name)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	if got.Dev != want.Dev || got.Ino != want.Ino {
		return -1, &caisson.Error{Item: strconv.Quote(name), Kind: caisson.ErrDenied, Err: errors.New("was replaced meanwhile")}
	}
	tree, err := cloneTree(fd, attrs, -1)
	if err != nil {
		return -1, fmt.Errorf("%q: %w", name, err)
	}
	return tree, nil
}

// pivot makes the new root the root. From then on no path leads to the host.
func (v *view) pivot() error {
	tree, err := v.rootTree()
	if err != nil {
		return err
	}
	if err := enter(tree); err != nil {
		return err
	}
	v.root, err = v.keep(unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0))
	return err
}

// rootTree returns the mount that becomes the root. It is called while the
// host's are visible, and kept.
func (v *view) rootTree() (int, error) {
	if v.setup.root >= 0 {
		return v.setup.root, nil
	}
	return v.keep(newMount("tmpfs", mountAttrs, "mode", "0755", "size", "32m", "nr_inodes", "16k"))
}

// enter makes a mount the root, and takes the host's away.
func enter(tree int) error {
	// Any folder will do to attach it at, and this one is always there.
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the root: %w", err)
	}
	if err := unix.Fchdir(tree); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the host: %w", err)
	}
	return unix.Chdir("/")
}

// fillRoot makes the entries.
func (v *view) fillRoot() error {
	var files []*Entry
	for i := range v.setup.entries {
		e := &v.setup.entries[i]
		if v.image() && e.Link == "" && !e.Dir {
			files = append(files, e)
			continue
		}
		if err := v.make(e); err != nil {
			return fmt.Errorf("%q: %w", e.Path, err)
		}
	}
	if len(files) == 0 {
		return nil
	}
	return v.overlay(files)
}

// image reports whether the root is a folder of the host's, in which others
// may have prepared links.
func (v *view) image() bool { return v.setup.root >= 0 }

// make makes one entry in the root itself.
func (v *view) make(e *Entry) error {
	dir, err := v.folder(path.Dir(e.Path))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	name := path.Base(e.Path)
	if e.Link != "" {
		return unix.Symlinkat(e.Link, dir, name)
	}
	if e.Dir {
		if err := unix.Mkdirat(dir, name, modeOr(e.Mode, 0o755)); err != nil && err != unix.EEXIST {
			return err
		}
		if e.Owned {
			return unix.Fchownat(dir, name, v.setup.uid, v.setup.gid, unix.AT_SYMLINK_NOFOLLOW)
		}
		return nil
	}
	return v.write(dir, name, e)
}

// write makes a new file.
func (v *view) write(dir int, name string, e *Entry) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, modeOr(e.Mode, 0o644))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for rest := e.Contents; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil && err != unix.EINTR {
			return err
		}
		rest = rest[max(n, 0):]
	}
	if e.Owned {
		return unix.Fchown(fd, v.setup.uid, v.setup.gid)
	}
	return nil
}

func modeOr(mode, usual uint32) uint32 {
	if mode == 0 {
		return usual
	}
	return mode & 0o7777
}

// overlay lays files over those of an image: they are written to a tmpfs and
// bound one by one.
func (v *view) overlay(files []*Entry) error {
	if v.files > 0 {
		return v.overlayAll(v.files, files)
	}
	// The tmpfs must be attached for its files to be bound. It is where /proc
	// will be, for this long.
	tmp, err := v.keep(newMount("tmpfs", mountAttrs, "mode", "0755", "size", "32m"))
	if err != nil {
		return err
	}
	at, err := v.strict("/proc", true)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if err := attach(tmp, at); err != nil {
		return err
	}
	if err := v.overlayAll(tmp, files); err != nil {
		return err
	}
	return unix.Unmount("/proc", unix.MNT_DETACH)
}

func (v *view) overlayAll(tmp int, files []*Entry) error {
	for i, e := range files {
		if err := v.overlayFile(tmp, strconv.Itoa(i), e); err != nil {
			return fmt.Errorf("%q: %w", e.Path, err)
		}
	}
	return nil
}

func (v *view) overlayFile(tmp int, name string, e *Entry) error {
	if err := v.write(tmp, name, e); err != nil {
		return err
	}
	fd, err := unix.Openat(tmp, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	tree, err := cloneTree(fd, mountAttrs|unix.MOUNT_ATTR_RDONLY, -1)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return v.place(tree, e.Path, false)
}

// mountProc mounts /proc.
func (v *view) mountProc() error {
	at, err := v.strict("/proc", true)
	if err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	defer unix.Close(at)
	if err := attach(v.proc, at); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	if err := v.setSysctls(); err != nil {
		return err
	}
	if v.setup.nested {
		return nil
	}
	return forbidUsers(v.proc)
}

// forbidUsers has no user namespace be made in this one: it would give back all
// capabilities in it, and with them most of what the kernel has bugs in.
func forbidUsers(proc int) error {
	fd, err := unix.Openat(proc, "sys/user/max_user_namespaces", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("forbid user namespaces: %w", err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, zeroText); err != nil {
		return fmt.Errorf("forbid user namespaces: %w", err)
	}
	return nil
}

// mountDev mounts /dev, with terminals and shared memory of its own.
func (v *view) mountDev() (err error) {
	dev := v.setup.dev
	if dev < 0 {
		if dev, err = v.keep(newMount("tmpfs", devAttrs, "mode", "0755", "size", "64k", "nr_inodes", "1k")); err != nil {
			return err
		}
		if err := fillDev(dev, os.Getuid(), os.Getgid()); err != nil {
			return err
		}
	}
	if err := v.attachTo("/dev", dev); err != nil {
		return err
	}
	for i, tree := range v.nodes {
		if err := v.bindNode(dev, nodes[i].name, tree); err != nil {
			return fmt.Errorf("/dev/%s: %w", nodes[i].name, err)
		}
	}
	if err := unix.MountSetattr(dev, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("/dev: %w", err)
	}
	const noExec = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	pts, err := v.keep(newMount("devpts", noExec, "ptmxmode", "0666", "mode", "0620"))
	if err != nil {
		return err
	}
	if err := v.attachTo("/dev/pts", pts); err != nil {
		return err
	}
	shm, err := v.keep(newMount("tmpfs", noExec|unix.MOUNT_ATTR_NODEV, "mode", "1777", "size", strconv.FormatInt(v.setup.shm, 10)))
	if err != nil {
		return err
	}
	return v.attachTo("/dev/shm", shm)
}

// attachTo attaches a mount at a path that must hold no links.
func (v *view) attachTo(target string, tree int) error {
	at, err := v.strict(target, true)
	if err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	defer unix.Close(at)
	if err := attach(tree, at); err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	return nil
}

// bindNode binds a device of the host's.
func (v *view) bindNode(dev int, name string, tree int) error {
	fd, err := unix.Openat(dev, name, unix.O_RDONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return attach(tree, fd)
}

// mountAll makes the mounts, in order.
func (v *view) mountAll() error {
	for i := range v.setup.mounts {
		if err := v.mount(&v.setup.mounts[i]); err != nil {
			return fmt.Errorf("mount %q: %w", v.setup.mounts[i].Target, err)
		}
	}
	if v.setup.sys {
		return v.attachTo("/sys", v.sys)
	}
	return nil
}

func (v *view) mount(m *place) error {
	if m.Type == Bind {
		return v.place(m.source, m.Target, m.folder)
	}
	options := []string{
		"mode", strconv.FormatUint(uint64(modeOr(m.Mode, 0o1777)), 8),
		"uid", strconv.Itoa(v.setup.uid), "gid", strconv.Itoa(v.setup.gid),
	}
	if m.Size > 0 {
		options = append(options, "size", strconv.FormatInt(int64(m.Size), 10))
	}
	attrs := mountAttrs
	if m.ReadOnly {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	tree, err := newMount("tmpfs", attrs, options...)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return v.place(tree, m.Target, true)
}

// place attaches a mount at a path of the task's choosing.
func (v *view) place(tree int, target string, folder bool) error {
	at, err := v.target(target, folder)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return attach(tree, at)
}

// attach attaches a mount where an open file or folder is.
func attach(tree, at int) error {
	err := unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// finish does what is not about files.
func (v *view) finish() error {
	if err := unix.Sethostname([]byte(v.setup.hostname)); err != nil {
		return fmt.Errorf("hostname %q: %w", v.setup.hostname, err)
	}
	if v.setup.loopback {
		return loopbackUp()
	}
	return nil
}

// loopbackUp switches the loopback device on, without which programs can't
// even talk to themselves.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == unix.EAFNOSUPPORT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}
