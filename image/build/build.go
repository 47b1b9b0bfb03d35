//go:build unix

// Package build makes images of Dockerfiles. Caisson does not build by itself:
// BuildKit does, through its client buildctl, or else a docker daemon. What they
// make is taken into a store of images and removed from the daemon again.
//
// Whoever calls builds with its own rights on the builder: this is for the
// command line, not for tasks.
package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
)

// The builders. Empty is the first that works, in this order.
const (
	BuildKit = "buildkit"
	Docker   = "docker"
)

// probeLimit bounds the look whether a builder is there.
const probeLimit = 10 * time.Second

// Options says what is built.
type Options struct {
	// Source is a folder, a Dockerfile in its folder, or the URL of a git
	// repository, to which #REF or #REF:FOLDER may be added.
	Source string
	// File is the Dockerfile's path in the folder; empty: Dockerfile.
	File     string
	Tags     []string // names; none: the image is known by its id alone
	Args     map[string]string
	Target   string // a stage of the Dockerfile; empty: the last
	Platform string // empty: the builder's own
	NoCache  bool
	Builder  string
	Output   io.Writer // gets what the builder says; nil: nobody does
	// Environ is the environment in which builders are found: DOCKER_HOST,
	// BUILDKIT_HOST and their like. Nil: this process's.
	Environ []string
}

// A builder makes an archive of an image.
type builder interface {
	// probe says why the builder can't be used; nil: it can.
	probe(ctx context.Context) error
	// build builds the folder dir and returns a reference to an archive, which
	// it makes in out.
	build(ctx context.Context, opts *Options, dir, out string) (string, error)
}

// Run builds an image and takes it into the store. It returns its names.
//
// Errors: ErrUnsupported if there is no builder; ErrNotFound if there is no
// such folder or Dockerfile; ErrInvalid if the build fails, with what the
// builder said; those of Store.Load.
func Run(ctx context.Context, store *image.Store, opts *Options) (*image.Image, []string, error) {
	chosen, err := choose(ctx, opts)
	if err != nil {
		return nil, nil, err
	}
	temp, err := os.MkdirTemp("", "caisson-build-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(temp)
	o := *opts
	dir, err := o.source(ctx, temp)
	if err != nil {
		return nil, nil, err
	}
	if o.File == "" {
		o.File = "Dockerfile"
	}
	if !filepath.IsLocal(o.File) {
		return nil, nil, failure(o.File, caisson.ErrInvalid, errors.New("the Dockerfile must lie in the folder that is built"))
	}
	if _, err := os.Stat(filepath.Join(dir, o.File)); err != nil {
		return nil, nil, failure(opts.Source, caisson.ErrNotFound, fmt.Errorf("no %s is in it", o.File))
	}
	if o.Output == nil {
		o.Output = io.Discard
	}
	ref, err := chosen.build(ctx, &o, dir, temp)
	if err != nil {
		return nil, nil, err
	}
	req := &image.Request{Ref: ref, Trusted: true, Platform: o.Platform}
	names := o.Tags
	if len(names) == 0 {
		names = []string{"build.localhost/" + time.Now().UTC().Format("20060102-150405.000000000")}
	}
	return store.Load(ctx, req, names...)
}

// choose returns the first builder that works.
func choose(ctx context.Context, opts *Options) (builder, error) {
	all := []struct {
		name string
		builder
	}{{BuildKit, &buildkit{env: opts.environ()}}, {Docker, &docker{env: opts.environ()}}}
	var reasons []string
	for _, b := range all {
		if opts.Builder != "" && opts.Builder != b.name {
			continue
		}
		probe, cancel := context.WithTimeout(ctx, probeLimit)
		err := b.probe(probe)
		cancel()
		if err == nil {
			return b.builder, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		reasons = append(reasons, b.name+": "+err.Error())
	}
	if len(reasons) == 0 {
		return nil, failure(opts.Builder, caisson.ErrInvalid, errors.New("no such builder, want buildkit or docker"))
	}
	return nil, failure(opts.Source, caisson.ErrUnsupported, fmt.Errorf(
		"no builder is usable here: start docker or buildkitd and install buildctl (%s)", strings.Join(reasons, "; ")))
}

func failure(item string, kind caisson.Kind, err error) error {
	return &caisson.Error{Op: "build", Item: item, Kind: kind, Err: err}
}

func (o *Options) environ() []string {
	if o.Environ != nil {
		return o.Environ
	}
	return os.Environ()
}

// lookup returns a variable of an environment.
func lookup(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(env[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// source returns the folder to be built; repositories are cloned below temp.
func (o *Options) source(ctx context.Context, temp string) (string, error) {
	if strings.Contains(o.Source, "://") {
		return clone(ctx, o, filepath.Join(temp, "source"))
	}
	info, err := os.Stat(o.Source)
	if errors.Is(err, os.ErrNotExist) {
		return "", failure(o.Source, caisson.ErrNotFound, errors.New("no such folder or Dockerfile"))
	}
	if err != nil {
		return "", err
	}
	dir := o.Source
	if !info.IsDir() {
		if o.File != "" {
			return "", failure(o.Source, caisson.ErrInvalid, errors.New("it is a Dockerfile, and another one is named, too"))
		}
		dir, o.File = filepath.Dir(o.Source), filepath.Base(o.Source)
	}
	return filepath.Abs(dir)
}

// schemes are those of repositories. Others have git run programs.
var schemes = []string{"https://", "http://", "ssh://", "git://", "file://"}

// clone fetches a repository without anything in it being run.
func clone(ctx context.Context, o *Options, dir string) (string, error) {
	url, fragment, _ := strings.Cut(o.Source, "#")
	url = strings.TrimPrefix(url, "git+")
	ref, sub, _ := strings.Cut(fragment, ":")
	known := false
	for _, scheme := range schemes {
		known = known || strings.HasPrefix(url, scheme)
	}
	if !known || strings.HasPrefix(ref, "-") || sub != "" && !filepath.IsLocal(sub) {
		return "", failure(o.Source, caisson.ErrInvalid, errors.New("not a git repository: use https://HOST/PATH.git[#REF[:FOLDER]]"))
	}
	if _, err := exec.LookPath("git"); err != nil {
		return "", failure(o.Source, caisson.ErrUnsupported, errors.New("git is not installed"))
	}
	if ref == "" {
		ref = "HEAD"
	}
	env := append(o.environ(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "GIT_ALLOW_PROTOCOL=https:http:ssh:git:file")
	safe := []string{"-c", "core.hooksPath=/dev/null", "-c", "core.symlinks=true", "-c", "protocol.ext.allow=never"}
	for _, args := range [][]string{
		{"init", "-q", "--template=", dir},
		{"-C", dir, "fetch", "-q", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", url, ref},
		{"-C", dir, "checkout", "-q", "--detach", "FETCH_HEAD"},
	} {
		cmd := exec.CommandContext(ctx, "git", append(append([]string{}, safe...), args...)...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			return "", failure(o.Source, caisson.ErrUnavailable, fmt.Errorf("git: %s", lastLine(string(out), err)))
		}
	}
	return inside(dir, sub)
}

// inside returns the folder sub of a repository, which must not be a link.
func inside(dir, sub string) (string, error) {
	path := filepath.Join(dir, sub)
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", failure(sub, caisson.ErrNotFound, errors.New("no such folder in the repository"))
	}
	top, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	if real != filepath.Join(top, sub) {
		return "", failure(sub, caisson.ErrDenied, errors.New("a symbolic link leads to it"))
	}
	return real, nil
}

// lastLine is what a program said at its end, or how it ended.
func lastLine(out string, err error) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
		return last
	}
	return err.Error()
}
