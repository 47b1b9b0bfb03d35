//go:build unix

package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/imagetest"
)

func writeFile(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// pairs are two images with tags of their own.
func pairs(t *testing.T) (one, two v1.Image, dir string) {
	t.Helper()
	return small(t, "one", noise(20, 2000)), small(t, "two"), t.TempDir()
}

func TestLayout(t *testing.T) {
	one, two, dir := pairs(t)
	imagetest.Layout(t, filepath.Join(dir, "layout"), map[string]v1.Image{"v1": one, "example.com/app:v2": two})
	imagetest.OCIArchive(t, filepath.Join(dir, "a.tar"), map[string]v1.Image{"v1": one, "example.com/app:v2": two})
	s := pullStore(t, sources(t, nil))
	for _, place := range []string{"oci:" + filepath.Join(dir, "layout"), "oci-archive:" + filepath.Join(dir, "a.tar")} {
		for tag, want := range map[string]v1.Image{":v1": one, ":v2": two, ":example.com/app:v2": two} {
			if img := mustGet(t, s, &image.Request{Ref: place + tag}); img.Digest != digestOf(t, want) {
				t.Errorf("%s%s is %s, want %s", place, tag, img.Digest, digestOf(t, want))
			}
		}
		_, err := get(t, s, place+":v3")
		wantError(t, err, caisson.ErrNotFound, `"v3"`, "example.com/app:v2")
		_, err = get(t, s, place)
		wantError(t, err, caisson.ErrInvalid, "several", "v1")
	}
	// A relative path starts in the request's folder.
	req := &image.Request{Ref: "oci:layout:v1", Dir: dir}
	if img := mustGet(t, s, req); img.Name != "oci:"+filepath.Join(dir, "layout")+":v1" {
		t.Errorf("the name is %s", img.Name)
	}
	_, err := get(t, s, "oci:layout:v1")
	wantError(t, err, caisson.ErrInvalid, "relative")
	// Others may name only what the operator lists.
	req.Trusted = false
	_, err = s.Get(t.Context(), req)
	wantError(t, err, caisson.ErrDenied)
	src := sources(t, nil)
	src.AllowFiles = []string{dir}
	if _, err := pullStore(t, src).Get(t.Context(), req); err != nil {
		t.Errorf("below a listed folder: %v", err)
	}
}

// What a file is now counts, not what it was when it was read last.
func TestFileChanges(t *testing.T) {
	one, two, dir := pairs(t)
	file := filepath.Join(dir, "a.tar")
	imagetest.OCIArchive(t, file, map[string]v1.Image{"v1": one})
	s := pullStore(t, sources(t, nil))
	mustGet(t, s, &image.Request{Ref: "oci-archive:" + file})
	imagetest.OCIArchive(t, file, map[string]v1.Image{"v1": two})
	if img := mustGet(t, s, &image.Request{Ref: "oci-archive:" + file, Pull: image.PullNever}); img.Digest != digestOf(t, two) {
		t.Errorf("the image is %s, want the new one, %s", img.Digest, digestOf(t, two))
	}
}

// Who puts a file of his own where another's was does not get at what that one
// had in it, by naming its digests.
func TestFileOfAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	img, _, dir := pairs(t)
	layout, file := filepath.Join(dir, "layout"), filepath.Join(dir, "a.tar")
	imagetest.Layout(t, layout, map[string]v1.Image{"v1": img})
	imagetest.Pack(t, layout, file)
	s := pullStore(t, sources(t, nil))
	mustGet(t, s, &image.Request{Ref: "oci-archive:" + file})

	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err == nil {
			err = os.Remove(filepath.Join(layout, "blobs/sha256", digest.Hex))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	imagetest.Pack(t, layout, file)
	if err := os.Chown(file, 1234, 1234); err != nil {
		t.Fatal(err)
	}
	_, err = get(t, s, "oci-archive:"+file)
	wantError(t, err, caisson.ErrNotFound, "blobs")
}

func TestDockerArchive(t *testing.T) {
	one, two, dir := pairs(t)
	file := filepath.Join(dir, "a.tar")
	imagetest.DockerArchive(t, file, map[string]v1.Image{"busybox:1": one, "example.com/team/app:2": two})
	s := pullStore(t, sources(t, nil))
	id := func(img v1.Image) string {
		hash, err := img.ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		return hash.String()
	}
	for tag, want := range map[string]v1.Image{"busybox:1": one, "docker.io/library/busybox:1": one, "1": one, "2": two, "example.com/team/app:2": two} {
		if img := mustGet(t, s, &image.Request{Ref: "docker-archive:" + file + ":" + tag}); img.ID != id(want) {
			t.Errorf("%s is %s, want %s", tag, img.ID, id(want))
		}
	}
	_, err := get(t, s, "docker-archive:"+file)
	wantError(t, err, caisson.ErrInvalid, "several", "example.com/team/app:2")
	_, err = get(t, s, "docker-archive:"+file+":busybox:2")
	wantError(t, err, caisson.ErrNotFound, "busybox:1")

	imagetest.DockerArchive(t, file, map[string]v1.Image{"busybox:1": one})
	plain := readFile(t, file)
	for name, pack := range map[string]func([]byte) []byte{"gzip": gzipped, "zstd": zstandard} {
		writeFile(t, file, pack(plain))
		if img := mustGet(t, s, &image.Request{Ref: "docker-archive:" + file}); img.ID != id(one) {
			t.Errorf("compressed by %s: %s, want %s", name, img.ID, id(one))
		}
	}
	img, names, err := s.Load(t.Context(), &image.Request{Ref: "docker-archive:" + file, Trusted: true})
	if err != nil || len(names) != 1 || names[0] != "docker.io/library/busybox:1" {
		t.Fatalf("Load = %v, %v, want docker.io/library/busybox:1", names, err)
	}
	if got := mustGet(t, s, &image.Request{Ref: "busybox:1", Pull: image.PullNever}); got.Digest != img.Digest {
		t.Errorf("by its own name: %s, want %s", got.Digest, img.Digest)
	}
}

func gzipped(data []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(data)
	w.Close()
	return buf.Bytes()
}

func zstandard(data []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(data, nil)
}

// file is an entry of an archive.
func entry(name, data string) imagetest.Entry {
	return imagetest.Entry{Header: tar.Header{Name: name}, Data: data}
}

func TestArchiveErr(t *testing.T) {
	dir := t.TempDir()
	secret := writeFile(t, filepath.Join(dir, "secret"), []byte(`{"rootfs":{"diff_ids":[]},"secret":"hidden-words"}`))
	link := func(name, target string) imagetest.Entry {
		return imagetest.Entry{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}}
	}
	config := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:` + someHex + `"]}}`
	index := func(digest string) string {
		return `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"` + digest + `"}]}`
	}
	for name, test := range map[string]struct {
		scheme  string
		entries []imagetest.Entry
		kind    caisson.Kind
		words   string
	}{
		"Empty":       {"docker-archive", nil, caisson.ErrInvalid, "docker save"},
		"EmptyOCI":    {"oci-archive", nil, caisson.ErrInvalid, "not an OCI layout"},
		"NoJSON":      {"docker-archive", []imagetest.Entry{entry("manifest.json", "x")}, caisson.ErrInvalid, "manifest.json"},
		"NoImages":    {"docker-archive", []imagetest.Entry{entry("manifest.json", "[]")}, caisson.ErrNotFound, "no image"},
		"NoConfig":    {"docker-archive", []imagetest.Entry{entry("manifest.json", `[{"Config":"c.json"}]`)}, caisson.ErrNotFound, "c.json"},
		"Outside":     {"docker-archive", []imagetest.Entry{entry("manifest.json", `[{"Config":"`+secret+`"}]`)}, caisson.ErrNotFound, "secret"},
		"LinkOutside": {"docker-archive", []imagetest.Entry{entry("manifest.json", `[{"Config":"c"}]`), link("c", secret)}, caisson.ErrNotFound, "no c"},
		"LinkLoop":    {"docker-archive", []imagetest.Entry{entry("manifest.json", `[{"Config":"c"}]`), link("c", "d"), link("d", "c")}, caisson.ErrInvalid, "link"},
		"LayerCount":  {"docker-archive", []imagetest.Entry{entry("manifest.json", `[{"Config":"c"}]`), entry("c", config)}, caisson.ErrInvalid, "0 layers"},
		"WrongLayer":  {"docker-archive", []imagetest.Entry{entry("manifest.json", `[{"Config":"c","Layers":["l"]}]`), entry("c", config), entry("l", "what?")}, caisson.ErrInvalid, "digest"},
		"BadDiffID":   {"docker-archive", []imagetest.Entry{entry("manifest.json", `[{"Config":"c","Layers":["l"]}]`), entry("c", strings.Replace(config, "sha256:", "md5:", 1)), entry("l", "x")}, caisson.ErrInvalid, "configuration"},
		"NoBlob":      {"oci-archive", []imagetest.Entry{entry("index.json", index("sha256:"+someHex))}, caisson.ErrNotFound, someHex},
		"BadDigest":   {"oci-archive", []imagetest.Entry{entry("index.json", index("sha256:../../../secret"))}, caisson.ErrInvalid, ""},
		"WrongBlob":   {"oci-archive", []imagetest.Entry{entry("index.json", index("sha256:"+someHex)), entry("blobs/sha256/"+someHex, "{}")}, caisson.ErrInvalid, "wrong digest"},
		"NotAnIndex":  {"oci-archive", []imagetest.Entry{entry("index.json", `{"schemaVersion":2,"layers":[]}`)}, caisson.ErrInvalid, "clearly"},
		"SelfIndex":   {"oci-archive", nested(t, 5), caisson.ErrInvalid, "deep"},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeFile(t, filepath.Join(t.TempDir(), "a.tar"), imagetest.Tar(t, test.entries...))
			_, err := pullStore(t, sources(t, nil)).Get(t.Context(), &image.Request{Ref: test.scheme + ":" + file, Platform: "linux/amd64", Trusted: true})
			wantError(t, err, test.kind, test.words)
			if strings.Contains(fmt.Sprint(err), "hidden-words") {
				t.Errorf("a file of the host is in the error %q", err)
			}
		})
	}
}

// nested makes a layout of indexes that lead to each other.
func nested(t *testing.T, levels int) []imagetest.Entry {
	t.Helper()
	var entries []imagetest.Entry
	data := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	for range levels {
		sum := sha256.Sum256([]byte(data))
		digest := hex.EncodeToString(sum[:])
		entries = append(entries, entry("blobs/sha256/"+digest, data))
		data = fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[`+
			`{"mediaType":"application/vnd.oci.image.index.v1+json","size":%d,"digest":"sha256:%s"}]}`, len(data), digest)
	}
	return append(entries, entry("index.json", data))
}

func TestFileErr(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.tar")
	imagetest.OCIArchive(t, file, map[string]v1.Image{"v1": small(t, "one")})
	whole := readFile(t, file)
	s := pullStore(t, sources(t, nil))
	for name, test := range map[string]struct {
		data []byte
		kind caisson.Kind
	}{
		"Cut":      {whole[:len(whole)/2-100], caisson.ErrInvalid},
		"Text":     {bytes.Repeat([]byte("hello "), 1000), caisson.ErrInvalid},
		"CutGzip":  {gzipped(whole)[:len(whole)/20], caisson.ErrInvalid},
		"CutZstd":  {zstandard(whole)[:len(whole)/20], caisson.ErrInvalid},
		"XZ":       {append([]byte{0xfd, '7', 'z', 'X', 'Z', 0}, whole...), caisson.ErrUnsupported},
		"Nothing":  {nil, caisson.ErrInvalid},
		"GzipBomb": {gzipped(make([]byte, 2<<20)), caisson.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			bad := writeFile(t, filepath.Join(t.TempDir(), "a.tar"), test.data)
			store, err := image.Open(&image.Options{Dir: filepath.Join(t.TempDir(), "images"), Limits: image.Limits{Bytes: 1 << 20}, Sources: sources(t, nil)})
			if err != nil {
				t.Fatal(err)
			}
			_, err = get(t, store, "oci-archive:"+bad)
			wantError(t, err, test.kind)
		})
	}
	_, err := get(t, s, "oci-archive:"+filepath.Join(dir, "none.tar"))
	wantError(t, err, caisson.ErrNotFound, "none.tar")
	_, err = get(t, s, "oci:"+filepath.Join(dir, "none"))
	wantError(t, err, caisson.ErrNotFound, "none")
	_, err = get(t, s, "oci:"+file)
	if err == nil {
		t.Error("a file is a layout")
	}
	_, err = get(t, s, "oci-archive:"+dir)
	if err == nil {
		t.Error("a folder is an archive")
	}
	// A blob that is a link leads nowhere.
	imagetest.Layout(t, filepath.Join(dir, "layout"), map[string]v1.Image{"v1": small(t, "two")})
	blobs, err := filepath.Glob(filepath.Join(dir, "layout/blobs/sha256/*"))
	if err != nil || len(blobs) == 0 {
		t.Fatal(blobs, err)
	}
	for _, blob := range blobs {
		moved := filepath.Join(dir, filepath.Base(blob))
		if err := os.Rename(blob, moved); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(moved, blob); err != nil {
			t.Fatal(err)
		}
	}
	_, err = get(t, s, "oci:"+filepath.Join(dir, "layout"))
	if err == nil || !strings.Contains(err.Error(), "link") {
		t.Errorf("a link in a layout was followed: %v", err)
	}
}

func TestWebArchive(t *testing.T) {
	one, _, dir := pairs(t)
	oci, docker := filepath.Join(dir, "oci.tar"), filepath.Join(dir, "docker.tar")
	imagetest.OCIArchive(t, oci, map[string]v1.Image{"v1": one})
	imagetest.DockerArchive(t, docker, map[string]v1.Image{"app:1": one})
	requests, cuts := 0, 0
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		data, err := os.ReadFile(filepath.Join(dir, filepath.Base(r.URL.Path)))
		switch {
		case err != nil:
			http.NotFound(w, r)
			return
		case cuts > 0:
			cuts--
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			w.Write(data[:len(data)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	defer server.Close()
	src := sources(t, nil)
	src.RootCAs = x509.NewCertPool()
	src.RootCAs.AddCert(server.Certificate())
	ref := func(file string) string {
		sum := sha256.Sum256(readFile(t, file))
		return server.URL + "/" + filepath.Base(file) + "#sha256=" + hex.EncodeToString(sum[:])
	}
	s := pullStore(t, src)
	if img := mustGet(t, s, &image.Request{Ref: ref(oci)}); img.Digest != digestOf(t, one) {
		t.Errorf("Get = %s, want %s", img.Digest, digestOf(t, one))
	}
	cuts = 2
	mustGet(t, s, &image.Request{Ref: ref(docker) + "&tag=app:1"})
	if cuts != 0 {
		t.Error("the connection was not cut")
	}
	before := requests
	mustGet(t, s, &image.Request{Ref: ref(oci)})
	if requests != before {
		t.Error("what has a digest is asked for again")
	}

	_, err := get(t, s, server.URL+"/none.tar#sha256="+someHex)
	wantError(t, err, caisson.ErrNotFound, "none.tar")
	_, err = get(t, pullStore(t, src), server.URL+"/oci.tar#sha256="+someHex)
	wantError(t, err, caisson.ErrInvalid, "digest")
	_, err = pullStore(t, src).Get(t.Context(), &image.Request{Ref: ref(oci)})
	wantError(t, err, caisson.ErrDenied, "not a public address")
}
