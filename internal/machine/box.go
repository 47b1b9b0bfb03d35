package machine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

// insideDir is where a machine's files are in its QEMU's sandbox.
const insideDir = "/machine"

// Confine adds to a sandbox what this QEMU needs in order to be the machine, and
// nothing else: its program with libraries and firmware, read-only, and the
// machine's files. It returns the spec with the files' places inside. Ids, user,
// cgroup and name of the sandbox are the caller's, who starts the program with
// QMP and Agent as two of its three descriptors: no folder is writable inside.
//
// owner says who writable disks and shares belong to on disk, where that is not
// the sandbox's user; see isolate.Mount.
//
// Errors: ErrInvalid if a channel is a Listener, for which there is no folder;
// ErrNotFound if a file is not there.
func (q *QEMU) Confine(box *isolate.Spec, s *Spec, owner *isolate.User) (*Spec, error) {
	c := confiner{box: box, owner: owner}
	in := *s
	for _, ch := range []Channel{s.QMP, s.Agent, s.Console} {
		if ch.form == listener {
			return nil, invalid("channel", "%q: nothing can listen in a sandbox", ch.path)
		}
	}
	if err := c.program(q.Path); err != nil {
		return nil, err
	}
	in.Kernel = c.file("kernel", s.Kernel, true)
	in.Initrd = c.file("initrd", s.Initrd, true)
	in.Disks, in.Shares = slices.Clone(s.Disks), slices.Clone(s.Shares)
	for i := range in.Disks {
		d := &in.Disks[i]
		d.Path = c.file("disk-"+d.Name, d.Path, d.ReadOnly)
		if d.Base != nil {
			base := *d.Base
			base.Path = c.file("base-"+d.Name, base.Path, true)
			d.Base = &base
		}
	}
	for i := range in.Shares {
		share := &in.Shares[i]
		share.Path = c.file("share-"+share.Tag, share.Path, share.ReadOnly)
	}
	if s.Accel == KVM {
		box.Devices = append(box.Devices, isolate.Device{Source: "/dev/kvm", Target: "/dev/kvm"})
	}
	box.Seccomp = true
	return &in, c.err
}

// OnHost returns where on this host a file is that a sandbox shows.
func OnHost(box *isolate.Spec, path string) string {
	for _, m := range box.Mounts {
		if m.Target == path && m.Type == isolate.Bind {
			return m.Source
		}
	}
	return path
}

// A confiner collects what a sandbox is to show.
type confiner struct {
	box   *isolate.Spec
	owner *isolate.User
	err   error // the first one
}

// file shows a file or folder at a place of its own, and returns that.
func (c *confiner) file(name, path string, readOnly bool) string {
	if path == "" || c.err != nil {
		return ""
	}
	source, err := filepath.EvalSymlinks(path)
	if err == nil {
		source, err = filepath.Abs(source)
	}
	if err != nil {
		c.err = &caisson.Error{Op: caisson.OpCreate, Item: "machine: " + path, Kind: fileKind(err), Err: plainCause(err)}
		return ""
	}
	m := isolate.Mount{Type: isolate.Bind, Source: source, Target: insideDir + "/" + name, ReadOnly: readOnly}
	if !readOnly {
		m.Owner = c.owner
	}
	c.box.Mounts = append(c.box.Mounts, m)
	return m.Target
}

// program shows QEMU with what it is linked with.
func (c *confiner) program(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return qemuError(path, fileKind(err), plainCause(err))
	}
	c.show("/usr")
	if !strings.HasPrefix(real, "/usr/") {
		// An operator's own, with its firmware in share beside its bin.
		prefix := filepath.Dir(filepath.Dir(real))
		if prefix == "/" {
			return qemuError(path, caisson.ErrUnsupported, errors.New("it must be below /usr, or in a folder of its own"))
		}
		c.show(prefix)
	}
	for _, dir := range []string{"/lib", "/lib64", "/etc/ld.so.cache"} {
		target, err := os.Readlink(dir)
		switch {
		case err == nil:
			c.box.Entries = append(c.box.Entries, isolate.Entry{Path: dir, Link: target})
		case exists(dir):
			c.show(dir)
		}
	}
	return nil
}

// show shows a path of the host at its own place, read-only.
func (c *confiner) show(path string) {
	c.box.Mounts = append(c.box.Mounts, isolate.Mount{Type: isolate.Bind, Source: path, Target: path, ReadOnly: true})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
