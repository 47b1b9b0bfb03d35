//go:build unix

package git

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/internal/landing"
)

// Bounds of what a repository can make a fetch do.
const (
	maxSubmodules = 256 // of all levels together
	maxLevels     = 8   // of submodules in submodules
	// What is fetched may be this many times max_size, and fetchSlack more,
	// because history comes along; then the fetch is ended.
	fetchFactor = 4
	fetchSlack  = int64(64 * caisson.MiB)
	watchEvery  = 200 * time.Millisecond
)

// Fetch implements stage.Fetcher. A repository, branch, tag, commit or folder
// that is not there is absent data. The size limit is for all files of the
// commit, submodules included. Nothing is made at in.To before everything is
// fetched and measured. A tree is always copied, and writable.
func (s *Stager) Fetch(ctx context.Context, in *caisson.Input, work *os.Root, env *stage.Env) (*stage.Fetched, error) {
	f := &fetch{stager: s, in: in, env: env, want: options(in)}
	err := f.sorted(f.run(ctx, work))
	switch {
	case err == nil:
		return &stage.Fetched{Bytes: f.done}, nil
	case in.Optional && len(f.checkouts) == 0 && errors.Is(err, caisson.ErrNotFound):
		return &stage.Fetched{Absent: true}, nil
	}
	return nil, err
}

// run brings the input to the work folder, through a folder for what is on its
// way.
func (f *fetch) run(ctx context.Context, work *os.Root) (err error) {
	src, err := f.stager.check(f.in, f.env)
	if err != nil {
		return err
	}
	if f.binary, err = program(f.in); err != nil {
		return err
	}
	if f.temp, err = os.MkdirTemp(f.env.Temp, "git-"); err != nil {
		return err
	}
	defer func() {
		if removed := os.RemoveAll(f.temp); err == nil {
			err = removed
		}
	}()
	f.named = src.hostPort()
	if src.scheme == "file" && !f.direct(src) {
		if src, err = f.private(ctx, src); err != nil {
			return err
		}
	}
	if err := f.gather(ctx, src, f.want.Ref, checkout{folder: f.want.Folder, at: "."}, 0); err != nil {
		return err
	}
	return f.land(ctx, work)
}

// A fetch is one input on its way.
type fetch struct {
	stager    *Stager
	in        *caisson.Input
	env       *stage.Env
	want      caisson.GitInput
	binary    string
	named     string // host and port of the web server that the task names
	temp      string // private folder, removed at the end
	checkouts []checkout
	all, done int64 // bytes of all files
}

// mayBePrivate reports whether a web server may be at a private address: any, if
// the operator allows it, and for a trusted task the one that the task names.
func (f *fetch) mayBePrivate(hostPort string) bool {
	return f.stager.opts.AllowPrivate || f.env.Trusted && strings.EqualFold(hostPort, f.named)
}

// A checkout is a commit of a repository that was fetched.
type checkout struct {
	repo   *repo
	commit string
	folder string // in the repository, "." for all of it
	at     string // where it lands in the input
}

// gather fetches a repository and, where they are wanted, its submodules.
func (f *fetch) gather(ctx context.Context, src *source, ref string, c checkout, level int) error {
	var err error
	if c.repo, c.commit, err = f.bring(ctx, src, ref); err != nil {
		return err
	}
	s, err := c.repo.survey(ctx, c.commit, c.folder)
	if err != nil {
		return err
	}
	if s.bytes > math.MaxInt64-f.all {
		s.bytes = math.MaxInt64 - f.all
	}
	f.all += s.bytes
	if err := landing.CheckSize(f.in, f.all); err != nil {
		return err
	}
	f.checkouts = append(f.checkouts, c)
	if !f.want.Submodules || len(s.links) == 0 {
		return nil
	}
	urls, err := c.repo.submoduleURLs(ctx, c.commit)
	if err != nil {
		return err
	}
	for _, link := range s.links {
		if err := f.gatherSubmodule(ctx, &c, link, urls, level+1); err != nil {
			return inSubmodule(link.path, err)
		}
	}
	return nil
}

// gatherSubmodule fetches the submodule at a link of a checkout.
func (f *fetch) gatherSubmodule(ctx context.Context, parent *checkout, link submodule, urls map[string]string, level int) error {
	if level > maxLevels || len(f.checkouts) > maxSubmodules {
		return invalid(fmt.Errorf("more than %d submodules, or than %d levels of them", maxSubmodules, maxLevels))
	}
	raw := urls[path.Join(parent.folder, link.path)]
	if raw == "" {
		return invalid(errors.New(".gitmodules has no URL for it"))
	}
	src, err := parent.repo.src.join(raw)
	if err != nil {
		return invalid(err)
	}
	if err := f.stager.permitSubmodule(parent.repo.src, src); err != nil {
		return err
	}
	return f.gather(ctx, src, link.hash, checkout{folder: ".", at: path.Join(parent.at, link.path)}, level)
}

// bring fetches one repository. It is ended when it grows far beyond the
// input's size limit.
func (f *fetch) bring(ctx context.Context, src *source, ref string) (*repo, string, error) {
	home := filepath.Join(f.temp, strconv.Itoa(len(f.checkouts)))
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, "", err
	}
	r, err := f.newRepo(home, src)
	if err != nil {
		return nil, "", err
	}
	var commit string
	err = f.bounded(ctx, home, func(ctx context.Context) (err error) {
		commit, err = r.fetch(ctx, ref, f.want.Depth)
		return err
	})
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	return r, commit, err
}

// errGrown says that a fetch was ended because it is too large.
var errGrown = errors.New("the repository is much larger than max_size: raise it, or fetch less history")

// bounded calls do, whose context ends when the folder home grows too large.
func (f *fetch) bounded(ctx context.Context, home string, do func(context.Context) error) error {
	limit := int64(f.in.MaxSize)
	if limit == 0 || limit > (math.MaxInt64-f.stager.slack)/fetchFactor {
		return do(ctx)
	}
	limit = limit*fetchFactor + f.stager.slack
	bounded, end := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watch(bounded, home, limit, end)
	}()
	err := do(bounded)
	tooLarge := err != nil && context.Cause(bounded) == errGrown
	end(nil)
	<-watched
	if tooLarge {
		return invalid(errGrown)
	}
	return err
}

// watch ends a context with errGrown when a folder has more bytes than limit.
func watch(ctx context.Context, folder string, limit int64, end context.CancelCauseFunc) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if size, err := usage(ctx, folder); err == nil && size > limit {
			end(errGrown)
			return
		}
	}
}

// usage returns how many bytes a folder has on disk.
func usage(ctx context.Context, folder string) (int64, error) {
	root, err := safefs.Open(folder, nil)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	size, _, err := root.Usage(ctx, ".")
	return size, err
}

func invalid(err error) error { return &caisson.Error{Kind: caisson.ErrInvalid, Err: err} }

// inSubmodule says in which submodule something went wrong.
func inSubmodule(name string, err error) error {
	const shown = 200
	return fmt.Errorf("submodule %q: %w", name[:min(len(name), shown)], err)
}
