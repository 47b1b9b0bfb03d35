//go:build unix

package image_test

import (
	"archive/tar"
	"path/filepath"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/imagetest"
)

// sortedKind reports whether an error says what its reader can do.
func sortedKind(err error) bool {
	kind := caisson.KindOf(err)
	return kind == caisson.ErrInvalid || kind == caisson.ErrUnsupported
}

func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"layers":[]}`), "")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:`+someHex+`","platform":{"os":"linux"}}]}`), "application/vnd.oci.image.index.v1+json")
	f.Add([]byte(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"size":-1}}`), "text/plain; x=y")
	f.Fuzz(func(t *testing.T, data []byte, contentType string) {
		if err := image.ParseDocument(data, contentType); err != nil && !sortedKind(err) {
			t.Errorf("%q: %v has no kind", data, err)
		}
	})
}

func FuzzArchive(f *testing.F) {
	plain := imagetest.Tar(f, entry("index.json", "{}"), entry("a/b", "text"),
		imagetest.Entry{Header: tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "../../etc/passwd"}},
		imagetest.Entry{Header: tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "a/b"}})
	f.Add(plain)
	f.Add(gzipped(plain))
	f.Add(zstandard(plain))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		_, err := image.ReadArchive(t.Context(), filepath.Join(dir, "images"), writeFile(t, filepath.Join(dir, "a.tar"), data))
		if err != nil && !sortedKind(err) {
			t.Errorf("%v has no kind", err)
		}
	})
}
