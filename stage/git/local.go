//go:build unix

package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/caissonrun/caisson/internal/filecopy"
	"github.com/caissonrun/caisson/internal/safefs"
)

// direct reports whether git may be let loose on a repository of this host
// itself: one of the caller's own, for a task that may name any path.
func (f *fetch) direct(src *source) bool {
	if !f.env.Trusted && !f.stager.opts.AnyPath {
		return false
	}
	for _, name := range []string{src.path, filepath.Join(src.path, ".git")} {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
			return false
		}
	}
	return true
}

// private replaces a repository of this host by a copy of its objects and
// references in a folder of Caisson's own, which git then fetches from.
//
// Others may write to a folder that the operator lists, tasks among them, and
// to one that is not the caller's. A repository can lead out of it: by links,
// by files that name another repository, by its configuration. The copy has
// none of these, and nobody can change it any more.
func (f *fetch) private(ctx context.Context, src *source) (*source, error) {
	host, err := safefs.Open("/", &safefs.Options{CrossMounts: true})
	if err != nil {
		return nil, err
	}
	defer host.Close()
	from, err := gitFolder(host, strings.TrimPrefix(src.path, "/"))
	if err != nil {
		return nil, err
	}
	to := filepath.Join(f.temp, "source.git")
	if err := os.Mkdir(to, 0o700); err != nil {
		return nil, err
	}
	c := copier{ctx: ctx, base: from}
	if c.dst, err = safefs.Open(to, nil); err != nil {
		return nil, err
	}
	defer c.dst.Close()
	if err := host.Walk(ctx, from, nil, c.entry); err != nil {
		return nil, err
	}
	own := &source{scheme: "file", path: to}
	return own, f.configureCopy(ctx, own)
}

// gitFolder returns the folder of a repository that has HEAD and objects: name
// itself, or .git in it.
func gitFolder(host *safefs.Root, name string) (string, error) {
	if name == "" {
		name = "."
	}
	folder := path.Join(name, ".git")
	info, err := host.Stat(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		folder = name
	case err != nil:
		return "", err
	case !info.Mode.IsDir():
		return "", leadsOut(".git")
	}
	if _, err := host.Stat(path.Join(folder, "HEAD")); err != nil {
		return "", notFound(errors.New("the folder is no git repository"))
	}
	return folder, nil
}

func leadsOut(name string) error {
	return denied(fmt.Errorf("%q in the repository leads to another folder: clone it, and name the clone", name))
}

// A copier copies the parts of a repository that hold its contents.
type copier struct {
	ctx  context.Context
	base string
	dst  *safefs.Root
}

// parts are the entries of a repository's folder that are copied.
var parts = map[string]bool{"HEAD": true, "objects": true, "packed-refs": true, "refs": true, "reftable": true, "shallow": true, "config": true}

// outward are files that name another repository.
var outward = map[string]bool{"commondir": true, "objects/info/alternates": true, "objects/info/http-alternates": true}

// sourceConfig is the name that the repository's configuration gets in the
// copy, where git does not look for it.
const sourceConfig = "config.source"

// entry copies one entry, if it is part of the contents.
func (c *copier) entry(e *safefs.Entry) error {
	name := e.Path
	if c.base != "." {
		name = strings.TrimPrefix(strings.TrimPrefix(e.Path, c.base), "/")
	}
	if name == "" || name == "." {
		return nil
	}
	if outward[name] {
		return leadsOut(name)
	}
	part, _, _ := strings.Cut(name, "/")
	switch {
	case !parts[part] && e.Mode.IsDir():
		return fs.SkipDir
	case !parts[part], path.Dir(name) == "objects/info":
		return nil
	case e.Mode.IsDir():
		return c.dst.MkdirAll(name, 0o700, nil)
	case e.Mode.Type() == fs.ModeSymlink:
		return leadsOut(name)
	case !e.Mode.IsRegular():
		return invalid(fmt.Errorf("%q in the repository is neither a file nor a folder", name))
	case name == "config":
		name = sourceConfig
	}
	return c.file(e, name)
}

func (c *copier) file(e *safefs.Entry, name string) error {
	src, err := e.Open()
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := c.dst.Create(name, 0o600, nil)
	if err != nil {
		return err
	}
	defer dst.Close()
	if _, err := filecopy.Copy(c.ctx, dst, src, nil); err != nil {
		return err
	}
	return dst.Close()
}

// configureCopy writes the configuration of a copied repository: how its
// objects and references are stored, and nothing else of the original's.
func (f *fetch) configureCopy(ctx context.Context, src *source) error {
	r := &repo{binary: f.binary, home: f.temp, src: src}
	list := []setting{{"core", "repositoryFormatVersion", "1"}, {"core", "bare", "true"}}
	for _, key := range []string{"objectFormat", "refStorage"} {
		value, err := r.text(ctx, "config", "--no-includes", "--file", filepath.Join(src.path, sourceConfig), "--get", "extensions."+key)
		var failed *failure
		if err != nil && !errors.As(err, &failed) {
			return err
		}
		if value == "sha256" || value == "reftable" {
			list = append(list, setting{"extensions", key, value})
		}
	}
	err := os.WriteFile(filepath.Join(src.path, "config"), []byte(configText(list)), 0o600)
	if err != nil {
		return err
	}
	for _, folder := range []string{"objects", "refs"} {
		if err := os.MkdirAll(filepath.Join(src.path, folder), 0o700); err != nil {
			return err
		}
	}
	return nil
}
