//go:build unix

package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/filecopy"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/internal/landing"
)

// What is smaller is copied even where it could be bound: it costs no more, and
// the task then has data that nobody changes under it.
const (
	bindBytes   = 1 << 20
	bindEntries = 64
)

// Fetch implements stage.Fetcher. What is large is not copied where that can be
// avoided: a clone comes first, then a read-only bind, which shows the caller's
// own files as they are while the task runs. A copy of an input that is not
// writable has no write permission.
func (s *Stager) Fetch(ctx context.Context, in *caisson.Input, work *os.Root, env *stage.Env) (*stage.Fetched, error) {
	got, err := s.fetch(ctx, in, work, env)
	return landing.Optional(in, got, err)
}

func (s *Stager) fetch(ctx context.Context, in *caisson.Input, work *os.Root, env *stage.Env) (*stage.Fetched, error) {
	if err := landing.Check(in); err != nil {
		return nil, err
	}
	real, err := s.source(in, env)
	if err != nil {
		return nil, err
	}
	f := fetch{ctx: ctx, in: in, env: env, real: real}
	if f.host, err = host(); err != nil {
		return nil, f.sorted(err)
	}
	defer f.host.Close()
	info, err := f.host.Stat(inHost(real))
	if err != nil {
		return nil, f.sorted(err)
	}
	if f.spot, err = landing.At(in, work, env); err != nil {
		return nil, err
	}
	defer f.spot.Close()
	switch {
	case info.Mode.IsRegular():
		return f.file(&info)
	case info.Mode.IsDir():
		return f.folder()
	}
	return nil, landing.Invalid(in, fmt.Errorf("%q is neither a file nor a folder", real))
}

// A fetch is one input on its way.
type fetch struct {
	ctx  context.Context
	in   *caisson.Input
	env  *stage.Env
	real string       // of the source
	host *safefs.Root // that real is opened in
	spot *landing.Spot
	done int64 // bytes
	all  int64 // bytes of all files
}

// sorted describes what went wrong with the source or the copy.
func (f *fetch) sorted(err error) error {
	if errors.Is(err, filecopy.ErrLimit) || errors.Is(err, filecopy.ErrChanged) {
		return landing.Invalid(f.in, fmt.Errorf("%q: %w", f.real, err))
	}
	return safefs.Sorted(caisson.OpStageIn, landing.Item(f.in), err)
}

func (f *fetch) copyOptions(sum bool) *filecopy.Options {
	return &filecopy.Options{Sum: sum, Limit: int64(f.in.MaxSize), Progress: f.progress}
}

func (f *fetch) progress(n int64) {
	f.done += n
	if f.env.Progress != nil {
		f.env.Progress(f.done, f.all)
	}
}

func (f *fetch) file(info *safefs.Info) (*stage.Fetched, error) {
	src, err := f.host.Open(inHost(f.real))
	if err != nil {
		return nil, f.sorted(err)
	}
	defer src.Close()
	if err := landing.CheckSize(f.in, info.Size); err != nil {
		return nil, err
	}
	f.all = info.Size
	bind := f.mayBind() && info.Size >= bindBytes && f.readable(info)
	got, err := f.copyFile(src, info, bind)
	if errors.Is(err, errBind) {
		return f.bindFile(src)
	}
	return got, err
}

// errBind says that a file is to be bound because it can't be cloned.
var errBind = errors.New("not a clone")

// copyFile makes the input a file of the work folder. With onlyClone it fails
// with errBind where the data would have to be copied.
func (f *fetch) copyFile(src *os.File, info *safefs.Info, onlyClone bool) (*stage.Fetched, error) {
	dst, err := f.spot.Create(f.perm(info.Mode))
	if err != nil {
		return nil, err
	}
	defer dst.Close()
	var got filecopy.Result
	switch sum := f.in.SHA256 != ""; {
	case !onlyClone:
		got, err = filecopy.Copy(f.ctx, dst.File, src, f.copyOptions(sum))
	case filecopy.Clone(dst.File, src) != nil:
		return nil, errBind
	case sum:
		got, err = filecopy.Sum(f.ctx, dst.File, f.copyOptions(true))
	default:
		got.Size = info.Size
	}
	if err != nil {
		return nil, f.sorted(err)
	}
	if err := landing.Verify(f.in, got.SHA256); err != nil {
		return nil, err
	}
	if err := dst.Commit(false); err != nil {
		return nil, f.sorted(err)
	}
	if err := f.spot.Root.Chtimes(f.spot.Name, info.ModTime); err != nil {
		return nil, f.sorted(err)
	}
	return &stage.Fetched{Bytes: got.Size, SHA256: got.SHA256}, nil
}

func (f *fetch) bindFile(src *os.File) (*stage.Fetched, error) {
	got := filecopy.Result{Size: f.all}
	if f.in.SHA256 != "" {
		var err error
		if got, err = filecopy.Sum(f.ctx, src, f.copyOptions(true)); err != nil {
			return nil, f.sorted(err)
		}
		if err := landing.Verify(f.in, got.SHA256); err != nil {
			return nil, err
		}
	}
	place, err := f.spot.Create(0o444)
	if err != nil {
		return nil, err
	}
	defer place.Close()
	if err := place.Commit(false); err != nil {
		return nil, f.sorted(err)
	}
	return &stage.Fetched{Bytes: got.Size, SHA256: got.SHA256, Bind: f.real}, nil
}

// mayBind says whether the input may be bound at all.
func (f *fetch) mayBind() bool {
	return !f.env.NoBind && !f.in.Writable && f.in.Mode == "" && f.spot.Name != "."
}

// readable reports whether the program's user can read a file that is bound:
// everybody can, or it is the caller's and the caller has one id only, which
// then is the program's too.
func (f *fetch) readable(info *safefs.Info) bool {
	need := fs.FileMode(0o4)
	if info.Mode.IsDir() {
		need = 0o5
	}
	own := os.Geteuid()
	return info.Mode&need == need || own != 0 && info.UID == own && info.Mode&(need<<6) == need<<6
}

// perm returns the permission bits of a copy.
func (f *fetch) perm(mode fs.FileMode) fs.FileMode {
	if f.in.Writable {
		return mode.Perm() | 0o600
	}
	return mode.Perm()&^0o222 | 0o400
}

// folder brings a folder in.
func (f *fetch) folder() (*stage.Fetched, error) {
	switch {
	case f.in.SHA256 != "":
		return nil, landing.Invalid(f.in, fmt.Errorf("sha256: %q is a folder, only a single file has a digest", f.real))
	case f.in.Mode != "":
		return nil, landing.Invalid(f.in, fmt.Errorf("mode: %q is a folder, whose files keep their modes", f.real))
	}
	entries, readable, err := f.survey()
	if err != nil {
		return nil, err
	}
	if err := f.spot.Root.MkdirAll(f.spot.Name, 0o755, f.spot.Owner); err != nil {
		return nil, f.sorted(err)
	}
	if f.mayBind() && readable && (f.all >= bindBytes || entries >= bindEntries) {
		// A bind would hide what an earlier input has put there.
		if empty, err := f.spotIsEmpty(); err != nil || empty {
			return &stage.Fetched{Bytes: f.all, Bind: f.real}, f.sorted(err)
		}
	}
	// Links are copied as they are: they lead to what is there in the sandbox.
	tree := filecopy.Tree{
		Src: f.host, From: inHost(f.real), Dst: f.spot.Root, To: f.spot.Name,
		Owner: f.spot.Owner, Perm: f.perm, Progress: f.progress,
	}
	if err := tree.Copy(f.ctx); err != nil {
		return nil, f.sorted(err)
	}
	return &stage.Fetched{Bytes: f.done}, nil
}

func (f *fetch) spotIsEmpty() (bool, error) {
	entries := 0
	err := f.spot.Root.Walk(f.ctx, f.spot.Name, &safefs.WalkOptions{MaxDepth: 1}, func(*safefs.Entry) error {
		entries++
		return nil
	})
	return entries == 1, err
}

// survey looks at all of a folder: how large it is, whether all of it could be
// read if it were bound, and that nothing special is in it, which a bind would
// let the task talk to.
func (f *fetch) survey() (entries int, readable bool, err error) {
	readable = true
	err = f.host.Walk(f.ctx, inHost(f.real), nil, func(e *safefs.Entry) error {
		entries++
		switch {
		case e.Mode.Type() == fs.ModeSymlink:
			return nil
		case e.Mode.IsRegular():
			f.all += e.Size
			if err := landing.CheckSize(f.in, f.all); err != nil {
				return err
			}
		case !e.Mode.IsDir():
			return landing.Invalid(f.in, fmt.Errorf("%q is neither a file, a folder nor a link", "/"+e.Path))
		}
		readable = readable && f.readable(&e.Info)
		return nil
	})
	return entries, readable, f.sorted(err)
}
