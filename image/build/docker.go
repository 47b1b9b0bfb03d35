//go:build unix

package build

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

// docker builds through a docker daemon's own builder.
type docker struct{ env []string }

func (d *docker) client() (*client.Client, error) {
	if host := lookup(d.env, "DOCKER_HOST"); host != "" {
		return client.New(client.WithHost(host))
	}
	return client.New(client.WithHostFromEnv())
}

func (d *docker) probe(ctx context.Context) error {
	c, err := d.client()
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Ping(ctx, client.PingOptions{})
	return err
}

func (d *docker) build(ctx context.Context, o *Options, dir, out string) (string, error) {
	c, err := d.client()
	if err != nil {
		return "", failure(o.Source, caisson.ErrUnavailable, err)
	}
	defer c.Close()
	files, err := packFolder(ctx, dir, o.File)
	if err != nil {
		return "", err
	}
	defer files.Close()
	options, err := d.options(o)
	if err != nil {
		return "", err
	}
	result, err := c.ImageBuild(ctx, files, options)
	if err != nil {
		return "", failure(o.Source, caisson.ErrInvalid, fmt.Errorf("docker: %w", err))
	}
	defer result.Body.Close()
	id, err := follow(result.Body, o.Output)
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", failure(o.Source, caisson.ErrInvalid, fmt.Errorf("docker: %w", err))
	}
	archive := filepath.Join(out, "image.tar")
	if err := save(ctx, c, id, archive); err != nil {
		return "", failure(o.Source, caisson.ErrUnavailable, fmt.Errorf("docker: %w", err))
	}
	// The daemon keeps its cache; what can't be removed is in use by somebody.
	_, _ = c.ImageRemove(context.WithoutCancel(ctx), id, client.ImageRemoveOptions{})
	return "docker-archive:" + archive, nil
}

func (d *docker) options(o *Options) (client.ImageBuildOptions, error) {
	options := client.ImageBuildOptions{
		Dockerfile: filepath.ToSlash(o.File), Remove: true, ForceRemove: true, NoCache: o.NoCache,
		Target: o.Target, BuildArgs: map[string]*string{},
	}
	for name, value := range o.Args {
		options.BuildArgs[name] = &value
	}
	if o.Platform != "" {
		parts := strings.SplitN(o.Platform, "/", 3)
		if len(parts) < 2 {
			return options, failure(o.Platform, caisson.ErrInvalid, errors.New("not a platform, want OS/ARCH such as linux/arm64"))
		}
		p := ocispec.Platform{OS: parts[0], Architecture: parts[1]}
		if len(parts) == 3 {
			p.Variant = parts[2]
		}
		options.Platforms = []ocispec.Platform{p}
	}
	return options, nil
}

// message is one of the daemon's while it builds.
type message struct {
	Stream string `json:"stream"`
	Status string `json:"status"`
	Error  string `json:"error"`
	Aux    struct {
		ID string `json:"ID"`
	} `json:"aux"`
}

// follow passes on what the builder says and returns the image's id.
func follow(rd io.Reader, w io.Writer) (id string, err error) {
	for dec := json.NewDecoder(rd); ; {
		var m message
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return "", err
		}
		if m.Error != "" {
			return "", errors.New(strings.TrimSpace(m.Error))
		}
		if m.Aux.ID != "" {
			id = m.Aux.ID
		}
		if _, err := io.WriteString(w, m.Stream); err != nil {
			return "", err
		}
	}
	if id == "" {
		return "", errors.New("the daemon ended without an image")
	}
	return id, nil
}

// save writes the daemon's image to an archive.
func save(ctx context.Context, c *client.Client, id, path string) error {
	rd, err := c.ImageSave(ctx, []string{id})
	if err != nil {
		return err
	}
	defer rd.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, rd)
	return errors.Join(err, f.Close())
}

// packFolder returns the folder as a tar stream, without what .dockerignore
// leaves out. Links are sent as they are, never what they lead to.
func packFolder(ctx context.Context, dir, dockerfile string) (io.ReadCloser, error) {
	root, err := safefs.Open(dir, &safefs.Options{CrossMounts: true})
	if err != nil {
		return nil, err
	}
	ignored, err := readIgnore(root, dockerfile)
	if err != nil {
		root.Close()
		return nil, failure(dir, caisson.ErrInvalid, err)
	}
	rd, wr := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer root.Close()
		tw := tar.NewWriter(wr)
		err := root.Walk(ctx, ".", nil, func(e *safefs.Entry) error { return packEntry(tw, e, ignored) })
		wr.CloseWithError(errors.Join(err, tw.Close()))
	}()
	return &packed{PipeReader: rd, done: done}, nil
}

// packed is a stream whose writer ends with Close.
type packed struct {
	*io.PipeReader
	done chan struct{}
}

func (p *packed) Close() error {
	err := p.PipeReader.Close()
	<-p.done
	return err
}

func packEntry(tw *tar.Writer, e *safefs.Entry, ignored *ignore) error {
	if e.Path == "." {
		return nil
	}
	if ignored.match(e.Path) {
		if e.Mode.IsDir() && !ignored.exceptions {
			return fs.SkipDir
		}
		return nil
	}
	header := &tar.Header{Name: e.Path, Mode: int64(e.Mode.Perm()), ModTime: e.ModTime}
	switch {
	case e.Mode.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, e.Path+"/"
		return tw.WriteHeader(header)
	case e.Mode&fs.ModeSymlink != 0:
		target, err := e.ReadLink()
		if err != nil {
			return err
		}
		header.Typeflag, header.Linkname = tar.TypeSymlink, target
		return tw.WriteHeader(header)
	case !e.Mode.IsRegular():
		return nil // as docker: nothing special is sent
	}
	f, err := e.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	header.Typeflag, header.Size = tar.TypeReg, e.Size
	if err := tw.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.CopyN(tw, f, e.Size)
	return err
}
