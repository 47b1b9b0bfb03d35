package native

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson/engine/internal/kept"
)

// A host is what a sandbox's root view is made of, as it was found. Paths in it
// have no symbolic links.
type host struct {
	// root says that sandboxes can have ids of their own; otherwise they have
	// uid and gid.
	root     bool
	uid, gid int
	// links are those in the root, such as /bin, with their targets; binds are
	// folders and files that appear at the same or another place.
	links []link
	binds []bind
	// files are copied.
	files []file
	shell string // the path of the default shell
	// resolv is the host's resolv.conf, for sandboxes on the host's network.
	resolv []byte
}

type link struct{ path, target string }

type bind struct{ source, target string }

type file struct {
	path     string
	contents []byte
}

// rootLinks are links into /usr on most systems and folders on the rest.
var rootLinks = []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

// etcPaths are what programs need of /etc in order to start, to check
// certificates and to know the time: nothing that is about this host, its
// people or its secrets. Every one costs time at the start of a sandbox.
var etcPaths = []string{
	"/etc/alternatives",
	"/etc/fonts",
	"/etc/ld.so.cache",
	"/etc/locale.alias",
	"/etc/localtime",
	"/etc/magic",
	"/etc/mime.types",
	"/etc/pki/ca-trust",
	"/etc/pki/tls/certs",
	"/etc/protocols",
	"/etc/services",
	"/etc/ssl/certs",
	"/etc/ssl/openssl.cnf",
	"/etc/timezone",
}

// etcPatterns are those of which the names have versions.
var etcPatterns = []string{"/etc/java-*"}

// smallFile is the size, in bytes, up to which a file of /etc is copied into the
// root view, which takes less time than to bind it.
const smallFile = 4 << 10

// maxResolv is the most of a resolv.conf that is passed on, in bytes.
const maxResolv = 64 << 10

// look finds out what this host is made of. Extra paths are the operator's.
func look(extra []string) (*host, error) {
	h := &host{uid: os.Geteuid(), gid: os.Getegid(), shell: defaultShell()}
	h.addBind("/usr")
	for _, p := range rootLinks {
		if target, err := os.Readlink(p); err == nil {
			h.links = append(h.links, link{p, target})
		} else {
			h.addBind(p)
		}
	}
	paths := etcPaths
	for _, pattern := range etcPatterns {
		found, _ := filepath.Glob(pattern)
		paths = append(paths[:len(paths):len(paths)], found...)
	}
	for _, p := range paths {
		h.addBind(p)
	}
	for _, p := range extra {
		if err := h.addExtra(p); err != nil {
			return nil, err
		}
	}
	if f, err := os.Open("/etc/resolv.conf"); err == nil {
		h.resolv = make([]byte, maxResolv)
		n, _ := f.Read(h.resolv)
		h.resolv = h.resolv[:n]
		f.Close()
	}
	return h, nil
}

// addBind adds a path, if it exists. What it leads to may be visible already.
func (h *host) addBind(path string) {
	source, err := filepath.EvalSymlinks(path)
	switch {
	case err != nil:
	case path != source && kept.Below(source, "/usr"):
		h.links = append(h.links, link{path, source})
	case path != source && forbidden(source):
		// A link of the administrator's to somewhere private stays outside.
	default:
		if data := small(source); data != nil {
			h.files = append(h.files, file{path, data})
			return
		}
		h.binds = append(h.binds, bind{source, path})
	}
}

// small returns what a small file holds that everybody may read, or nil.
func small(path string) []byte {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > smallFile || info.Mode()&0o004 == 0 {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil || len(data) > smallFile {
		return nil
	}
	return data
}

// addExtra adds a path that the operator wants to be seen.
func (h *host) addExtra(path string) error {
	source, err := filepath.EvalSymlinks(path)
	if err == nil {
		err = checkPath(source)
	}
	if err != nil {
		return kept.Invalid("engine.native.paths", err)
	}
	h.binds = append(h.binds, bind{source, path})
	return nil
}

// defaultShell returns bash, or sh where there is none.
func defaultShell() string {
	for _, p := range []string{"/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"} {
		if info, err := os.Stat(p); err == nil && info.Mode()&0o111 != 0 {
			return p
		}
	}
	return "/bin/sh"
}

// private are the folders that no sandbox sees anything of, and those that
// every sandbox has of its own.
var private = []string{"/home", "/root", "/var", "/proc", "/sys", "/dev", "/run", "/tmp", "/work"}

// checkPath refuses a path of the operator's that would show what no task may
// see.
func checkPath(path string) error {
	switch {
	case !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0):
		return &os.PathError{Op: "show", Path: path, Err: errNotClean}
	case forbidden(path):
		return &os.PathError{Op: "show", Path: path, Err: errPrivate}
	}
	return nil
}

// forbidden reports whether path is, holds, or lies in a private folder.
func forbidden(path string) bool {
	for _, p := range private {
		if kept.Below(path, p) || kept.Below(p, path) {
			return true
		}
	}
	return false
}

var (
	errNotClean = errors.New("not an absolute, clean path")
	errPrivate  = errors.New("home folders, /var and what a sandbox has of its own are never shown; mount what a task needs")
)
