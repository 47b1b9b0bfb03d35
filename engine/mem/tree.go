package mem

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/safefs"
)

// maxLinks is how many symbolic links one path may lead through.
const maxLinks = 40

// A tree is what the programs of a box see as the root of the file system: a
// folder of its own with the mounts in it.
type tree struct {
	places  []*place // the last that a path lies below is the one it is in
	secrets *secrets
	disk    *quota // of Limits.Disk; nil: none
	closed  atomic.Bool
}

// A place is one mount.
type place struct {
	target   string
	host     string // folder on the host
	root     *os.Root
	safe     *safefs.Root
	file     string // of a bind of a single file: its name in the folder
	readonly bool
	owner    *engine.Owner // who new files are given to; nil: nobody
	quota    *quota        // nil: none
	memory   bool          // a tmpfs: what it holds is counted as memory
}

// A spot is a path that has been resolved: in which place, and where there.
type spot struct {
	*place
	path string // inside, without links
	rel  string // below the place's folder
}

// newTree makes the box's folders and opens the mounts.
func newTree(spec *engine.Spec) (_ *tree, err error) {
	t := &tree{secrets: newSecrets(spec.Secrets)}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if spec.Limits.Disk > 0 {
		t.disk = &quota{size: int64(spec.Limits.Disk)}
	}
	files := filepath.Join(spec.Dir, filesFolder)
	if err := t.own(files, "root", "/", 0o755); err != nil {
		return nil, err
	}
	for _, name := range []string{"/work", "/tmp", "/run/secrets", "/etc"} {
		if err := t.places[0].root.MkdirAll(name[1:], 0o755); err != nil {
			return nil, err
		}
	}
	for name, text := range gatewayFiles(spec.Gateway) {
		if err := t.places[0].root.WriteFile("etc/"+name, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	limited := !spec.WorkLimited
	if spec.Work != "" {
		if err := t.bind(spec.Work, caisson.WorkDir, false, limited); err != nil {
			return nil, err
		}
		t.give(spec.WorkOwner)
	}
	if spec.Tmp != "" {
		err = t.bind(spec.Tmp, "/tmp", false, limited)
	} else {
		err = t.own(files, "tmp", "/tmp", 0o1777)
	}
	if err != nil {
		return nil, err
	}
	for i, m := range spec.Mounts {
		if err := t.mount(&m, files, i); err != nil {
			return nil, err
		}
		if m.Owned {
			t.give(spec.WorkOwner)
		}
	}
	return t, nil
}

// give has new files in the newest place belong to an owner, as far as this
// process may give files away.
func (t *tree) give(owner engine.Owner) {
	if os.Geteuid() == 0 {
		t.places[len(t.places)-1].owner = &owner
	}
}

// given gives a new file to the place's owner.
func (s spot) given(err error) error {
	if err != nil || s.owner == nil {
		return err
	}
	return s.root.Lchown(s.rel, s.owner.UID, s.owner.GID)
}

// mount adds one of the spec's mounts.
func (t *tree) mount(m *engine.Mount, files string, index int) error {
	if m.Type == engine.MountBind {
		return t.bind(m.Source, m.Target, m.ReadOnly, false)
	}
	mode := m.Mode
	if mode == 0 {
		mode = 0o1777
	}
	if err := t.own(files, "tmpfs-"+string(rune('a'+index%26))+strings.Repeat("x", index/26), m.Target, mode); err != nil {
		return err
	}
	p := t.places[len(t.places)-1]
	p.readonly, p.memory, p.quota = m.ReadOnly, true, nil
	if m.Size > 0 {
		p.quota = &quota{size: int64(m.Size)}
		p.quota.places = []*place{p}
	}
	return nil
}

// own makes a folder of the box's and mounts it.
func (t *tree) own(files, name, target string, mode uint32) error {
	host := filepath.Join(files, name)
	if err := os.MkdirAll(host, 0o755); err != nil {
		return err
	}
	perm := fs.FileMode(mode & 0o777)
	if mode&0o1000 != 0 {
		perm |= fs.ModeSticky
	}
	if err := os.Chmod(host, perm); err != nil {
		return err
	}
	return t.bind(host, target, false, true)
}

// bind mounts a folder or a file of the host.
func (t *tree) bind(host, target string, readonly, limited bool) error {
	info, err := os.Stat(host)
	if err != nil {
		return safefs.Sorted(caisson.OpCreate, "mount "+target, err)
	}
	p := &place{target: target, host: host, readonly: readonly}
	if !info.IsDir() {
		p.host, p.file = filepath.Split(host)
	}
	if p.root, err = os.OpenRoot(p.host); err != nil {
		return err
	}
	t.places = append(t.places, p)
	if limited && t.disk != nil {
		p.quota = t.disk
		t.disk.places = append(t.disk.places, p)
	}
	p.safe, err = safefs.FromOSRoot(p.root, nil)
	return err
}

// close closes the mounts.
func (t *tree) close() error {
	if t.closed.Swap(true) {
		return nil
	}
	var errs []error
	for _, p := range t.places {
		if p.safe != nil {
			errs = append(errs, p.safe.Close())
		}
		errs = append(errs, p.root.Close())
	}
	return errors.Join(errs...)
}

// at returns where a path without links lies.
func (t *tree) at(p string) spot {
	for _, place := range slices.Backward(t.places) {
		rel, ok := below(p, place.target)
		switch {
		case !ok:
		case place.file != "" && rel == ".":
			return spot{place, p, place.file}
		case place.file == "":
			return spot{place, p, rel}
		}
	}
	return spot{&place{}, p, ""}
}

// below returns p relative to dir.
func below(p, dir string) (rel string, ok bool) {
	if p == dir {
		return ".", true
	}
	prefix := strings.TrimSuffix(dir, "/") + "/"
	return strings.TrimPrefix(p, prefix), strings.HasPrefix(p, prefix)
}

// leads reports whether something is mounted at p or below it, so that it is
// a folder whatever the place above it has there.
func (t *tree) leads(p string) bool {
	for _, place := range t.places {
		if rel, ok := below(place.target, p); ok && (place.file == "" || rel != ".") {
			return true
		}
	}
	return false
}

// walk resolves a path as the kernel would: from the folder at, which has no
// links, with links inside only, and the last one only if follow is set. What
// the path ends in need not exist.
func (t *tree) walk(at, name string, follow bool) (spot, error) {
	if t.closed.Load() {
		return spot{}, &fs.PathError{Op: "open", Path: name, Err: fs.ErrClosed}
	}
	if path.IsAbs(name) {
		at = "/"
	}
	parts, links := strings.Split(name, "/"), 0
	for len(parts) > 0 {
		part := parts[0]
		parts = parts[1:]
		if part == "" || part == "." {
			continue
		}
		next := path.Join(at, part)
		if part == ".." || t.leads(next) {
			at = next
			continue
		}
		s := t.at(next)
		info, err := s.root.Lstat(s.rel)
		last := strings.Trim(strings.Join(parts, ""), "/.") == ""
		switch {
		case errors.Is(err, fs.ErrNotExist) && last:
		case err != nil:
			return spot{}, err
		case info.Mode().Type() == fs.ModeSymlink && (!last || follow):
			if links++; links > maxLinks {
				return spot{}, &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
			}
			target, err := s.root.Readlink(s.rel)
			if err != nil {
				return spot{}, err
			}
			if path.IsAbs(target) {
				at = "/"
			}
			parts = append(strings.Split(target, "/"), parts...)
			continue
		case !last && !info.IsDir():
			return spot{}, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOTDIR}
		}
		at = next
	}
	return t.at(at), nil
}

// stat describes a file, with links followed.
func (t *tree) stat(name string) (fs.FileInfo, error) {
	s, err := t.walk("/", name, true)
	if err != nil {
		return nil, err
	}
	return s.root.Lstat(s.rel)
}

// lstat describes a file itself.
func (t *tree) lstat(name string) (fs.FileInfo, error) {
	s, err := t.walk("/", name, false)
	if err != nil {
		return nil, err
	}
	return s.root.Lstat(s.rel)
}

// A quota bounds what some places hold together.
type quota struct {
	mu     sync.Mutex
	size   int64
	places []*place
}

// write writes at most as much as there is room for.
func (q *quota) write(f *os.File, data []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	room := q.size
	for _, p := range q.places {
		room -= p.usage()
	}
	if int64(len(data)) <= room {
		return f.Write(data)
	}
	n, err := f.Write(data[:max(room, 0)])
	if err == nil {
		err = syscall.ENOSPC
	}
	return n, err
}

// usage returns how many bytes the files of p have.
func (p *place) usage() (total int64) {
	// A file that vanishes meanwhile uses nothing.
	_ = fs.WalkDir(p.root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}

// secrets are the files in /run/secrets. They are in memory only.
type secrets struct {
	mu    sync.Mutex
	files map[string]engine.Secret // by path
}

func newSecrets(list []engine.Secret) *secrets {
	s := &secrets{files: make(map[string]engine.Secret)}
	for _, secret := range list {
		if secret.As == caisson.SecretFile {
			s.files["/run/secrets/"+secret.Name] = secret
		}
	}
	return s
}

// open returns a secret's file, or false if there is none. One that may be
// read once is gone then.
func (s *secrets) open(p string) (io.ReadWriteCloser, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	secret, ok := s.files[p]
	if !ok {
		return nil, false
	}
	if secret.Once {
		delete(s.files, p)
	}
	return secretFile{bytes.NewReader(secret.Value)}, true
}

type secretFile struct{ io.Reader }

func (secretFile) Write([]byte) (int, error) { return 0, syscall.EROFS }
func (secretFile) Close() error              { return nil }
