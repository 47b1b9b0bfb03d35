//go:build unix

package selftest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/attack"
	"github.com/caissonrun/caisson/internal/ext4"
	"github.com/caissonrun/caisson/internal/safefs"
)

// insidePath is where the program that attacks run is in sandboxes.
const insidePath = "/caisson-inside"

// What every sandbox of a selftest is bounded by where the engine can: an
// attack that is not held must not take the host with it, nor a selftest that
// is killed leave anything that runs for long.
const (
	life      = 100 * time.Second
	memoryMax = 512 * caisson.MiB
	pidsMax   = 512
)

// A target is an engine with what attacks on it need.
type target struct {
	*suite
	engine   engine.Engine
	features *engine.Features
	token    string
	boxes    int
	base     string // where the engine takes images: a root file system, or an archive of it
}

// newTarget makes what attacks on an engine share.
func (s *suite) newTarget(e engine.Engine, f *engine.Features) (*target, error) {
	r := &target{suite: s, engine: e, features: f, token: "selftest-" + strings.ToLower(rand.Text()[:8])}
	if !f.RootFS && !f.Image {
		return r, nil
	}
	r.base = filepath.Join(s.Dir, "image-"+e.Name())
	return r, r.root(r.base, nil)
}

// place is where attacks on the engine are tried.
func (r *target) place(dir string) (*attack.Place, error) {
	p := &attack.Place{
		Engine: r.engine, Features: r.features, Dir: dir, Owner: owner(), Inside: r.inside,
		Hidden: r.Hidden, Programs: r.Programs, Rounds: r.Rounds, Few: r.slow() && r.Rounds == 0,
	}
	var failed error
	p.Spec = func(args ...string) *engine.Spec {
		spec, err := r.spec(dir, words(args))
		failed = errors.Join(failed, err)
		return spec
	}
	p.Argv = func(args ...string) []string {
		if r.base == "" && !r.features.Mounts.Bind {
			return append([]string{r.inside}, words(args)...)
		}
		return append([]string{insidePath}, words(args)...)
	}
	if r.features.RootFS || r.features.Image {
		p.Image = func(spec *engine.Spec, files []attack.File) error { return r.image(spec, files) }
	}
	// That a spec can be made at all is seen before attacks rely on it.
	p.Spec()
	return p, failed
}

// slow reports whether a sandbox takes the engine a second or more: it boots, or goes
// on from where another has booted.
func (r *target) slow() bool { return r.features.Disk }

// words takes a single text for a line of words.
func words(args []string) []string {
	if len(args) == 1 {
		return strings.Fields(args[0])
	}
	return args
}

// spec returns a spec that runs the program with args, with folders of its own.
func (r *target) spec(dir string, args []string) (*engine.Spec, error) {
	r.boxes++
	base := filepath.Join(dir, fmt.Sprint("box", r.boxes))
	spec := &engine.Spec{
		ID: fmt.Sprintf("%s-%d", r.token, r.boxes), Task: "selftest", Attempt: 1, Step: "main",
		Dir: filepath.Join(base, "dir"), Log: filepath.Join(base, "log"), Work: filepath.Join(base, "work"),
		WorkOwner: owner(), Args: append([]string{insidePath}, args...), Timeout: caisson.Duration(life),
	}
	if r.features.Limits.Memory {
		spec.Limits.Memory = memoryMax
	}
	if r.features.Limits.PIDs {
		spec.Limits.PIDs = pidsMax
	}
	err := os.Mkdir(base, 0o755)
	for _, folder := range []string{spec.Dir, spec.Work} {
		err = errors.Join(err, os.Mkdir(folder, 0o700))
	}
	if os.Geteuid() == 0 {
		err = errors.Join(err, os.Lchown(spec.Work, spec.WorkOwner.UID, spec.WorkOwner.GID))
	}
	if r.base != "" {
		return spec, errors.Join(err, r.use(spec, r.base, false))
	}
	if !r.features.Command {
		spec.Args = nil // an attack brings its own module
		return spec, err
	}
	if !r.features.Mounts.Bind {
		// Programs see the host's own files: there is nothing to bind into.
		spec.Args = append([]string{r.inside}, onHost(spec.Work, args)...)
		return spec, err
	}
	spec.Mounts = []engine.Mount{{Type: engine.MountBind, Source: r.inside, Target: insidePath, ReadOnly: r.features.Mounts.ReadOnly}}
	return spec, err
}

// onHost returns arguments with the work folder where the host has it.
func onHost(work string, args []string) []string {
	there := make([]string, len(args))
	for i, arg := range args {
		there[i] = arg
		if rest, ok := strings.CutPrefix(arg, caisson.WorkDir); ok && (rest == "" || rest[0] == '/') {
			there[i] = work + rest
		}
	}
	return there
}

// image has a spec run in a root file system with files.
func (r *target) image(spec *engine.Spec, files []attack.File) error {
	if len(files) == 0 {
		return nil // it has that already
	}
	root := filepath.Join(filepath.Dir(spec.Dir), "root")
	if err := r.root(root, files); err != nil {
		return err
	}
	return r.use(spec, root, true)
}

// use gives a spec a root file system that root has made. An own one may be
// written to directly.
func (r *target) use(spec *engine.Spec, root string, own bool) error {
	if !r.features.RootFS {
		spec.Image = archiveRef(root)
		return nil
	}
	spec.RootFS = &engine.RootFS{Path: root}
	if !own {
		// Others of that name follow: a machine's state is worth keeping.
		spec.RootFS.Image = "selftest"
	}
	if r.features.Disk {
		spec.RootFS.Disk = diskPath(root)
	}
	if r.features.Overlay {
		spec.RootFS.Changes = filepath.Join(filepath.Dir(spec.Dir), "changes")
		return makeFolder(spec.RootFS.Changes)
	}
	if own {
		return nil
	}
	spec.RootFS.Path = filepath.Join(filepath.Dir(spec.Dir), "root")
	return r.root(spec.RootFS.Path, nil)
}

// makeFolder makes an empty folder, also where there is one already.
func makeFolder(path string) error {
	return errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o755))
}

// diskPath is where the disk of a root file system is.
func diskPath(root string) string { return root + ".ext4" }

// writeDisk makes the disk of a root file system, in which what is the caller's is
// root's.
func writeDisk(root string) error {
	dir, err := safefs.Open(root, nil)
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := os.Create(diskPath(root))
	if err != nil {
		return err
	}
	_, err = ext4.WriteTree(context.Background(), f, dir, &ext4.TreeOptions{Change: func(_ string, info *safefs.Info) error {
		if info.UID == os.Geteuid() {
			info.UID, info.GID = 0, 0
		}
		return nil
	}})
	return errors.Join(err, f.Close())
}

// root makes a root file system with the program that attacks run and files,
// as a folder (and a disk of it, for engines that want one) or, for engines that
// load images themselves, beside it an archive.
func (r *target) root(path string, files []attack.File) error {
	base, err := r.files()
	if err != nil {
		return err
	}
	if !r.features.RootFS {
		return writeArchive(archivePath(path), append(base, files...))
	}
	if err := makeFolder(path); err != nil {
		return err
	}
	for _, f := range append(base, files...) {
		if err := makeFile(path, &f); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	if r.features.Disk {
		return writeDisk(path)
	}
	return nil
}

// archive makes the archive of the base image, for whole tasks.
func (r *target) archive() error {
	base, err := r.files()
	if err != nil {
		return err
	}
	return writeArchive(archivePath(r.base), base)
}

// files returns what every root file system of an attack has.
func (r *target) files() ([]attack.File, error) {
	program, err := os.ReadFile(r.inside)
	base := []attack.File{
		{Path: "etc/passwd", Text: "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"},
		{Path: "etc/group", Text: "root:x:0:\nuser:x:1000:\n"},
		{Path: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Path: insidePath[1:], Text: string(program), Mode: 0o755},
	}
	for _, folder := range []string{"dev", "proc", "sys", "work", "run", "var/tmp", "home", "root"} {
		base = append(base, attack.File{Path: folder, Mode: fs.ModeDir | 0o755})
	}
	return base, err
}

// makeFile makes one file of a root file system that nothing has run in. A
// later one replaces an earlier.
func makeFile(root string, f *attack.File) error {
	path := filepath.Join(root, f.Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if info, err := os.Lstat(path); err == nil && !(f.Mode.IsDir() && info.IsDir()) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if f.Mode.IsDir() {
		return errors.Join(os.MkdirAll(path, 0o755), os.Chmod(path, f.Mode))
	}
	switch f.Mode.Type() {
	case fs.ModeSymlink:
		return os.Symlink(f.Link, path)
	case fs.ModeNamedPipe:
		return unix.Mkfifo(path, uint32(f.Mode.Perm()))
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		return makeDevice(path, f)
	}
	mode := f.Mode
	if mode == 0 {
		mode = 0o644
	}
	return errors.Join(os.WriteFile(path, []byte(f.Text), mode.Perm()), os.Chmod(path, mode))
}
