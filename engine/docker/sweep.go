package docker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/caissonrun/caisson/engine"
)

var _ engine.Pruner = (*Engine)(nil)

// Sweep implements engine.Engine. What package kept does not find by its folders
// is found by its labels: the runtime folder may be gone, after a reboot.
func (e *Engine) Sweep(ctx context.Context, live []string) (removed []string, err error) {
	removed, err = e.boxes.Sweep(ctx, live)
	all := []error{err}
	containers, err := e.sweepContainers(ctx, live)
	all = append(all, err)
	for _, name := range containers {
		if !slices.Contains(removed, name) {
			removed = append(removed, name)
		}
	}
	networks, err := e.sweepNetworks(ctx, live)
	removed, all = append(removed, networks...), append(all, err)
	if e.opts.ImageTTL > 0 {
		images, err := e.images.prune(ctx, e.opts.ImageTTL)
		removed, all = append(removed, images...), append(all, err)
	}
	return removed, errors.Join(all...)
}

// Prune implements engine.Pruner.
func (e *Engine) Prune(ctx context.Context, age time.Duration) (removed []string, err error) {
	return e.images.prune(ctx, age)
}

// labelled is a filter for what belongs to this installation.
func (e *Engine) labelled() client.Filters {
	return client.Filters{}.Add("label", labelInstallation+"="+e.opts.Installation)
}

// sweepContainers removes containers that nobody owns.
func (e *Engine) sweepContainers(ctx context.Context, live []string) (removed []string, err error) {
	r, err := call(ctx, "containers", func(ctx context.Context) (client.ContainerListResult, error) {
		return e.daemon.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: e.labelled()})
	})
	if err != nil {
		return nil, err
	}
	var all []error
	for _, c := range r.Items {
		id := c.Labels[labelSandbox]
		if !e.made(&c, id) || slices.Contains(live, id) || e.probing(id) {
			continue
		}
		if err := e.daemon.remove(ctx, c.ID); err != nil {
			all = append(all, err)
			continue
		}
		removed = append(removed, id)
	}
	return removed, errors.Join(all...)
}

// lookTime is far longer than a container lives that is made to look into its
// image.
const lookTime = 10 * time.Minute

// made reports whether a container is one that this installation made, and that
// is not just being used. Its labels may be its image's, its name can't.
func (e *Engine) made(c *container.Summary, id string) bool {
	if c.Labels[labelInstallation] != e.opts.Installation {
		return false
	}
	looking := id == lookLabel && time.Since(time.Unix(c.Created, 0)) > lookTime
	return slices.ContainsFunc(c.Names, func(name string) bool {
		return name == "/"+e.containerName(id) || looking && strings.HasPrefix(name, "/"+e.containerName(lookLabel)+"-")
	})
}

// sweepNetworks removes networks that nobody owns.
func (e *Engine) sweepNetworks(ctx context.Context, live []string) (removed []string, err error) {
	r, err := call(ctx, "networks", func(ctx context.Context) (client.NetworkListResult, error) {
		return e.daemon.NetworkList(ctx, client.NetworkListOptions{Filters: e.labelled()})
	})
	if err != nil {
		return nil, err
	}
	var all []error
	for _, n := range r.Items {
		id, ours := n.Labels[labelNetwork]
		if !ours || n.Labels[labelInstallation] != e.opts.Installation || slices.Contains(live, id) {
			continue
		}
		if err := e.daemon.removeNetwork(ctx, n.ID); err != nil {
			all = append(all, err)
			continue
		}
		removed = append(removed, id)
	}
	return removed, errors.Join(all...)
}

// probing reports whether a sandbox is that of a probe which goes on.
func (e *Engine) probing(id string) bool { return e.boxes.Probing(id) }
