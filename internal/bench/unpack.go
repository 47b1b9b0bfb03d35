package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/internal/testimage"
)

// largeSize is of the image that is pulled and unpacked.
const largeSize = 300 << 20

// unpacking measures what it takes to have the files of a large image of the
// local registry: from nothing, from its layers, and once they are there.
func (b *bench) unpacking(ctx context.Context) ([]row, error) {
	c, err := b.newContainers(ctx)
	if err != nil {
		return nil, err
	}
	u := &unpacker{containers: c, ref: c.registry + "/large:300m", dir: filepath.Join(b.dir, "unpack")}
	cold := &contender{name: "300 MB image, cold: pull and unpack", run: u.cold, err: u.push()}
	umoci := &contender{name: "skopeo copy + umoci unpack", run: u.coldPeer, err: cold.err}
	docker := &contender{name: "docker pull", run: u.dockerPull, err: cold.err}
	if docker.err == nil {
		docker.err = c.haveDocker()
	}
	compare(ctx, 3, cold, umoci, docker)

	layers := &contender{name: "300 MB image, layers there: unpack", run: u.unpack, err: cold.err}
	layersPeer := &contender{name: "umoci unpack", run: u.unpackPeer, err: umoci.err}
	warm := &contender{name: "300 MB image, warm: make ready again", run: u.warm, err: cold.err}
	warmPeer := &contender{name: "docker pull", run: u.dockerPullAgain, err: docker.err}
	compare(ctx, 3, layers, layersPeer, warm, warmPeer)
	return []row{
		cold.against(umoci, "-"), cold.against(docker, "-"), layers.against(layersPeer, "-"), warm.against(warmPeer, "-"),
	}, nil
}

// unpacker is where that is done.
type unpacker struct {
	*containers
	ref string
	dir string
	n   int // stores made
}

// push puts the image into the registry, unless an earlier run has.
func (u *unpacker) push() error {
	if u.registry == "" {
		return absent("no registry; see scripts/services")
	}
	ref, err := name.ParseReference(u.ref)
	if err != nil {
		return err
	}
	if _, err := remote.Head(ref); err == nil {
		return nil
	}
	img, err := testimage.Large(largeSize)
	if err != nil {
		return err
	}
	return testimage.Push(img, u.ref)
}

// store opens the store of a name in the bench's folder.
func (u *unpacker) store(name string) (*image.Store, error) {
	return image.Open(&image.Options{
		Dir: filepath.Join(u.dir, name), Sources: image.Sources{HTTP: []string{u.registry}},
	})
}

// ready pulls and unpacks the image into s.
func (u *unpacker) ready(ctx context.Context, s *image.Store) error {
	img, err := s.Get(ctx, &image.Request{Ref: u.ref, Trusted: true})
	if err == nil {
		_, err = s.RootFS(ctx, img, &image.Lease{Owner: "bench"})
	}
	return err
}

// cold uses a store of its own each time, and keeps the last one.
func (u *unpacker) cold(ctx context.Context) error {
	last := u.storeName()
	u.n++
	s, err := u.store(u.storeName())
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Join(u.dir, last))
	return u.ready(ctx, s)
}

func (u *unpacker) storeName() string { return fmt.Sprintf("store%d", u.n) }

// coldPeer does the same with tools that are one step each.
func (u *unpacker) coldPeer(ctx context.Context) error {
	layout := filepath.Join(u.dir, "layout")
	if err := os.RemoveAll(layout); err != nil {
		return err
	}
	err := tool(ctx, "skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "docker://"+u.ref, "oci:"+layout+":large")
	if err != nil {
		return err
	}
	return u.unpackPeer(ctx)
}

func (u *unpacker) unpackPeer(ctx context.Context) error {
	bundle := filepath.Join(u.dir, "bundle")
	if err := os.RemoveAll(bundle); err != nil {
		return err
	}
	return tool(ctx, "umoci", "unpack", "--image", filepath.Join(u.dir, "layout")+":large", bundle)
}

// unpack has the layers in the store and the files not: those of the last time
// are removed, as its peer removes its own.
func (u *unpacker) unpack(ctx context.Context) error {
	if err := os.RemoveAll(filepath.Join(u.dir, u.storeName(), "trees")); err != nil {
		return err
	}
	return u.warm(ctx)
}

// warm has everything in the store.
func (u *unpacker) warm(ctx context.Context) error {
	s, err := u.store(u.storeName())
	if err != nil {
		return err
	}
	return u.ready(ctx, s)
}

func (u *unpacker) dockerPull(ctx context.Context) error {
	_ = u.dockerCommand(ctx, "rmi", "-f", u.ref).Run()
	return u.dockerPullAgain(ctx)
}

func (u *unpacker) dockerPullAgain(ctx context.Context) error {
	return tool(ctx, "docker", "-H", u.docker, "pull", "-q", u.ref)
}

// tool runs a program of the host.
func tool(ctx context.Context, name string, args ...string) error {
	if _, err := exec.LookPath(name); err != nil {
		return absent("no " + name + " in PATH")
	}
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, args[0], err, out)
	}
	return nil
}
