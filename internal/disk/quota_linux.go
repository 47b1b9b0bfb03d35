package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// Projects of Caisson's are chosen by chance from a range that
	// administrators, who count from 1, do not reach.
	firstProject = 1 << 30
	lastProject  = 1<<31 - 1
	// bytesPerFile is how many bytes of room come with the right to one more
	// file: the usual ratio of ext4.
	bytesPerFile = 16 << 10
	fewestFiles  = 64
)

// From linux/quota.h and linux/fs.h, which golang.org/x/sys does not have.
const (
	prjQuota        = 2
	qGetQuota       = 0x800007<<8 | prjQuota
	qSetQuota       = 0x800008<<8 | prjQuota
	quotaBlock      = 1024
	validLimits     = 1 | 4 // of blocks and of inodes
	fsGetXattr      = 0x801c581f
	fsSetXattr      = 0x401c5820
	inheritProject  = 0x200
	chooseAnewTimes = 100
)

// A limit is struct if_dqblk.
type limit struct {
	blockHard, blockSoft, space  uint64
	inodeHard, inodeSoft, inodes uint64
	blockTime, inodeTime         uint64
	valid                        uint32
	_                            uint32
}

// An attributes is struct fsxattr.
type attributes struct {
	flags, extent, extents, project, cow uint32
	_                                    [8]byte
}

// quotaUsable asks for a quota, which only a file system that keeps them has.
func quotaUsable(dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can set one")
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := getLimit(f, firstProject); err != nil {
		return fmt.Errorf("the file system of %s keeps no project quotas: %w", dir, err)
	}
	return nil
}

// quotaPlan chooses a project that nobody uses.
func quotaPlan(p *Place) error {
	f, err := os.Open(p.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for range chooseAnewTimes {
		id := firstProject + rand.Uint32N(lastProject-firstProject)
		now, err := getLimit(f, id)
		if err != nil {
			return fmt.Errorf("project quota: %w", err)
		}
		if now.blockHard == 0 && now.space == 0 && now.inodes == 0 {
			p.Project = id
			return nil
		}
	}
	return errors.New("project quota: no unused project is found")
}

// quotaMake sets the limit before the folder joins the project, so that there
// is no moment without one.
func quotaMake(_ context.Context, p *Place) error {
	f, err := os.Open(p.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	files := max(uint64(p.Size)/bytesPerFile, fewestFiles)
	err = setLimit(f, p.Project, &limit{blockHard: max(uint64(p.Size)/quotaBlock, 1), inodeHard: files, valid: validLimits})
	if err != nil {
		return err
	}
	return setProject(f, p.Project)
}

// quotaUndo takes the limit away. The folder's files stay in the project,
// where nothing counts any more. Where the folder is gone, the limit still
// stands in the file system's table, which is reached through the folder above.
func quotaUndo(_ context.Context, p *Place) error {
	f, err := os.Open(p.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(filepath.Dir(p.Dir))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return setLimit(f, p.Project, &limit{valid: validLimits})
}

func getLimit(f *os.File, project uint32) (limit, error) {
	var l limit
	return l, quotactl(f, qGetQuota, project, &l)
}

func setLimit(f *os.File, project uint32, l *limit) error {
	if err := quotactl(f, qSetQuota, project, l); err != nil {
		return fmt.Errorf("set quota of project %d: %w", project, err)
	}
	return nil
}

func quotactl(f *os.File, cmd int, project uint32, l *limit) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), uintptr(cmd), uintptr(project), uintptr(unsafe.Pointer(l)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// setProject puts a folder, and what will be made in it, into a project.
func setProject(f *os.File, project uint32) error {
	var a attributes
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsGetXattr, uintptr(unsafe.Pointer(&a))); errno != 0 {
		return fmt.Errorf("project of %s: %w", f.Name(), errno)
	}
	a.project, a.flags = project, a.flags|inheritProject
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsSetXattr, uintptr(unsafe.Pointer(&a))); errno != 0 {
		return fmt.Errorf("put %s into project %d: %w", f.Name(), project, errno)
	}
	return nil
}

// unprivileged calls f on a thread of its own without the capability to ignore
// quotas. The thread ends with it.
func unprivileged(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := dropSysResource()
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// dropSysResource takes CAP_SYS_RESOURCE from the calling thread.
func dropSysResource() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return err
	}
	sets[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	return unix.Capset(&header, &sets[0])
}
