package kept

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/cgroup"
	"github.com/caissonrun/caisson/internal/disk"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/landlock"
)

// Examine finds out what the kernel can do for this process. Thorough also
// tries how folders like runtime's can be bounded.
func Examine(runtime string, thorough bool) Support {
	s := Support{
		Version: "Linux " + release(), Cgroup: cgroup.Probe(), Landlock: landlock.Available(),
		// Bounding folders is the caller's doing: see Spec.WorkLimited.
		Disk: disk.Support{Method: disk.MethodLoop},
	}
	if thorough {
		s.Disk = disk.Probe(runtime)
	}
	return s
}

func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	name, _, _ := bytes.Cut(u.Release[:], []byte{0})
	return string(name)
}

// Mapped reports whether this process can give sandboxes ids of the range: it
// is root, and the range exists in its user namespace.
func (r Range) Mapped() bool {
	return os.Geteuid() == 0 && r.mapped("/proc/self/uid_map") && r.mapped("/proc/self/gid_map")
}

// mapped reports whether one line of a map of ids has all of the range.
func (r Range) mapped(file string) bool {
	data, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range bytes.Lines(data) {
		var inside, outside, size uint64
		n, _ := fmt.Sscan(string(line), &inside, &outside, &size)
		if n == 3 && uint64(r.Base) >= inside && uint64(r.Base)+uint64(r.Count) <= inside+size {
			return true
		}
	}
	return false
}

// canIdmap reports whether a folder's files can be shown with other ids. Where
// that can't be found out, making the sandbox fails, with the reason.
func canIdmap(path string) bool { return !errors.Is(isolate.CheckIdmap(path), isolate.ErrNoIdmap) }

// fsType returns the kind of file system that a path is on.
func fsType(path string) (int64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	return int64(st.Type), err
}

// endGroup kills what is in a control group and removes it. One that does not
// exist is nil.
func endGroup(name string) error {
	if name == "" {
		return nil
	}
	g, err := cgroup.Open(name)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := g.Kill(); err != nil {
		return err
	}
	return g.Remove()
}

// killGroup kills what is in a control group.
func killGroup(name string) error {
	if name == "" {
		return nil
	}
	g, err := cgroup.Open(name)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return g.Kill()
}

// groups lists control groups by the beginning of their names.
func groups(prefix string) ([]string, error) { return cgroup.List(prefix) }

// asUser calls f on a thread that makes files as another user.
func asUser(uid, gid int, f func() error) error {
	if uid == os.Geteuid() && gid == os.Getegid() {
		return f()
	}
	return onThread(func() error {
		// These never fail by a return value: what they return is the former id.
		unix.Setfsgid(gid)
		unix.Setfsuid(uid)
		if now, _ := unix.SetfsuidRetUid(-1); now != uid {
			return fmt.Errorf("become user %d: not permitted", uid)
		}
		return f()
	})
}
