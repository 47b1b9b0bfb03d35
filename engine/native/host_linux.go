package native

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

// examine finds out what the kernel can do for this process. Thorough also
// tries how folders like runtime's can be bounded.
func examine(runtime string, thorough bool) support {
	s := support{
		version: "Linux " + release(), cgroup: cgroup.Probe(), landlock: landlock.Available(),
		// Bounding folders is the caller's doing: see Spec.WorkLimited.
		disk: disk.Support{Method: disk.MethodLoop},
	}
	if thorough {
		s.disk = disk.Probe(runtime)
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

// ownIDs reports whether this process can give sandboxes ids of their own: it
// is root, and the range exists in its user namespace.
func ownIDs(o *Options) bool {
	if os.Geteuid() != 0 {
		return false
	}
	return mapped("/proc/self/uid_map", o) && mapped("/proc/self/gid_map", o)
}

// mapped reports whether one line of a map of ids has all of the range.
func mapped(file string, o *Options) bool {
	data, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range bytes.Lines(data) {
		var inside, outside, size uint64
		n, _ := fmt.Sscan(string(line), &inside, &outside, &size)
		if n == 3 && uint64(o.IDBase) >= inside && uint64(o.IDBase)+uint64(o.IDCount) <= inside+size {
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
