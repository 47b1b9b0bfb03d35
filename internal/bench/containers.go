package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/testimage"
)

// absent is why something can't be measured here. It is printed in its place.
type absent string

// Error implements error.
func (a absent) Error() string { return "not here: " + string(a) }

// A contender is one way to run a container of the same image.
type contender struct {
	name string
	run  func(ctx context.Context) error
	err  error // why it can't
	took samples
	// phases is what the time of a task was spent on. A crowd adds to it at once.
	mu     sync.Mutex
	phases map[string]samples
}

// note adds what the time of one task was spent on.
func (c *contender) note(phases []caisson.Phase) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range phases {
		c.phases[p.Name] = append(c.phases[p.Name], p.Took.Std())
	}
}

// small is the name of the image that containers are started of.
const small = "caisson-bench/busybox:1"

// containers are what the comparisons are made with.
type containers struct {
	b        *bench
	registry string // 127.0.0.1:PORT
	docker   string // unix://...
	archive  string // of the small image
	name     string // of the small image in the registry, or the archive
	bundle   string // for a bare runtime
}

// newContainers makes the image and puts it where each contender finds it.
func (b *bench) newContainers(ctx context.Context) (*containers, error) {
	if b.containers != nil {
		return b.containers, nil
	}
	c := &containers{
		b: b, registry: os.Getenv("CAISSON_TEST_REGISTRY"), docker: os.Getenv("CAISSON_TEST_DOCKER"),
		archive: b.archive(), name: b.smallImage(), bundle: filepath.Join(b.dir, "bundle"),
	}
	img, err := testimage.Busybox(v1.Config{})
	if err == nil {
		err = testimage.WriteArchive(img, c.archive, small)
	}
	if err == nil && c.registry != "" {
		err = testimage.Push(img, c.name)
	}
	if err != nil {
		return nil, err
	}
	if c.docker != "" {
		if out, err := c.dockerCommand(ctx, "load", "-i", c.archive).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("docker load: %w: %s", err, out)
		}
	}
	b.containers = c
	return c, c.unpackBundle(ctx)
}

func (c *containers) dockerCommand(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "docker", append([]string{"-H", c.docker}, args...)...)
}

// unpackBundle makes a bundle of the image for a runtime that is run as it is,
// with the isolation that `runc spec` asks for, and no terminal.
func (c *containers) unpackBundle(ctx context.Context) error {
	rootfs := filepath.Join(c.bundle, "rootfs")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		return err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	script := `mkdir -p bin proc dev sys tmp etc && cp "$0" bin/busybox && for p in sh true sleep; do ln -sf busybox bin/$p; done`
	cmd := exec.CommandContext(ctx, "sh", "-ec", script, busybox)
	cmd.Dir = rootfs
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("bundle: %w: %s", err, out)
	}
	cmd = exec.CommandContext(ctx, "runc", "spec")
	cmd.Dir = c.bundle
	if _, err := exec.LookPath("runc"); err != nil {
		return nil // then there is nothing to compare with, and the contender says so
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("runc spec: %w: %s", err, out)
	}
	file := filepath.Join(c.bundle, "config.json")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := strings.Replace(string(data), `"terminal": true`, `"terminal": false`, 1)
	text = strings.Replace(text, `"sh"`, `"/bin/true"`, 1)
	return os.WriteFile(file, []byte(text), 0o644)
}

// ours is a task of Caisson's in the small image. Nil options are left out.
func (c *containers) ours(engine string, options map[string]any, args ...string) *caisson.Task {
	task := argv(args...)
	task.Engine, task.Image = engine, c.name
	if engine == "docker" {
		task.Image = small
	}
	if options != nil {
		task.Options, _ = json.Marshal(options)
	}
	return task
}

// oci is a task with a runtime, in this warm process.
func (c *containers) oci(runtime string) *contender {
	one := &contender{name: "caisson oci, " + runtime, phases: map[string]samples{}}
	one.run = func(ctx context.Context) error {
		result, err := c.b.run(ctx, c.ours("oci", map[string]any{"runtime": runtime}, "/bin/true"))
		if err == nil {
			one.note(result.Phases)
		}
		return err
	}
	return one
}

// ourDocker is a task of the docker engine, in this warm process.
func (c *containers) ourDocker() *contender {
	run := func(ctx context.Context) error {
		_, err := c.b.run(ctx, c.ours("docker", nil, "/bin/true"))
		return err
	}
	return &contender{name: "caisson docker", run: run, err: c.haveDocker()}
}

func (c *containers) haveDocker() error {
	if c.docker == "" {
		return absent("no Docker daemon; see scripts/services")
	}
	return nil
}

// theirDocker is `docker run` of the same image.
func (c *containers) theirDocker() *contender {
	run := func(ctx context.Context) error {
		out, err := c.dockerCommand(ctx, "run", "--rm", "--network=none", small, "/bin/true").CombinedOutput()
		if err != nil {
			return fmt.Errorf("docker run: %w: %s", err, out)
		}
		return nil
	}
	return &contender{name: "docker run", run: run, err: c.haveDocker()}
}

// bare is `RUNTIME run` of the same files.
func (c *containers) bare(runtime string) *contender {
	path, err := exec.LookPath(runtime)
	if err != nil {
		return &contender{name: runtime + " run", err: absent("no " + runtime + " in PATH")}
	}
	n := 0
	run := func(ctx context.Context) error {
		n++
		root := filepath.Join(c.b.dir, "run-"+runtime)
		cmd := exec.CommandContext(ctx, path, "--root", root, "run", "-b", c.bundle, fmt.Sprintf("caisson-bench-%d-%d", os.Getpid(), n))
		out, err := runHidden(cmd)
		if err != nil {
			return fmt.Errorf("%s run: %w: %s", runtime, err, out)
		}
		return nil
	}
	return &contender{name: runtime + " run", run: run}
}

// compare times all contenders in turn. One that fails in the round that does
// not count is out, with its reason.
func compare(ctx context.Context, n int, list ...*contender) {
	for _, c := range list {
		if c.err == nil {
			c.err = c.run(ctx)
		}
	}
	for range n {
		for _, c := range list {
			if c.err != nil {
				continue
			}
			start := time.Now()
			c.err = c.run(ctx)
			c.took = append(c.took, time.Since(start))
		}
	}
}

// against is the row of a contender beside another one.
func (c *contender) against(peer *contender, budget string) row {
	switch {
	case c.err != nil:
		return row{c.name, whyNot(c.err), "-", "-", budget}
	case peer.err != nil:
		return row{c.name, c.took.String(), peer.name + ": " + whyNot(peer.err), "-", budget}
	}
	return row{c.name, c.took.String(), peer.name + ": " + peer.took.String(), ratio(c.took, peer.took), budget}
}

// whyNot is an error as a cell of the table.
func whyNot(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > 160 {
		text = text[:160] + "..."
	}
	var a absent
	if errors.As(err, &a) {
		return text
	}
	return "not here: " + text
}

// containerStarts measures a container of /bin/true, its image cached.
func (b *bench) containerStarts(ctx context.Context) ([]row, error) {
	c, err := b.newContainers(ctx)
	if err != nil {
		return nil, err
	}
	crun, runc, builtin, ourDocker := c.oci("crun"), c.oci("runc"), c.oci("builtin"), c.ourDocker()
	bareCrun, bareRunc, docker := c.bare("crun"), c.bare("runc"), c.theirDocker()
	compare(ctx, 20, crun, bareCrun, docker, runc, bareRunc, builtin, ourDocker)
	gvisor := c.oci("runsc")
	compare(ctx, 3, gvisor)
	rows := []row{crun.against(bareCrun, "1.5"), crun.against(docker, "0.25")}
	for _, name := range slices.Sorted(maps.Keys(crun.phases)) {
		rows = append(rows, row{"  of the first: " + name, crun.phases[name].String(), "-", "-", "-"})
	}
	return append(
		rows,
		runc.against(bareRunc, "-"), builtin.against(bareCrun, "-"), builtin.against(docker, "-"),
		gvisor.against(docker, "-"), ourDocker.against(docker, "-"),
	), nil
}

// crowd is how many containers are started at once.
const crowd = 50

// containerCrowd measures how long a crowd of containers takes, all at once.
func (b *bench) containerCrowd(ctx context.Context) ([]row, error) {
	c, err := b.newContainers(ctx)
	if err != nil {
		return nil, err
	}
	list := []*contender{c.oci("crun"), c.oci("builtin"), c.ourDocker(), c.theirDocker()}
	for _, one := range list {
		run := one.run
		one.name = fmt.Sprintf("%d at once: %s", crowd, one.name)
		one.run = func(ctx context.Context) error {
			group, ctx := errgroup.WithContext(ctx)
			for range crowd {
				group.Go(func() error { return run(ctx) })
			}
			return group.Wait()
		}
	}
	compare(ctx, 3, list...)
	docker := list[3]
	return []row{list[0].against(docker, "-"), list[1].against(docker, "-"), list[2].against(docker, "-")}, nil
}

// containerKeepers measures what stays beside sleeping containers.
func (b *bench) containerKeepers(ctx context.Context) ([]row, error) {
	c, err := b.newContainers(ctx)
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, one := range []struct {
		name, budget string
		task         *caisson.Task
		err          error
	}{
		{"oci, crun", "2 MB, 3 with init", c.ours("oci", map[string]any{"runtime": "crun"}, "sleep", "3600"), nil},
		{"oci, builtin", "2 MB, 3 with init", c.ours("oci", map[string]any{"runtime": "builtin"}, "sleep", "3600"), nil},
		{"docker", "measured apart", c.ours("docker", nil, "sleep", "3600"), c.haveDocker()},
	} {
		what := fmt.Sprintf("memory of a keeper, %s (%d sleeping)", one.name, sleepingContainers)
		err := one.err
		if err == nil {
			err = b.sleepContainers(ctx, one.task)
		}
		if err != nil {
			rows = append(rows, row{what, whyNot(err), "-", "-", one.budget})
			continue
		}
		keepers, all, err := besideSandboxes()
		if err != nil {
			return nil, err
		}
		n := float64(max(len(keepers), 1))
		figure := fmt.Sprintf("%s, with inits %s", mib(mean(keepers)), mib(all/n))
		rows = append(rows, row{fmt.Sprintf("memory of a keeper, %s (%d sleeping)", one.name, len(keepers)), figure, "-", "-", one.budget})
		if err := b.clear(ctx); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// besideSandboxes returns what keepers need, and what all processes of Caisson's
// beside programs need together: keepers, and the inits of sandboxes and of
// what a runtime runs in.
func besideSandboxes() (keepers []int, all float64, err error) {
	for _, name := range []string{"caisson-keeper", "sandbox-init", "runtime-init", "/dev/init"} {
		sizes, err := memory(name)
		if err != nil {
			return nil, 0, err
		}
		if name == "caisson-keeper" {
			keepers = sizes
		}
		all += mean(sizes) * float64(len(sizes))
	}
	return keepers, all, nil
}

const sleepingContainers = 20

// sleepContainers starts sleeping tasks and leaves them.
func (b *bench) sleepContainers(ctx context.Context, task *caisson.Task) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(10)
	for range sleepingContainers {
		id, err := b.submit(ctx, task, false)
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		group.Go(func() error { return b.app.Executor.Attend(ctx, id, true) })
	}
	return group.Wait()
}
