package isolate

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// openSource opens what is bound from the host, through no symbolic link.
func openSource(path string) (fd int, stat *unix.Stat_t, err error) {
	fd, err = unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return -1, nil, sourceError(path, err)
	}
	stat = new(unix.Stat_t)
	if err := unix.Fstat(fd, stat); err != nil {
		unix.Close(fd)
		return -1, nil, sourceError(path, err)
	}
	return fd, stat, nil
}

// sourceError says what to do about a source that can't be opened.
func sourceError(path string, err error) error {
	kind := caisson.ErrUnknown
	switch err {
	case unix.ENOENT, unix.ENOTDIR:
		kind = caisson.ErrNotFound
	case unix.ELOOP:
		kind, err = caisson.ErrDenied, fmt.Errorf("leads through a symbolic link, give the path it leads to: %w", err)
	case unix.EACCES, unix.EPERM:
		kind = caisson.ErrDenied
	case unix.ENOSYS:
		kind, err = caisson.ErrUnsupported, fmt.Errorf("openat2 needs Linux 5.6: %w", err)
	}
	return &caisson.Error{Item: strconv.Quote(path), Kind: kind, Err: err}
}

// cloneTree returns a private copy of the mounts at and below fd, attached
// nowhere, with the attributes set on all of them. userns, if not -1, has
// them show other ids.
func cloneTree(fd int, attrs uint64, userns int) (int, error) {
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("open_tree: %w", err)
	}
	if err := setTree(tree, attrs, userns); err != nil {
		unix.Close(tree)
		return -1, err
	}
	return tree, nil
}

// setTree sets attributes on a tree that is attached nowhere.
func setTree(tree int, attrs uint64, userns int) error {
	// Nothing that is mounted on the host later may appear inside.
	attr := unix.MountAttr{Attr_set: attrs, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	if userns < 0 {
		return nil
	}
	attr = unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns)}
	switch err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err {
	case nil:
		return nil
	case unix.EINVAL, unix.EOPNOTSUPP, unix.EPERM:
		return fmt.Errorf("%w: %w", ErrNoIdmap, err)
	default:
		return fmt.Errorf("mount_setattr: %w", err)
	}
}

// newMount returns a new mount of a file system, attached nowhere. Options are
// pairs of key and value; an empty value is a flag's.
func newMount(kind string, attrs int, options ...string) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", kind, err)
	}
	defer unix.Close(fs)
	for i := 0; i+1 < len(options); i += 2 {
		if err := setOption(fs, options[i], options[i+1]); err != nil {
			return -1, fmt.Errorf("%s option %s: %w", kind, options[i], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create %s: %w", kind, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("fsmount %s: %w", kind, err)
	}
	return fd, nil
}

func setOption(fs int, key, value string) error {
	if value == "" {
		return unix.FsconfigSetFlag(fs, key)
	}
	return unix.FsconfigSetString(fs, key, value)
}

// CheckIdmap returns nil if a bind of the folder or file at path, which has no
// symbolic links in it, may have an Owner, and ErrNoIdmap if its file system
// can't do that. It needs root.
func CheckIdmap(path string) error {
	fd, _, err := openSource(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ids := []IDMap{{Inside: 0, Host: 65534, Size: 1}}
	userns, err := newUserNamespace(ids, ids)
	if err != nil {
		return err
	}
	defer unix.Close(userns)
	tree, err := cloneTree(fd, 0, userns)
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	return unix.Close(tree)
}

// newUserNamespace returns a user namespace with the maps. A process must be
// in it while it is set up.
func newUserNamespace(uids, gids []IDMap) (int, error) {
	i := &infant{flags: unix.CLONE_NEWUSER, intoFD: -1, report: -1, hold: true}
	pid, pidfd, err := i.fork(uids, gids)
	if err != nil {
		return -1, err
	}
	defer reap(pid, pidfd)
	defer unix.Close(i.sync[1])
	return userNamespace(pid)
}

// userNamespace opens the user namespace of a process.
func userNamespace(pid int) (int, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("user namespace: %w", err)
	}
	return fd, nil
}

// ownProgram returns the file of this very program on a read-only mount, or,
// where that can't be had, a sealed copy of it in memory.
func ownProgram() (int, error) {
	fd, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("own program: %w", err)
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return -1, fmt.Errorf("own program: %w", err)
	}
	if stat.Mode&0o001 == 0 {
		return copyProgram()
	}
	tree, err := cloneTree(fd, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID, -1)
	if err != nil {
		return copyProgram()
	}
	return tree, nil
}

// pathOfProgram returns this program's path, or "" if that path now leads to
// another file.
func pathOfProgram() string {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return ""
	}
	var here, there unix.Stat_t
	if unix.Stat("/proc/self/exe", &here) != nil || unix.Stat(path, &there) != nil ||
		here.Dev != there.Dev || here.Ino != there.Ino {
		return ""
	}
	return path
}

// copyProgram copies this program's file to memory.
func copyProgram() (int, error) {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return -1, fmt.Errorf("own program: %w", err)
	}
	defer from.Close()
	fd, err := unix.MemfdCreate(initName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate(initName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, fmt.Errorf("own program: memfd: %w", err)
	}
	for {
		n, err := unix.Sendfile(fd, int(from.Fd()), nil, 16<<20)
		if err == nil && n == 0 {
			break
		}
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return -1, fmt.Errorf("own program: copy: %w", err)
		}
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("own program: seal: %w", err)
	}
	return fd, nil
}
