package testimage_test

import (
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/caissonrun/caisson/internal/testimage"
)

// TestBusybox holds that an image is whole, and the same bytes each time:
// digests may be written down.
func TestBusybox(t *testing.T) {
	var digests [2]v1.Hash
	for i := range digests {
		img, err := testimage.Busybox(v1.Config{User: "tester"})
		if err != nil {
			t.Fatal(err)
		}
		if digests[i], err = img.Digest(); err != nil {
			t.Fatal(err)
		}
		file, err := img.ConfigFile()
		if err != nil || file.Config.User != "tester" || file.Config.Cmd[0] != "sh" {
			t.Errorf("ConfigFile() = %+v, %v, want tester and sh", file, err)
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("digests = %v, want the same twice", digests)
	}
}

func TestWrite(t *testing.T) {
	img, err := testimage.Large(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	want, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "image.tar")
	if err := testimage.WriteArchive(img, archive, "large:1m"); err != nil {
		t.Fatal(err)
	}
	read, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read.ConfigName(); err != nil || got != want {
		t.Errorf("archive: ConfigName() = %v, %v, want %v", got, err, want)
	}
	folder := filepath.Join(dir, "layout")
	for _, tag := range []string{"one", "two"} {
		if err := testimage.WriteLayout(img, folder, tag); err != nil {
			t.Fatal(err)
		}
	}
	index, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 2 {
		t.Errorf("IndexManifest() = %+v, %v, want two manifests", manifest, err)
	}
}
