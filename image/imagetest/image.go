// Package imagetest makes small images, and the folders, archives and
// registries that tests get them from, good ones and bad ones.
package imagetest

import (
	"archive/tar"
	"bytes"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// An Entry is a member of a layer. A header without a type is a regular file,
// or a folder where the name ends in a slash; without a mode it gets 0644 or
// 0755.
type Entry struct {
	tar.Header
	Data string
}

// File is an entry that can be run and read by everybody.
func File(path, data string) Entry {
	return Entry{Header: tar.Header{Name: path, Mode: 0o755}, Data: data}
}

// Layer makes a compressed layer of entries, in their order.
func Layer(t testing.TB, entries ...Entry) v1.Layer {
	t.Helper()
	data := Tar(t, entries...)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// Tar makes a tar file of entries, in their order.
func Tar(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		if h.Typeflag == 0 && len(h.Name) > 0 && h.Name[len(h.Name)-1] == '/' {
			h.Typeflag = tar.TypeDir
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = map[byte]int64{tar.TypeDir: 0o755}[h.Typeflag]
			if h.Mode == 0 {
				h.Mode = 0o644
			}
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(e.Data))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Image makes an image for linux/amd64 of layers. Config may be nil.
func Image(t testing.TB, config *v1.Config, layers ...v1.Layer) v1.Image {
	return ImageFor(t, "linux/amd64", config, layers...)
}

// ImageFor makes an image for a platform, such as linux/arm/v7.
func ImageFor(t testing.TB, platform string, config *v1.Config, layers ...v1.Layer) v1.Image {
	t.Helper()
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		t.Fatal(err)
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, l := range layers {
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Variant = p.OS, p.Architecture, p.Variant
	file.Created = v1.Time{Time: time.Unix(1_700_000_000, 0).UTC()}
	if config != nil {
		file.Config = *config
	}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	return img
}

// Index makes an image for several platforms of images for one.
func Index(t testing.TB, images ...v1.Image) v1.ImageIndex {
	t.Helper()
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, img := range images {
		file, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: file.OS, Architecture: file.Architecture, Variant: file.Variant}},
		})
	}
	return index
}

// busybox is where Debian's busybox-static has its program.
const busybox = "/bin/busybox"

// Busybox makes an image of this host's statically linked busybox with a few
// users and groups, whose command is sh. Further entries make a second layer.
func Busybox(t testing.TB, entries ...Entry) v1.Image {
	t.Helper()
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatalf("busybox-static is needed (scripts/setup): %v", err)
	}
	files := []Entry{
		File("bin/", ""), File("bin/busybox", string(program)),
		{Header: tar.Header{Name: "tmp/", Mode: 0o1777}},
		{Header: tar.Header{Name: "etc/passwd"}, Data: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\napp:x:1234:1235:app:/home/app:/bin/sh\n"},
		{Header: tar.Header{Name: "etc/group"}, Data: "root:x:0:\nnogroup:x:65534:\napp:x:1235:\nextra:x:2000:app\n"},
		{Header: tar.Header{Name: "home/app/", Uid: 1234, Gid: 1235}},
	}
	for _, applet := range []string{
		"cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "echo", "env", "expr", "false", "find", "grep", "head", "hostname", "id",
		"ip", "kill", "ln", "ls", "mkdir", "mount", "mv", "nc", "nslookup", "ps", "pwd", "rm", "sed", "seq", "sh", "sleep", "sort", "stat",
		"tail", "tar", "tee", "test", "touch", "tr", "true", "tty", "ulimit", "umount", "uniq", "wc", "wget", "yes",
	} {
		files = append(files, Entry{Header: tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"}})
	}
	layers := []v1.Layer{Layer(t, files...)}
	if len(entries) > 0 {
		layers = append(layers, Layer(t, entries...))
	}
	return Image(t, &v1.Config{Cmd: []string{"sh"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}, layers...)
}

// Layout writes images into a new OCI layout in dir, each with its tag.
func Layout(t testing.TB, dir string, images map[string]v1.Image) {
	t.Helper()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range slices.Sorted(maps.Keys(images)) {
		note := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag})
		if err := path.AppendImage(images[tag], note); err != nil {
			t.Fatal(err)
		}
	}
}

// OCIArchive writes a tar file of an OCI layout.
func OCIArchive(t testing.TB, file string, images map[string]v1.Image) {
	t.Helper()
	dir := t.TempDir()
	Layout(t, dir, images)
	Pack(t, dir, file)
}

// Pack writes a tar file of all regular files below dir.
func Pack(t testing.TB, dir, file string) {
	t.Helper()
	var entries []Entry
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		entries = append(entries, Entry{Header: tar.Header{Name: rel}, Data: string(data)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, Tar(t, entries...))
}

// DockerArchive writes a tar file as docker save does, of images by name, such
// as busybox:stable.
func DockerArchive(t testing.TB, file string, images map[string]v1.Image) {
	t.Helper()
	tagged := make(map[name.Tag]v1.Image)
	for text, img := range images {
		tag, err := name.NewTag(text)
		if err != nil {
			t.Fatal(err)
		}
		tagged[tag] = img
	}
	if err := tarball.MultiWriteToFile(file, tagged); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
