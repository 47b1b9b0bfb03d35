package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
)

const (
	// answerTime is how long a daemon may take to say that it is there.
	answerTime = 15 * time.Second
	// tryTime bounds the container of a probe, which takes about a second.
	tryTime = 30 * time.Second
)

// found is what the last Probe has found out.
type found struct {
	host    string
	info    system.Info
	api     string
	broken  error // why there can be no containers
	logging container.LogConfig
	// network and networks: the network for mode default is there, and networks
	// can be made. disk: a container's files can be bounded.
	network, networks, disk bool
	stats, terminal         bool
	// ungated is why there can be no gateway, or what serves a container on its
	// loopback device. Nil: there can, or it was not tried yet.
	ungated error
	podman  bool // it is Podman, which words some options in its own way
}

// Probe implements engine.Engine: it makes a container of an empty image and
// runs a program in it.
func (e *Engine) Probe(ctx context.Context) (engine.Features, error) {
	if err := e.boxes.Open(ctx, caisson.OpProbe); err != nil {
		return engine.Features{}, err
	}
	f, err := e.look(ctx)
	if err != nil {
		return engine.Features{}, err
	}
	if f.broken == nil {
		f.broken = e.try(ctx, f)
		if ctx.Err() != nil {
			return engine.Features{}, ctx.Err()
		}
	}
	e.found.Store(f)
	e.boxes.Note(kept.Works{Terminal: f.terminal, Stats: f.stats, Pause: true, Gateway: f.ungated == nil, Displays: f.ungated == nil})
	return e.opts.features(f), nil
}

// facts returns what is known of the daemon. Before the first Probe it asks, and
// takes for granted that containers work.
func (e *Engine) facts(ctx context.Context) (*found, error) {
	e.finding.Lock()
	defer e.finding.Unlock()
	if f := e.found.Load(); f != nil && f.broken == nil {
		return f, nil
	}
	f, err := e.look(ctx)
	if err != nil {
		return nil, err
	}
	f.stats, f.terminal = true, true
	e.found.Store(f)
	return f, nil
}

// look asks the daemon what it is.
//
// Errors: ErrUnavailable if there is one that does not answer.
func (e *Engine) look(ctx context.Context) (*found, error) {
	f := &found{host: e.daemon.host}
	if socket, ok := socketPath(f.host); ok {
		if _, err := os.Stat(socket); errors.Is(err, fs.ErrNotExist) {
			f.broken = fmt.Errorf("%s is not there: no daemon runs, or it listens elsewhere", socket)
			return f, nil
		}
	}
	asking, cancel := context.WithTimeoutCause(ctx, answerTime, errSlow)
	defer cancel()
	info, err := e.daemon.Info(asking, client.InfoOptions{})
	if err != nil {
		err = sorted(asking, "daemon", err)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, caisson.ErrDenied) || strings.Contains(err.Error(), "permission denied") {
			f.broken = fmt.Errorf("%s: %w", f.host, err)
			return f, nil
		}
		return nil, &caisson.Error{Op: caisson.OpProbe, Item: f.host, Kind: caisson.ErrUnavailable, Err: err}
	}
	f.info, f.api = info.Info, e.daemon.ClientVersion()
	if f.podman, err = e.isPodman(asking); err != nil {
		return nil, &caisson.Error{Op: caisson.OpProbe, Item: f.host, Kind: caisson.ErrUnavailable, Err: err}
	}
	f.logging = logging(&f.info)
	if f.broken = e.suits(f); f.broken != nil {
		return f, nil
	}
	f.network = e.opts.Network != "" && e.has(asking, e.opts.Network)
	f.networks = slices.Contains(f.info.Plugins.Network, "bridge")
	return f, nil
}

// podmanEngine is how Podman calls itself among the components of its version.
const podmanEngine = "Podman Engine"

// isPodman reports whether it is Podman that serves this API.
func (e *Engine) isPodman(ctx context.Context) (bool, error) {
	v, err := e.daemon.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return false, sorted(ctx, "daemon", err)
	}
	return slices.ContainsFunc(v.Components, func(c system.ComponentVersion) bool { return c.Name == podmanEngine }), nil
}

// suits returns why a daemon can't be used.
func (e *Engine) suits(f *found) error {
	switch {
	case f.info.OSType != "linux":
		return fmt.Errorf("the daemon runs containers of %q, not of linux", f.info.OSType)
	case versions.LessThan(f.api, leastAPI):
		return fmt.Errorf("the daemon's API is of version %s; %s is needed, of Docker 20.10", f.api, leastAPI)
	case os.Geteuid() != 0:
		return errors.New("only root can share folders with containers as their users")
	}
	return nil
}

// logging is where the daemon keeps the output. Only the driver local keeps
// bytes that are no text.
func logging(info *system.Info) container.LogConfig {
	if slices.Contains(info.Plugins.Log, "local") {
		return container.LogConfig{Type: "local", Config: map[string]string{"max-size": logLimit, "max-file": "2", "compress": "false"}}
	}
	return container.LogConfig{}
}

// has reports whether the daemon has a network.
func (e *Engine) has(ctx context.Context, name string) bool {
	_, err := e.daemon.NetworkInspect(ctx, name, client.NetworkInspectOptions{})
	return err == nil
}

// try runs the first process's own program in a container, which says its
// version and ends. That it can be reached by a socket in a folder shows that
// the daemon is on this host and sees its folders.
func (e *Engine) try(ctx context.Context, f *found) error {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	if err := os.MkdirAll(e.opts.Runtime, 0o700); err != nil {
		return err
	}
	id, err := e.importEmpty(ctx)
	if err != nil {
		return err
	}
	defer e.images.drop(context.WithoutCancel(ctx), id)
	works, err := e.tryWith(ctx, f, id, true)
	if err != nil && ctx.Err() == nil {
		f.ungated = err
		works, err = e.tryWith(ctx, f, id, false)
	}
	if err != nil {
		return err
	}
	f.stats, f.terminal = works.Stats, true
	f.disk = e.bounds(ctx, id)
	return nil
}

// tryWith tries a container with a gateway or without one.
func (e *Engine) tryWith(ctx context.Context, f *found, id string, gated bool) (kept.Works, error) {
	return e.boxes.TryWith(ctx, []string{path.Join(insideDir, initName), "version"},
		func(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
			spec.Image = id
			if gated {
				kept.AddTrial(spec)
			}
			sb, err := e.create(ctx, spec, new(choice), &image{id: id}, f)
			if err == nil && gated {
				f.ungated = kept.TryGateway(ctx, sb)
			}
			return sb, err
		})
}

// importEmpty makes an image with nothing in it.
func (e *Engine) importEmpty(ctx context.Context) (string, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, dir := range []string{"etc/", "tmp/", "run/"} {
		if err := w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return "", err
		}
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	r, err := e.daemon.ImageImport(ctx, client.ImageImportSource{Source: &archive, SourceName: "-"}, "", client.ImageImportOptions{
		Message: "caisson probe", Platform: ocispec.Platform{},
	})
	if err != nil {
		return "", sorted(ctx, "image of the probe", err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err != nil {
		return "", sorted(ctx, "image of the probe", err)
	}
	var line struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(data, &line); err != nil || !imageID.MatchString(line.Status) {
		return "", fmt.Errorf("image of the probe: the daemon says %.200q", data)
	}
	return line.Status, nil
}

// bounds reports whether the size of a container's files can be limited.
func (e *Engine) bounds(ctx context.Context, id string) bool {
	name := "caisson-" + e.opts.Installation + "-look-" + newMark()
	_, err := e.daemon.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: name,
		Config: &container.Config{
			Image: id, Cmd: []string{"/"}, Labels: map[string]string{labelInstallation: e.opts.Installation, labelSandbox: lookLabel},
		},
		HostConfig: &container.HostConfig{NetworkMode: "none", StorageOpt: map[string]string{"size": "67108864"}},
	})
	if removeErr := e.daemon.remove(context.WithoutCancel(ctx), name); removeErr != nil {
		return false
	}
	return err == nil
}

// runs reports whether a container is there and runs.
//
// Errors: ErrNotFound if it is not there.
func (d *daemon) runs(ctx context.Context, name string) (bool, error) {
	r, err := call(ctx, "container "+name, func(ctx context.Context) (client.ContainerInspectResult, error) {
		return d.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	})
	if err != nil {
		return false, err
	}
	return r.Container.State != nil && r.Container.State.Running, nil
}
