//go:build unix

package safefs

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/caissonrun/caisson/internal/atomicfile"
	"golang.org/x/sys/unix"
)

// MkdirAll makes the folder name and those above it that are missing, with the
// permission bits perm whatever the umask is. Owner is who new folders belong
// to, nil the caller.
func (r *Root) MkdirAll(name string, perm fs.FileMode, owner *Owner) error {
	fd, err := r.openDir("mkdir", name, oPath)
	if err == nil {
		return unix.Close(fd)
	}
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if fd, err = r.openDir("mkdir", ".", oPath); err != nil {
		return err
	}
	for element := range strings.SplitSeq(name, "/") {
		next, err := r.makeDir(fd, element, perm, owner)
		unix.Close(fd)
		if err != nil {
			return pathErr("mkdir", name, err)
		}
		fd = next
	}
	return unix.Close(fd)
}

// makeDir opens a folder in dir, and makes it if it is missing.
func (r *Root) makeDir(dir int, element string, perm fs.FileMode, owner *Owner) (int, error) {
	made := unix.Mkdirat(dir, element, 0o700)
	if made != nil && !errors.Is(made, unix.EEXIST) {
		return -1, made
	}
	fd, err := r.resolve(dir, element, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil || made != nil {
		return fd, err
	}
	if err := settle(fd, perm, owner); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// settle gives a new file its owner and then its permission bits.
func settle(fd int, perm fs.FileMode, owner *Owner) error {
	if owner != nil {
		if err := unix.Fchown(fd, owner.UID, owner.GID); err != nil {
			return err
		}
	}
	return unix.Fchmod(fd, uint32(perm.Perm()))
}

// Create makes a new file and opens it for writing. Errors: EEXIST if anything
// has the name.
func (r *Root) Create(name string, perm fs.FileMode, owner *Owner) (*os.File, error) {
	dir, base, err := r.openParent("create", name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	f, err := r.create(dir, base, perm, owner)
	return f, pathErr("create", name, err)
}

func (r *Root) create(dir int, base string, perm fs.FileMode, owner *Owner) (*os.File, error) {
	fd, err := r.resolve(dir, base, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := settle(fd, perm, owner); err != nil {
		unix.Close(fd)
		return nil, errors.Join(err, unix.Unlinkat(dir, base, 0))
	}
	return os.NewFile(uintptr(fd), base), nil
}

// A Temp is a file that is being written and appears at its name only with
// Commit. It can be read as well.
type Temp struct {
	*os.File
	root *Root
	dir  int // the folder it is in; -1 once it is done
	temp string
	base string
	name string
}

// CreateTemp begins a file that will appear as name. The folder it is in must
// exist. The caller must call Close, which takes back what was not committed.
func (r *Root) CreateTemp(name string, perm fs.FileMode, owner *Owner) (*Temp, error) {
	dir, base, err := r.openParent("create", name)
	if err != nil {
		return nil, err
	}
	temp := atomicfile.TempName()
	f, err := r.create(dir, temp, perm, owner)
	if err != nil {
		unix.Close(dir)
		return nil, pathErr("create", name, err)
	}
	return &Temp{File: f, root: r, dir: dir, temp: temp, base: base, name: name}, nil
}

// Commit puts the file at its name, in place of a file or link that is there.
// If durable is set it survives a power cut from then on. Errors: EISDIR or
// EEXIST if there is a folder.
func (t *Temp) Commit(durable bool) error {
	if t.dir < 0 {
		return pathErr("commit", t.name, fs.ErrClosed)
	}
	if durable {
		if err := t.Sync(); err != nil {
			return err
		}
	}
	if err := unix.Renameat(t.dir, t.temp, t.dir, t.base); err != nil {
		return pathErr("commit", t.name, err)
	}
	var err error
	if durable {
		err = t.root.syncDir(t.dir)
	}
	unix.Close(t.dir)
	t.dir = -1
	return errors.Join(pathErr("commit", t.name, err), t.File.Close())
}

// Close closes the file and, unless it was committed, removes it. It can be
// called again and after Commit.
func (t *Temp) Close() error {
	if t.dir < 0 {
		return nil
	}
	err := unix.Unlinkat(t.dir, t.temp, 0)
	unix.Close(t.dir)
	t.dir = -1
	return errors.Join(pathErr("remove", t.name, err), t.File.Close())
}

// WriteFile makes name hold data, completely or not at all, in place of
// whatever was there but a folder. Folders above it that are missing are made
// with mode 0755.
func (r *Root) WriteFile(name string, data []byte, perm fs.FileMode, owner *Owner) error {
	if err := r.mkParent(name, owner); err != nil {
		return err
	}
	t, err := r.CreateTemp(name, perm, owner)
	if err != nil {
		return err
	}
	defer t.Close()
	if _, err := t.Write(data); err != nil {
		return err
	}
	return t.Commit(false)
}

// mkParent makes the folder that name is in.
func (r *Root) mkParent(name string, owner *Owner) error {
	if cut := strings.LastIndexByte(name, '/'); cut > 0 {
		return r.MkdirAll(name[:cut], 0o755, owner)
	}
	return nil
}

// Symlink makes name a symbolic link to target, which is not looked at. Errors:
// EEXIST if anything has the name.
func (r *Root) Symlink(target, name string, owner *Owner) error {
	dir, base, err := r.openParent("symlink", name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	err = unix.Symlinkat(target, dir, base)
	if err == nil && owner != nil {
		err = unix.Fchownat(dir, base, owner.UID, owner.GID, unix.AT_SYMLINK_NOFOLLOW)
	}
	return pathErr("symlink", name, err)
}

// Rename moves from to to, in place of a file, link or empty folder there.
func (r *Root) Rename(from, to string) error {
	return Move(r, from, r, to)
}

// Move moves a file or folder from one Root to another on the same file
// system, in place of a file, link or empty folder there.
func Move(src *Root, from string, dst *Root, to string) error {
	fromDir, fromBase, err := src.openParent("rename", from)
	if err != nil {
		return err
	}
	defer unix.Close(fromDir)
	toDir, toBase, err := dst.openParent("rename", to)
	if err != nil {
		return err
	}
	defer unix.Close(toDir)
	if err := unix.Renameat(fromDir, fromBase, toDir, toBase); err != nil {
		return &fs.PathError{Op: "rename", Path: from, Err: err}
	}
	return nil
}

// Sync makes the names in the folder name durable.
func (r *Root) Sync(name string) error {
	dir, err := r.openDir("sync", name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return pathErr("sync", name, unix.Fsync(dir))
}

// syncDir makes the names in a folder durable that is open as a place only.
func (r *Root) syncDir(place int) error {
	dir, err := r.resolve(place, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Fsync(dir)
}

// Chmod changes the permission bits of a file or folder; set-id bits are
// cleared.
func (r *Root) Chmod(name string, perm fs.FileMode) error {
	dir, err := r.openParentOrRoot("chmod", name)
	if err != nil {
		return err
	}
	defer unix.Close(dir.fd)
	return pathErr("chmod", name, chmodAt(r, dir.fd, dir.base, uint32(perm.Perm())))
}

type placeIn struct {
	fd   int
	base string
}

// openParentOrRoot is openParent that finds the root as "." in itself.
func (r *Root) openParentOrRoot(op, name string) (placeIn, error) {
	if name == "." {
		fd, err := r.openDir(op, ".", oPath)
		return placeIn{fd, "."}, err
	}
	fd, base, err := r.openParent(op, name)
	return placeIn{fd, base}, err
}

// Link makes name another name of the regular file old. Errors: EEXIST if
// anything has the name; ErrLink and ErrType if old is not a regular file.
func (r *Root) Link(old, name string) error { return Link(r, old, r, name) }

// Link is Root.Link from one Root to another on the same file system.
func Link(src *Root, old string, dst *Root, name string) error {
	oldDir, oldBase, err := src.openParent("link", old)
	if err != nil {
		return err
	}
	defer unix.Close(oldDir)
	dir, base, err := dst.openParent("link", name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	info, err := statAt(oldDir, oldBase)
	if err == nil {
		err = wantRegular(info.Mode)
	}
	if err == nil {
		err = unix.Linkat(oldDir, oldBase, dir, base, 0)
	}
	if err != nil {
		return pathErr("link", name, err)
	}
	// Somebody may have swapped old since it was looked at.
	if info, err = statAt(dir, base); err == nil {
		err = wantRegular(info.Mode)
	}
	if err != nil {
		return errors.Join(pathErr("link", name, err), unix.Unlinkat(dir, base, 0))
	}
	return nil
}
