//go:build unix

package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/cleanup"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/filecopy"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/stage"
	"golang.org/x/sys/unix"
)

// CheckOutput implements stage.Storer.
func (s *Stager) CheckOutput(out *caisson.Output, env *stage.Env) error {
	if _, err := safefs.ParsePattern(out.Path); err != nil {
		return invalid(out, err)
	}
	real, err := s.destination(out, env)
	if err != nil {
		return err
	}
	info, err := os.Lstat(real)
	if strings.HasSuffix(out.To, "/") && err == nil && !info.IsDir() {
		return invalid(out, fmt.Errorf("to: %q exists and is not a folder", real))
	}
	return nil
}

// destination returns the real path that an output goes to.
func (s *Stager) destination(out *caisson.Output, env *stage.Env) (string, error) {
	to, err := parse(out.To, env.BaseDir)
	if err != nil {
		return "", invalid(out, err)
	}
	real, err := s.allowed.New(to, strings.HasSuffix(to, "/"), env.Trusted)
	return real, about(caisson.OpStageOut, err)
}

func invalid(out *caisson.Output, err error) error {
	return &caisson.Error{Op: caisson.OpStageOut, Item: fmt.Sprintf("%q", out.Path), Kind: caisson.ErrInvalid, Err: err}
}

// Store implements stage.Storer. Folders that are missing are made. Files
// become the submitter's, with the permission bits that they have and without
// set-id bits and extended attributes. What is at a destination is replaced,
// if it is a link the link itself; a folder is not. What can be stored is,
// although something else fails.
func (s *Stager) Store(
	ctx context.Context, out *caisson.Output, files []stage.File, env *stage.Env,
) ([]caisson.OutputFile, error) {
	if err := stage.CheckDestinations([]*caisson.Output{out}, [][]stage.File{files}); err != nil {
		return nil, err
	}
	real, err := s.destination(out, env)
	if err != nil {
		return nil, err
	}
	st := store{ctx: ctx, out: out, env: env, base: inHost(real), dirs: map[string]bool{}}
	if os.Geteuid() == 0 {
		st.owner = &safefs.Owner{UID: env.OutUID, GID: env.OutGID}
	}
	if st.host, err = host(); err != nil {
		return nil, safefs.Sorted(caisson.OpStageOut, real, err)
	}
	defer st.host.Close()
	return st.run(files)
}

// A store is one output on its way.
type store struct {
	ctx   context.Context
	out   *caisson.Output
	env   *stage.Env
	owner *safefs.Owner
	host  *safefs.Root
	base  string          // destination, in host
	dirs  map[string]bool // folders in which something was made
	done  int64           // bytes
	all   int64           // bytes of all files
}

// maxFailures is how many files that fail are told one by one.
const maxFailures = 8

func (s *store) run(files []stage.File) ([]caisson.OutputFile, error) {
	for i := range files {
		s.all += files[i].Size
	}
	var stored []caisson.OutputFile
	var errs []error
	failed := 0
	for i := range files {
		f := &files[i]
		made, err := s.entry(f)
		if made != nil {
			stored = append(stored, *made)
		}
		if err == nil {
			continue
		}
		if failed++; failed <= maxFailures {
			errs = append(errs, s.sorted(f, err))
		}
		if s.ctx.Err() != nil || safefs.Kind(err) == caisson.ErrExhausted {
			break // nothing else will succeed
		}
	}
	if failed > maxFailures {
		errs = append(errs, fmt.Errorf("and %d more", failed-maxFailures))
	}
	if err := s.sync(); err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	return stored, errors.Join(errs...)
}

func (s *store) sorted(f *stage.File, err error) error {
	item := fmt.Sprintf("%q to %q", f.Path, "/"+s.name(f))
	switch {
	case errors.Is(err, filecopy.ErrChanged), errors.Is(err, filecopy.ErrLimit):
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.EEXIST):
		err = errors.New("there is a folder: end to with a / to store into it")
	case errors.Is(err, unix.ENOTDIR):
		err = errors.New("a file is where a folder is needed")
	default:
		return safefs.Sorted(caisson.OpStageOut, item, err)
	}
	return &caisson.Error{Op: caisson.OpStageOut, Item: item, Kind: caisson.ErrInvalid, Err: err}
}

// name returns where a file goes, in host.
func (s *store) name(f *stage.File) string {
	if strings.HasSuffix(s.out.To, "/") {
		return path.Join(s.base, f.Rel)
	}
	return path.Join(s.base, strings.TrimPrefix(f.Path, f.Match))
}

// entry stores one file, folder or link.
func (s *store) entry(f *stage.File) (*caisson.OutputFile, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	name := s.name(f)
	if f.Mode.IsDir() {
		return nil, s.mkdir(name, f.Mode.Perm()&^0o022|0o700)
	}
	if err := s.mkdir(path.Dir(name), 0o755); err != nil {
		return nil, err
	}
	s.dirs[path.Dir(name)] = true
	if f.Link != "" {
		return nil, s.link(f, name)
	}
	return s.file(f, name)
}

// mkdir makes a folder and those above it that are missing, and remembers
// where names were added.
func (s *store) mkdir(name string, perm fs.FileMode) error {
	for dir := name; dir != "." && !s.dirs[dir]; dir = path.Dir(dir) {
		if _, err := s.host.Stat(dir); err == nil {
			break
		}
		s.dirs[path.Dir(dir)] = true
	}
	return s.host.MkdirAll(name, perm, s.owner)
}

func (s *store) link(f *stage.File, name string) error {
	temp := path.Join(path.Dir(name), s.tempName(name))
	if err := s.host.Remove(temp); err != nil {
		return err
	}
	if err := s.host.Symlink(f.Link, temp, s.owner); err != nil {
		return err
	}
	if err := s.host.Rename(temp, name); err != nil {
		return errors.Join(err, s.host.Remove(temp))
	}
	return nil
}

func (s *store) file(f *stage.File, name string) (made *caisson.OutputFile, err error) {
	src, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer src.Close()
	temp := path.Join(path.Dir(name), s.tempName(name))
	if err := s.host.Remove(temp); err != nil {
		return nil, err
	}
	dst, err := s.host.Create(temp, f.Mode.Perm()&^0o022|0o400, s.owner)
	if err != nil {
		return nil, err
	}
	var undo cleanup.List
	undo.Add(func() error { return s.host.Remove(temp) })
	defer undo.OnError(s.ctx, &err)
	defer dst.Close()
	opts := &filecopy.Options{Sum: true, Limit: int64(s.out.MaxSize), Progress: s.progress}
	got, err := filecopy.Copy(s.ctx, dst, src, opts)
	if err != nil {
		return nil, err
	}
	// The folder is made durable once, when everything is in it.
	if err := dst.Sync(); err != nil {
		return nil, err
	}
	crash.Point(crash.StoreBefore)
	if err := s.host.Rename(temp, name); err != nil {
		return nil, err
	}
	crash.Point(crash.StoreAfter)
	return &caisson.OutputFile{Path: f.Path, To: "file:/" + name, Size: got.Size, SHA256: got.SHA256}, nil
}

// tempName returns the name under which the file called name is made: for one
// attempt always the same, so that a try after a crash leaves nothing of the one
// before.
func (s *store) tempName(name string) string {
	if s.env.Token == "" {
		return atomicfile.TempName()
	}
	return atomicfile.TempNameOf(s.env.Token + "/" + name)
}

func (s *store) progress(n int64) {
	s.done += n
	if s.env.Progress != nil {
		s.env.Progress(s.done, s.all)
	}
}

// sync makes the names of everything stored durable.
func (s *store) sync() error {
	var errs []error
	for _, dir := range slices.Sorted(maps.Keys(s.dirs)) {
		if err := s.host.Sync(dir); err != nil {
			errs = append(errs, safefs.Sorted(caisson.OpStageOut, filepath.Join("/", dir), err))
		}
	}
	return errors.Join(errs...)
}
