//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/stage"
)

// Modules is an Images that WebAssembly modules can be had from too. image.Store
// is one.
type Modules interface {
	// Module writes the module of an artifact in a registry, or in a folder of
	// this host, to a new file.
	Module(ctx context.Context, req *image.Request, file string) (digest string, err error)
	// PermitModule applies the operator's policies to the URL of a module.
	PermitModule(req *image.Request) error
	// KeptModule writes what KeepModule was given under the same URL and digest
	// to a new file, or returns ErrNotFound.
	KeptModule(ctx context.Context, ref, sum, file string) error
	KeepModule(ctx context.Context, ref, sum, file string) error
}

var _ Modules = (*image.Store)(nil)

const (
	// moduleFile is where a module that is no file of this host is put, below
	// the attempt's files.
	moduleFile = "module.wasm"
	// ociScheme says that a module is an artifact of a registry.
	ociScheme = "oci://"
	// digestMark begins the digest of a module in its URL.
	digestMark = "sha256="
)

// A moduleRef is what a task's module or machine names.
type moduleRef struct {
	path     string         // of a file; relative to the document
	artifact string         // a reference, as images have
	input    *caisson.Input // of a web server
	plain    bool           // the URL has no credentials
}

// parseModule reads what a task's module names.
//
// Errors: ErrInvalid.
func parseModule(text string) (*moduleRef, error) {
	return parseFile("module", text, &caisson.Input{To: moduleFile, MaxSize: image.MaxModule})
}

// parseFile reads what a field of a task names: a file, an artifact of a
// registry, or a URL, which becomes an input like fetch. A name with a colon is no
// path: for those there is "file:".
//
// Errors: ErrInvalid.
func parseFile(field, text string, fetch *caisson.Input) (*moduleRef, error) {
	if name, ok := strings.CutPrefix(text, "file:"); ok {
		return &moduleRef{path: name}, nil
	}
	if name, ok := strings.CutPrefix(text, ociScheme); ok {
		return &moduleRef{artifact: name}, nil
	}
	scheme, _, colon := strings.Cut(text, ":")
	switch {
	case !colon, filepath.IsAbs(text), strings.HasPrefix(text, "."):
		return &moduleRef{path: text}, nil
	case scheme != "http" && scheme != "https":
		return &moduleRef{artifact: text}, nil
	}
	from, sum, marked := strings.Cut(text, "#")
	u, err := url.Parse(from)
	if err != nil {
		return nil, invalid(field, errors.New("it is no URL")) // whose text may have a password
	}
	sum, named := strings.CutPrefix(sum, digestMark)
	if marked && !named {
		return nil, invalid(field, fmt.Errorf("what follows # is not %sHEX", digestMark))
	}
	in := *fetch
	in.From, in.SHA256 = from, sum
	return &moduleRef{input: &in, plain: u.User == nil}, nil
}

// module is where the task's module lies on this host: what was fetched, or a
// path relative to the document's folder. An engine knows nothing else. Before it
// is fetched it is where it will be.
func (b *blueprint) module() string {
	if b.record.Task.Module == "" {
		return ""
	}
	ref, err := parseModule(b.record.Task.Module)
	switch {
	case err != nil || ref.path == "":
		return filepath.Join(b.attempt.Files(), moduleFile)
	case filepath.IsAbs(ref.path) || b.record.BaseDir == "":
		return ref.path
	}
	return filepath.Join(b.record.BaseDir, ref.path)
}

// modules returns where modules are had from. Errors: ErrUnsupported.
func (x *Executor) modules() (Modules, error) {
	m, ok := x.opts.Images.(Modules)
	if !ok {
		return nil, &caisson.Error{
			Op: caisson.OpValidate, Item: "module", Kind: caisson.ErrUnsupported, Err: errors.New("this program has no store of images"),
		}
	}
	return m, nil
}

// checkModule refuses a module that can't be had from where the task says, as
// far as that is known without asking anybody.
func (x *Executor) checkModule(r *record, secrets map[string][]byte) error {
	if r.Task.Module == "" {
		return nil
	}
	ref, err := parseModule(r.Task.Module)
	if err != nil || ref.path != "" {
		return err
	}
	if ref.input == nil {
		if _, err := image.ParseReference(ref.artifact); err != nil {
			return at("module", err)
		}
		_, err := x.modules()
		return err
	}
	f, err := x.fetcher(ref.input)
	if err == nil {
		err = x.guard(caisson.OpStageIn, func() error { return f.CheckInput(ref.input, stageEnv(r, secrets)) })
	}
	return ofModule(err)
}

// ofModule says what an error is about, if there is one.
func ofModule(err error) error {
	if err == nil {
		return nil
	}
	return at("module", err)
}

// bringModule makes the task's module a file of this host.
func (a *attendant) bringModule(ctx context.Context) error {
	if a.record.Task.Module == "" {
		return nil
	}
	ref, err := parseModule(a.record.Task.Module)
	if err != nil || ref.path != "" {
		return err
	}
	defer a.clock("pull")()
	dir := a.attempt().Files()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return safefs.Sorted(caisson.OpPrepare, dir, err)
	}
	if ref.input != nil {
		return ofModule(a.fetchModule(ctx, ref, dir))
	}
	m, err := a.x.modules()
	if err != nil {
		return err
	}
	options, err := a.imageOptions()
	if err != nil {
		return err
	}
	err = a.x.guard(caisson.OpPrepare, func() error {
		_, err := m.Module(ctx, a.request(ref.artifact, &options), filepath.Join(dir, moduleFile))
		return err
	})
	return ofModule(err)
}

// fetchModule brings a module from a web server as an input is. One whose digest
// the task knows is kept for others, unless it was had with a password.
func (a *attendant) fetchModule(ctx context.Context, ref *moduleRef, dir string) error {
	m, _ := a.x.opts.Images.(Modules)
	file := filepath.Join(dir, moduleFile)
	keep := m != nil && ref.plain && ref.input.SHA256 != ""
	if m != nil {
		if err := m.PermitModule(&image.Request{Ref: ref.input.From}); err != nil {
			return err
		}
	}
	if keep {
		err := a.x.guard(caisson.OpPrepare, func() error { return m.KeptModule(ctx, ref.input.From, ref.input.SHA256, file) })
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !errors.Is(err, caisson.ErrNotFound) {
			a.log.Warn("module that is kept", "err", err)
		}
	}
	f, err := a.x.fetcher(ref.input)
	if err != nil {
		return err
	}
	if err := a.fetchTo(ctx, f, ref.input, dir); err != nil || !keep {
		return err
	}
	// That it can't be kept is no reason not to run it.
	if err := a.x.guard(caisson.OpPrepare, func() error { return m.KeepModule(ctx, ref.input.From, ref.input.SHA256, file) }); err != nil {
		a.log.Warn("module is not kept", "err", err)
	}
	return ctx.Err()
}

// fetchTo fetches a file into a folder of the executor's own.
func (a *attendant) fetchTo(ctx context.Context, f stage.Fetcher, in *caisson.Input, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return safefs.Sorted(caisson.OpStageIn, dir, err)
	}
	defer root.Close()
	env := stageEnv(a.record, a.secrets)
	env.NoBind, env.UID, env.GID = true, os.Getuid(), os.Getgid()
	return a.x.guard(caisson.OpStageIn, func() error {
		_, err := f.Fetch(ctx, in, root, env)
		return err
	})
}
