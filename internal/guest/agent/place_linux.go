package agent

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/accounts"
	"github.com/caissonrun/caisson/internal/guest/wire"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/once"
	"github.com/caissonrun/caisson/internal/safefs"
)

// maxID is the largest id of a user or group.
const maxID = 1<<32 - 2

// writeFile serves wire.OpWrite.
func (s *session) writeFile(f *wire.File) error {
	name := clean(f.Path)
	err := s.inRoot(func(root *safefs.Root) error {
		dir, err := openFolder(root, path.Dir(name))
		if err != nil {
			return err
		}
		defer dir.Close()
		if !f.Once {
			return write(dir, path.Base(name), f)
		}
		if err := dir.Remove(path.Base(name)); err != nil {
			return err
		}
		// Nobody but the host's programs could have changed the folder meanwhile.
		real, err := root.FS().Resolve(path.Dir(name))
		if err != nil {
			return err
		}
		return s.onceFile(path.Join(real, path.Base(name)), f)
	})
	return sorted(string(f.Path), err)
}

// inRoot calls f with the root of programs.
func (s *session) inRoot(f func(root *safefs.Root) error) error {
	root, err := s.openRoot()
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}

// write makes a file in a folder.
func write(dir *safefs.Root, base string, f *wire.File) error {
	id := ownerOf(f)
	mode := fs.FileMode(f.Mode) & fs.ModePerm
	switch {
	case f.Dir:
		if mode == 0 {
			mode = 0o755
		}
		if err := dir.MkdirAll(base, mode, &id); err != nil {
			return err
		}
		return errors.Join(dir.SetOwner(base, id), dir.SetMode(base, mode|stickyOf(f.Mode)))
	case len(f.Link) > 0:
		if err := dir.Remove(base); err != nil {
			return err
		}
		return dir.Symlink(string(f.Link), base, &id)
	}
	if mode == 0 {
		mode = 0o644
	}
	return dir.WriteFile(base, f.Data, mode, &id)
}

func ownerOf(f *wire.File) safefs.Owner {
	if f.Owner == nil {
		return safefs.Owner{UID: os.Geteuid(), GID: os.Getegid()}
	}
	return safefs.Owner{UID: f.Owner.UID, GID: f.Owner.GID}
}

// stickyOf returns the sticky bit of the system's mode.
func stickyOf(mode uint32) fs.FileMode {
	if mode&0o1000 != 0 {
		return fs.ModeSticky
	}
	return 0
}

// onceFile makes a file that vanishes when it is opened.
func (s *session) onceFile(name string, f *wire.File) error {
	s.mu.Lock()
	at := s.root
	s.mu.Unlock()
	dir, err := os.Open(at)
	if err != nil {
		return err
	}
	defer dir.Close()
	id := ownerOf(f)
	return s.once.Add(int(dir.Fd()), &once.File{Path: name, Value: f.Data, UID: id.UID, GID: id.GID})
}

// lookup serves wire.OpLookup.
func (s *session) lookup(c *wire.Call) (any, error) {
	who, err := params[wire.Who](c)
	if err != nil {
		return nil, err
	}
	root, err := s.openRoot()
	if err != nil {
		return nil, err
	}
	files := root.FS()
	defer files.Close()
	a, err := accounts.Read(files, maxID)
	if err != nil {
		return nil, err
	}
	var standard accounts.ID
	if o := who.Standard; o != nil {
		standard = accounts.ID{UID: o.UID, GID: o.GID}
	}
	p, err := a.Who(who.User, who.Group, standard, who.Standard == nil)
	if err != nil {
		return nil, err
	}
	return &wire.Person{
		User: isolate.User{UID: p.UID, GID: p.GID, Groups: p.Groups}, Name: p.Name, Home: p.HomeOr(""),
	}, nil
}

// The lines of /etc/hosts between these are the host's.
const (
	hostsBegin = "# names of Caisson's begin here"
	hostsEnd   = "# names of Caisson's end here"
	maxHosts   = 1 << 20
)

// setHosts serves wire.OpHosts.
func (s *session) setHosts(h *wire.Hosts) error {
	block, err := hostLines(h.Hosts)
	if err != nil {
		return &caisson.Error{Item: "hosts", Kind: caisson.ErrInvalid, Err: err}
	}
	return sorted("/etc/hosts", s.inRoot(func(root *safefs.Root) error {
		old, err := readSmall(root.FS(), "etc/hosts")
		if err != nil {
			return err
		}
		return inFolder(root, "etc", func(dir *safefs.Root) error {
			return dir.WriteFile("hosts", append(withoutBlock(old), block...), 0o644, nil)
		})
	}))
}

// inFolder calls f with a folder below a root.
func inFolder(root *safefs.Root, name string, f func(dir *safefs.Root) error) error {
	dir, err := openFolder(root, name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(dir)
}

// readSmall reads a file of the system's that may be missing.
func readSmall(files fs.FS, name string) ([]byte, error) {
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxHosts))
}

// hostLines are the lines of names, each of which must be one.
func hostLines(list []wire.Host) ([]byte, error) {
	var text bytes.Buffer
	fmt.Fprintln(&text, hostsBegin)
	for _, h := range list {
		ip, err := netip.ParseAddr(h.IP)
		if err != nil {
			return nil, err
		}
		for _, name := range h.Names {
			if name == "" || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
				return nil, fmt.Errorf("%q is no name", name)
			}
		}
		fmt.Fprintf(&text, "%s\t%s\n", ip, strings.Join(h.Names, " "))
	}
	fmt.Fprintln(&text, hostsEnd)
	return text.Bytes(), nil
}

// withoutBlock returns the lines but for those that an earlier call has written.
func withoutBlock(text []byte) []byte {
	var rest []byte
	inside := false
	for line := range bytes.Lines(text) {
		word := string(bytes.TrimSpace(line))
		inside = inside || word == hostsBegin
		if !inside {
			rest = append(rest, line...)
		}
		inside = inside && word != hostsEnd
	}
	if len(rest) > 0 && rest[len(rest)-1] != '\n' {
		rest = append(rest, '\n')
	}
	return rest
}

// identify serves wire.OpIdentity.
func (s *session) identify(id *wire.Identity) error {
	if id.MachineID != "" {
		if raw, err := hex.DecodeString(id.MachineID); err != nil || len(raw) != 16 {
			return &caisson.Error{Item: "machine id", Kind: caisson.ErrInvalid, Err: errors.New("it has not 32 digits of base 16")}
		}
		err := s.inRoot(func(root *safefs.Root) error {
			return inFolder(root, "etc", func(dir *safefs.Root) error {
				return dir.WriteFile("machine-id", []byte(strings.ToLower(id.MachineID)+"\n"), 0o444, nil)
			})
		})
		if err != nil {
			return sorted("/etc/machine-id", err)
		}
	}
	if !id.HostKeys && id.UUID == "" {
		return nil
	}
	s.mu.Lock()
	own := s.root == "/" && s.machine()
	s.mu.Unlock()
	if !own {
		return &caisson.Error{Item: "identity", Kind: caisson.ErrUnsupported, Err: errors.New("keys and a UUID are for a machine with a system of its own")}
	}
	if id.UUID != "" {
		if err := newUUID(id.UUID); err != nil {
			return sorted(productUUID, err)
		}
	}
	if id.HostKeys {
		return newHostKeys()
	}
	return nil
}

// productUUID is where Linux shows what the firmware said when it booted.
const productUUID = "/sys/class/dmi/id/product_uuid"

// newUUID has the system show another UUID of the machine, if it shows one.
func newUUID(uuid string) error {
	if !exists(productUUID) {
		return nil
	}
	const file = "/run/caisson/product_uuid"
	if err := os.MkdirAll(path.Dir(file), 0o755); err != nil {
		return err
	}
	// It is as secret as the firmware's.
	if err := os.WriteFile(file, []byte(uuid+"\n"), 0o400); err != nil {
		return err
	}
	return unix.Mount(file, productUUID, "", unix.MS_BIND, "")
}

// newHostKeys has an SSH server of this system's get other keys. One that has none
// makes its own.
func newHostKeys() error {
	const keygen, keys = "/usr/bin/ssh-keygen", "/etc/ssh/ssh_host_*_key*"
	old, _ := filepath.Glob(keys)
	if len(old) == 0 {
		return nil
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	said, err := runHere(keygen, "-A")
	if err != nil {
		return err
	}
	if now, _ := filepath.Glob(keys); len(now) == 0 {
		return fmt.Errorf("%s -A has made no key: %q", keygen, said)
	}
	// One that runs already reads them again.
	text, err := os.ReadFile("/run/sshd.pid")
	if err != nil {
		return nil
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
		_ = unix.Kill(pid, unix.SIGHUP)
	}
	return nil
}

// maxSaid bounds what is kept of what a program of the agent's own prints.
const maxSaid = 1 << 10

// runHere runs a program of the system's, and returns what it says. Where programs run
// already, how it ends may be learned by whoever reaps what they leave behind
// (isolate.Start), so its end is that of its output.
func runHere(args ...string) (string, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	p, err := os.StartProcess(args[0], args, &os.ProcAttr{Dir: "/", Files: []*os.File{null, w, w}})
	w.Close()
	if err != nil {
		return "", err
	}
	said, err := io.ReadAll(io.LimitReader(r, maxSaid))
	_, _ = io.Copy(io.Discard, r)
	_, _ = p.Wait()
	return string(said), err
}
