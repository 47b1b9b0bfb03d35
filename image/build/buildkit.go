//go:build unix

package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/caissonrun/caisson"
)

// buildkit builds through buildctl, which finds its daemon by BUILDKIT_HOST.
type buildkit struct{ env []string }

func (b *buildkit) probe(ctx context.Context) error {
	if _, err := exec.LookPath("buildctl"); err != nil {
		return errors.New("buildctl is not installed")
	}
	cmd := exec.CommandContext(ctx, "buildctl", "debug", "workers")
	cmd.Env = b.env
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.New(lastLine(string(out), err))
	}
	return nil
}

// argv returns the arguments of a build.
func (b *buildkit) argv(o *Options, dir, archive string) []string {
	argv := []string{
		"build", "--progress=plain", "--frontend=dockerfile.v0",
		"--local=context=" + dir,
		"--local=dockerfile=" + filepath.Dir(filepath.Join(dir, o.File)),
		"--opt=filename=" + filepath.Base(o.File),
		"--output=type=oci,dest=" + archive,
	}
	for _, name := range slices.Sorted(maps.Keys(o.Args)) {
		argv = append(argv, "--opt=build-arg:"+name+"="+o.Args[name])
	}
	if o.Target != "" {
		argv = append(argv, "--opt=target="+o.Target)
	}
	if o.Platform != "" {
		argv = append(argv, "--opt=platform="+o.Platform)
	}
	if o.NoCache {
		argv = append(argv, "--no-cache")
	}
	return argv
}

func (b *buildkit) build(ctx context.Context, o *Options, dir, out string) (string, error) {
	archive := filepath.Join(out, "image.tar")
	cmd := exec.CommandContext(ctx, "buildctl", b.argv(o, dir, archive)...)
	cmd.Env = b.env
	var said tail
	cmd.Stdout, cmd.Stderr = io.Discard, io.MultiWriter(o.Output, &said)
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", failure(o.Source, caisson.ErrInvalid, fmt.Errorf("buildkit: %s", lastLine(string(said.data), err)))
	}
	return "oci-archive:" + archive, nil
}

// tail keeps the last bytes written to it.
type tail struct{ data []byte }

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if over := len(t.data) - tailSize; over > 0 {
		t.data = bytes.Clone(t.data[over:])
	}
	return len(p), nil
}
