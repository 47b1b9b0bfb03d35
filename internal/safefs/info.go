//go:build unix

package safefs

import (
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// Info is what Stat and Walk tell about a file. Links are never followed.
type Info struct {
	Name    string      // last element
	Mode    fs.FileMode // type and permission bits, set-id and sticky too
	Size    int64       // bytes
	Blocks  int64       // bytes on disk
	ModTime time.Time
	UID     int
	GID     int
	Links   uint64 // hard links
	Dev     uint64
	Ino     uint64
}

// SameFile reports whether both are the same file on disk.
func (i *Info) SameFile(o *Info) bool { return i.Dev == o.Dev && i.Ino == o.Ino }

func infoOf(name string, st *unix.Stat_t) Info {
	return Info{
		Name:    name,
		Mode:    modeOf(uint32(st.Mode)),
		Size:    st.Size,
		Blocks:  int64(st.Blocks) * 512,
		ModTime: time.Unix(st.Mtim.Unix()),
		UID:     int(st.Uid),
		GID:     int(st.Gid),
		Links:   uint64(st.Nlink),
		Dev:     uint64(st.Dev),
		Ino:     uint64(st.Ino),
	}
}

// modeOf translates the system's mode.
func modeOf(sys uint32) fs.FileMode {
	mode := fs.FileMode(sys & 0o777)
	switch sys & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFREG:
	default:
		mode |= fs.ModeIrregular
	}
	if sys&unix.S_ISUID != 0 {
		mode |= fs.ModeSetuid
	}
	if sys&unix.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	if sys&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}

// statAt describes the element name of the folder dir.
func statAt(dir int, name string) (Info, error) {
	var st unix.Stat_t
	_, err := ignoringEINTR(func() (int, error) {
		return 0, unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	return infoOf(name, &st), err
}

// statFD describes an open file.
func statFD(fd int, name string) (Info, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return infoOf(name, &st), err
}
