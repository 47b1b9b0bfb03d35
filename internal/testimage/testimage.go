// Package testimage makes the images that tests, examples and benchmarks run:
// of this host's own programs, so that nothing is fetched from anywhere, and
// the same bytes each time.
package testimage

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// made is the time of every file and image: builds of the same files are the
// same bytes.
var made = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A File is one entry of a layer.
type File struct {
	Name string // relative, no leading slash
	Mode int64  // with the set-id and sticky bits as in tar
	Type byte   // as in tar; 0: a regular file
	Link string // where a link points to
	Data []byte
	UID  int
	GID  int
}

// Layer makes a layer of files, in their order.
func Layer(files []File) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		kind := f.Type
		if kind == 0 {
			kind = tar.TypeReg
		}
		header := &tar.Header{
			Name: f.Name, Mode: f.Mode, Typeflag: kind, Linkname: f.Link, Size: int64(len(f.Data)),
			Uid: f.UID, Gid: f.GID, ModTime: made, Format: tar.FormatPAX,
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", f.Name, err)
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", f.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
}

// Build makes an image of layers.
func Build(config v1.Config, layers ...v1.Layer) (v1.Image, error) {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, layers...)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Created = v1.Time{Time: made}
	file.Config = config
	return mutate.ConfigFile(img, file)
}

// Busybox makes an image of this host's static busybox: a shell, the usual
// programs, and users root, nobody and tester (1234, group 2345, also in group
// 3456). config is the image's; without a Cmd it gets sh.
func Busybox(config v1.Config) (v1.Image, error) {
	files, err := busybox()
	if err != nil {
		return nil, err
	}
	layer, err := Layer(files)
	if err != nil {
		return nil, err
	}
	if len(config.Cmd) == 0 && len(config.Entrypoint) == 0 {
		config.Cmd = []string{"sh"}
	}
	if len(config.Env) == 0 {
		config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	return Build(config, layer)
}

// busybox lists the files of that image.
func busybox() ([]File, error) {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("busybox-static is missing; make setup installs it: %w", err)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	names, err := exec.Command(program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", program, err)
	}
	var files []File
	for _, dir := range []string{"bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "usr/sbin", "var", "var/lib"} {
		files = append(files, File{Name: dir + "/", Mode: 0o755, Type: tar.TypeDir})
	}
	files = append(
		files,
		File{Name: "tmp/", Mode: 0o1777, Type: tar.TypeDir},
		File{Name: "home/tester/", Mode: 0o755, Type: tar.TypeDir, UID: 1234, GID: 2345},
		File{Name: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\n" +
			"nobody:x:65534:65534:nobody:/:/bin/false\ntester:x:1234:2345:tester:/home/tester:/bin/sh\n")},
		File{Name: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\nnogroup:x:65534:\ntesters:x:2345:\nextra:x:3456:tester\n")},
		File{Name: "bin/busybox", Mode: 0o755, Data: data},
	)
	for _, applet := range strings.Fields(string(names)) {
		if applet != "busybox" {
			files = append(files, File{Name: "bin/" + applet, Mode: 0o777, Type: tar.TypeSymlink, Link: "busybox"})
		}
	}
	return append(files, File{Name: "usr/bin/env", Mode: 0o777, Type: tar.TypeSymlink, Link: "../../bin/busybox"}), nil
}

// Large makes an image of about size bytes in four layers over busybox: many
// files of many sizes, half of them text, as programs and libraries are.
func Large(size int) (v1.Image, error) {
	const layers = 4
	base, err := busybox()
	if err != nil {
		return nil, err
	}
	bottom, err := Layer(base)
	if err != nil {
		return nil, err
	}
	list := []v1.Layer{bottom}
	random := rand.New(rand.NewPCG(1, 2)) // the same files each time
	for n := range layers {
		layer, err := Layer(many(random, fmt.Sprintf("opt/part%d", n), size/layers))
		if err != nil {
			return nil, err
		}
		list = append(list, layer)
	}
	return Build(v1.Config{Cmd: []string{"sh"}, Env: []string{"PATH=/usr/bin:/bin"}}, list...)
}

// many lists files below dir that have size bytes together.
func many(random *rand.Rand, dir string, size int) []File {
	files := []File{{Name: "opt/", Mode: 0o755, Type: tar.TypeDir}, {Name: dir + "/", Mode: 0o755, Type: tar.TypeDir}}
	for n := 0; size > 0; n++ {
		if n%100 == 0 {
			files = append(files, File{Name: fmt.Sprintf("%s/%03d/", dir, n/100), Mode: 0o755, Type: tar.TypeDir})
		}
		// Mostly small ones, and a few that hold most of the bytes.
		length := 500 + random.IntN(20_000)
		if n%20 == 0 {
			length = 100_000 + random.IntN(2_000_000)
		}
		length = min(length, size)
		size -= length
		files = append(files, File{
			Name: fmt.Sprintf("%s/%03d/file%d", dir, n/100, n), Mode: 0o644, Data: content(random, length, n%2 == 0),
		})
	}
	return files
}

// content is length bytes, of which text can be compressed and the rest can't.
func content(random *rand.Rand, length int, text bool) []byte {
	data := make([]byte, 0, length+16)
	for len(data) < length {
		if text {
			data = fmt.Appendf(data, "word%d ", random.IntN(500))
			continue
		}
		n := random.Uint64()
		for i := range 8 {
			data = append(data, byte(n>>(8*i)))
		}
	}
	return data[:length]
}

// FromTar makes an image of one layer of a tar archive, as `docker import` does.
func FromTar(file string, config v1.Config) (v1.Image, error) {
	layer, err := tarball.LayerFromFile(file, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return Build(config, layer)
}

// WriteArchive writes img as `docker save` does.
func WriteArchive(img v1.Image, file, ref string) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(file, tag, img)
}

// WriteLayout adds img to the OCI layout in dir, under tag, and makes the
// layout if it is not there.
func WriteLayout(img v1.Image, dir, tag string) error {
	p, err := layout.FromPath(dir)
	if err != nil {
		if p, err = layout.Write(dir, empty.Index); err != nil {
			return err
		}
	}
	return p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag}))
}

// Push sends img to a registry, over http where that is on a loopback address.
func Push(img v1.Image, ref string) error {
	to, err := name.ParseReference(ref)
	if err != nil {
		return err
	}
	return remote.Write(to, img)
}
