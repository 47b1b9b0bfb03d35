package isolate

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// An OCI runtime does not run among the host's files, but on a stage: a mount
// and pid namespace, and as a rule a user namespace, of its own, whose root is a
// tmpfs that holds the sandbox's root view, the runtime with the libraries of
// the host, and little else. So nothing is ever mounted on the host, a runtime
// that is fooled by an image finds nothing of the host's, and what it keeps
// about the sandbox goes with the stage. Pid 1 of the stage is this program:
// when it ends, the kernel ends the runtime and all that it started.

// stageName is the argv[0] of pid 1 of a stage.
const stageName = "runtime-init"

// Paths on the stage.
const (
	stageRoot   = "/rootfs"
	stageBundle = "/bundle"
	stageState  = "/state"
	stageInit   = "/init"
	stageSys    = "/sysfs"
	stageTools  = "/runtime" // holds the runtime's file
	stageFiles  = "/files"
	stageMounts = "/mounts" // holds the task's mounts once more
)

// hostTools are what a runtime that is not a static program may need. What is
// not there is left out.
var hostTools = []string{"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix", "etc/ld.so.cache"}

// A stage is built like the view of a sandbox, around one.
type stage struct {
	view  *view
	tools []tool
	root  int // the sandbox's root
	own   int // the stage's own root
}

// A tool is one of hostTools: a link, or a tree.
type tool struct {
	name   string
	link   string
	tree   int
	folder bool
}

// buildStage makes the calling process's mount namespace a stage, and returns
// the sandbox's root on it as an O_PATH descriptor.
func buildStage(s *setup) (int, error) {
	b := &stage{view: &view{setup: s, root: -1}}
	defer func() { closeAll(b.view.open) }()
	for _, step := range []func() error{b.gather, b.enter, b.furnish, b.fillRoot, b.write} {
		if err := step(); err != nil {
			return -1, err
		}
	}
	return unix.FcntlInt(uintptr(b.view.root), unix.F_DUPFD_CLOEXEC, initSocket+1)
}

// gather does what needs the host's mounts.
func (b *stage) gather() (err error) {
	v := b.view
	if err := v.gather(); err != nil {
		return err
	}
	if b.root, err = v.rootTree(); err != nil {
		return err
	}
	for _, name := range hostTools {
		if err := b.gatherTool(name); err != nil {
			return fmt.Errorf("/%s: %w", name, err)
		}
	}
	b.own, err = v.keep(newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, "mode", "0755", "size", "64m", "nr_inodes", "16k"))
	return err
}

// gatherTool takes one of the host's folders or files, or notes the link.
func (b *stage) gatherTool(name string) error {
	if link, err := os.Readlink("/" + name); err == nil {
		b.tools = append(b.tools, tool{name: name, link: link})
		return nil
	}
	fd, stat, err := openSource("/" + name)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	tree, err := b.view.keep(cloneTree(fd, mountAttrs|unix.MOUNT_ATTR_RDONLY, -1))
	if err != nil {
		return err
	}
	b.tools = append(b.tools, tool{name: name, tree: tree, folder: stat.Mode&unix.S_IFMT == unix.S_IFDIR})
	return nil
}

// enter makes the stage the root.
func (b *stage) enter() (err error) {
	if err := enter(b.own); err != nil {
		return err
	}
	for _, dir := range []string{
		stageRoot, stageBundle, stageState, stageTools, stageFiles, stageSys, "/proc", "/dev", "/etc", "/tmp", "/run",
		// Runtimes ask what kind of host it is. Unless they insist on more, it is
		// one without groups here.
		"/sys", "/sys/fs", "/sys/fs/cgroup",
	} {
		if err := unix.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("stage: %s: %w", dir, err)
		}
	}
	b.view.files, err = b.view.keep(unix.Open(stageFiles, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0))
	return err
}

// furnish attaches what the runtime needs.
func (b *stage) furnish() error {
	v, s := b.view, b.view.setup
	for _, t := range b.tools {
		if err := b.place(t); err != nil {
			return fmt.Errorf("stage: /%s: %w", t.name, err)
		}
	}
	if err := b.place(tool{name: s.runtimePath()[1:], tree: s.runtime}); err != nil {
		return fmt.Errorf("stage: runtime: %w", err)
	}
	if err := b.placeInit(); err != nil {
		return fmt.Errorf("stage: init: %w", err)
	}
	if s.sys {
		if err := b.place(tool{name: stageSys[1:], tree: v.sys, folder: true}); err != nil {
			return fmt.Errorf("stage: sysfs: %w", err)
		}
	}
	if s.showGroups {
		groups, err := v.keep(newMount("cgroup2", mountAttrs|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_RDONLY))
		if err == nil {
			err = b.place(tool{name: "sys/fs/cgroup", tree: groups, folder: true})
		}
		if err != nil {
			return fmt.Errorf("stage: control groups: %w", err)
		}
	}
	if s.loopback {
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	if err := b.furnishDev(); err != nil {
		return err
	}
	if err := b.place(tool{name: "proc", tree: v.proc, folder: true}); err != nil {
		return fmt.Errorf("stage: /proc: %w", err)
	}
	if s.nested || s.identity {
		return nil
	}
	return forbidUsers(v.proc)
}

// placeInit puts this program's file on the stage.
func (b *stage) placeInit() error {
	s := b.view.setup
	if !s.copyProgram {
		return b.place(tool{name: stageInit[1:], tree: s.program})
	}
	fd, err := unix.Open(stageInit, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	at := int64(0)
	for {
		n, err := unix.Sendfile(fd, s.program, &at, 16<<20)
		if err == nil && n == 0 {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return err
		}
	}
}

// furnishDev attaches the devices that the sandbox is given.
func (b *stage) furnishDev() (err error) {
	v := b.view
	dev := v.setup.dev
	if dev < 0 {
		if dev, err = v.keep(newMount("tmpfs", devAttrs, "mode", "0755", "size", "64k", "nr_inodes", "1k")); err != nil {
			return err
		}
		if err := fillDev(dev, os.Getuid(), os.Getgid()); err != nil {
			return err
		}
	}
	if err := b.place(tool{name: "dev", tree: dev, folder: true}); err != nil {
		return fmt.Errorf("stage: /dev: %w", err)
	}
	for i, tree := range v.nodes {
		if err := v.bindNode(dev, nodes[i].name, tree); err != nil {
			return fmt.Errorf("/dev/%s: %w", nodes[i].name, err)
		}
	}
	return nil
}

// place puts a tool at its name on the stage, where nobody else has been.
func (b *stage) place(t tool) error {
	path := "/" + t.name
	if t.link != "" {
		return unix.Symlink(t.link, path)
	}
	flags := unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if t.folder {
		if err := ignoreExists(unix.Mkdir(path, 0o755)); err != nil {
			return err
		}
	} else {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		unix.Close(fd)
	}
	at, err := unix.Open(path, flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return attach(t.tree, at)
}

// fillRoot makes the sandbox's root view, but for the kernel's file systems,
// which are the runtime's part. Their places are made here, and must not be
// links: runtimes have followed those (CVE-2026-41579, CVE-2026-47766).
func (b *stage) fillRoot() (err error) {
	v := b.view
	at, err := unix.Open(stageRoot, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = attach(b.root, at)
	unix.Close(at)
	if err != nil {
		return fmt.Errorf("root: %w", err)
	}
	if v.root, err = v.keep(unix.Open(stageRoot, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)); err != nil {
		return err
	}
	// Nothing of the task's can be mounted where something else is going to be.
	places := []string{"/proc", "/dev"}
	if v.setup.sys {
		places = append(places, "/sys")
	}
	if err := v.reserve(places); err != nil {
		return err
	}
	if err := v.fillRoot(); err != nil {
		return err
	}
	for i := range v.setup.mounts {
		if err := v.mount(&v.setup.mounts[i]); err != nil {
			return fmt.Errorf("mount %q: %w", v.setup.mounts[i].Target, err)
		}
	}
	for _, name := range places {
		if err := unix.Unmount(stageRoot+name, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if v.setup.identity {
		if err := b.showInit(); err != nil {
			return fmt.Errorf("%s: %w", sentryPath, err)
		}
		if err := b.showMounts(); err != nil {
			return err
		}
	}
	return v.seal()
}

// showInit puts this program's file into the root.
func (b *stage) showInit() error {
	fd, err := unix.Open(stageInit, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	tree, err := b.view.keep(cloneTree(fd, readOnlyFile, -1))
	if err != nil {
		return err
	}
	at, err := b.view.strict(sentryPath, false)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return attach(tree, at)
}

// showMounts binds the task's mounts where the runtime is told to find them.
func (b *stage) showMounts() error {
	v := b.view
	if err := unix.Mkdir(stageMounts, 0o755); err != nil {
		return err
	}
	for i := range v.setup.mounts {
		m := &v.setup.mounts[i]
		if err := b.showMount(m, stageMount(i)); err != nil {
			return fmt.Errorf("mount %q: %w", m.Target, err)
		}
	}
	return nil
}

func (b *stage) showMount(m *place, path string) error {
	folder := m.folder || m.Type == Tmpfs
	at, err := b.view.target(m.Target, folder)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	tree, err := b.view.keep(cloneTree(at, 0, -1))
	if err != nil {
		return err
	}
	return b.place(tool{name: path[1:], tree: tree, folder: folder})
}

// stageMount is where the stage has the task's mount of a number once more.
func stageMount(i int) string { return stageMounts + "/" + strconv.Itoa(i) }

// reserve has a mount at each place, that nobody else is given.
func (v *view) reserve(places []string) error {
	guard, err := v.keep(newMount("tmpfs", mountAttrs|unix.MOUNT_ATTR_RDONLY, "size", "4k", "nr_inodes", "2"))
	if err != nil {
		return err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(guard, &stat); err != nil {
		return err
	}
	v.guard = stat.Dev
	for i, name := range places {
		tree := guard
		if i > 0 {
			if tree, err = v.keep(cloneTree(guard, 0, -1)); err != nil {
				return err
			}
		}
		if err := v.attachTo(name, tree); err != nil {
			return err
		}
	}
	// What runtimes mask must not lead elsewhere either.
	fd, _, err := v.existing("/sys")
	closeAll([]int{fd})
	return err
}

// write writes the bundle.
func (b *stage) write() error {
	fd, err := unix.Open(stageBundle+"/config.json", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	defer unix.Close(fd)
	for rest := b.view.setup.config; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("bundle: %w", err)
		}
		rest = rest[max(n, 0):]
	}
	return nil
}

// runtimePath is where the runtime's file is on the stage. Some look at their
// own name.
func (s *setup) runtimePath() string { return stageTools + "/" + s.runtimeName }
