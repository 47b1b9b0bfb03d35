//go:build unix

package image_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/imagetest"
)

const (
	wasmType   types.MediaType = "application/wasm"
	wasmLayer  types.MediaType = "application/vnd.wasm.content.layer.v1+wasm"
	wasmConfig types.MediaType = "application/vnd.wasm.config.v0+json"
)

// module brings a module and returns what came.
func module(t *testing.T, s *image.Store, req *image.Request) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "module.wasm")
	_, err := s.Module(t.Context(), req, file)
	data, readErr := os.ReadFile(file)
	if err != nil && readErr == nil {
		t.Errorf("after %v there is a file", err)
	}
	return string(data), err
}

// packed is an image whose layer has files.
func packed(t *testing.T, config *v1.Config, entries ...imagetest.Entry) v1.Image {
	t.Helper()
	return imagetest.ImageFor(t, "wasi/wasm", config, imagetest.Layer(t, entries...))
}

// TestModule holds which forms of artifacts are a module.
func TestModule(t *testing.T) {
	reg := imagetest.NewHTTPRegistry(t)
	s := pullStore(t, image.Sources{AuthFile: authFile(t, `{}`), HTTP: []string{reg.Host}})
	wasm := noise(7, 5000)
	entrypoint := &v1.Config{Entrypoint: []string{"two.wasm"}}
	index := mutate.AppendManifests(
		mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
			Add: imagetest.Image(t, nil, imagetest.Layer(t)), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}},
		}),
		mutate.IndexAddendum{
			Add: imagetest.Module(t, wasm, wasmType, wasmConfig), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "wasi", Architecture: "wasm"}},
		})
	for where, img := range map[string]v1.Image{
		"artifact:1": imagetest.Module(t, wasm, wasmType, wasmConfig),
		"older:1":    imagetest.Module(t, wasm, wasmLayer, "application/vnd.wasm.config.v1+json"),
		"mixed:1":    imagetest.Module(t, wasm, wasmType, ""),
		"image:1":    packed(t, nil, imagetest.File("README", "x"), imagetest.File("app/one.wasm", wasm)),
		"entry:1":    packed(t, entrypoint, imagetest.File("one.wasm", "other"), imagetest.File("two.wasm", wasm)),
	} {
		if got, err := module(t, s, &image.Request{Ref: reg.Push(t, where, img)}); err != nil || got != wasm {
			t.Errorf("%s: %d bytes, %v", where, len(got), err)
		}
	}
	if got, err := module(t, s, &image.Request{Ref: reg.PushIndex(t, "index:1", index)}); err != nil || got != wasm {
		t.Errorf("of an index: %d bytes, %v", len(got), err)
	}

	// It is here now: nobody outside is asked again, and a collection leaves it.
	before := reg.Count("manifests")
	if _, err := s.GC(t.Context(), image.GCOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := module(t, s, &image.Request{Ref: reg.Host + "/artifact:1", Pull: image.PullNever}); err != nil || got != wasm {
		t.Errorf("from the store: %d bytes, %v", len(got), err)
	}
	if reg.Count("manifests") != before {
		t.Error("the registry was asked for what is in the store")
	}
	// What is a module is no root file system.
	if _, err := s.Get(t.Context(), &image.Request{Ref: reg.Host + "/artifact:1"}); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("a module as an image: %v", err)
	}
	if list, err := s.List(t.Context()); err != nil || len(list) != 6 {
		t.Errorf("List = %d, %v", len(list), err)
	}
}

// TestModuleRefused holds what is no module, each in one line.
func TestModuleRefused(t *testing.T) {
	reg := imagetest.NewHTTPRegistry(t)
	s := pullStore(t, image.Sources{AuthFile: authFile(t, `{}`), HTTP: []string{reg.Host}})
	for where, c := range map[string]struct {
		img  v1.Image
		kind caisson.Kind
		says string
	}{
		"two:1":     {imagetest.Image(t, nil, imagetest.Layer(t), imagetest.Layer(t, imagetest.File("a.wasm", "x"))), caisson.ErrUnsupported, "2 layers"},
		"none:1":    {imagetest.Image(t, nil), caisson.ErrUnsupported, "0 layers"},
		"chart:1":   {imagetest.Module(t, "x", "application/vnd.cncf.helm.chart.content.v1.tar+gzip", wasmConfig), caisson.ErrUnsupported, "helm"},
		"empty:1":   {packed(t, nil, imagetest.File("README", "x")), caisson.ErrNotFound, ".wasm"},
		"several:1": {packed(t, nil, imagetest.File("a.wasm", "x"), imagetest.File("b.wasm", "y")), caisson.ErrInvalid, "several"},
		"absent:1":  {packed(t, &v1.Config{Entrypoint: []string{"/x.wasm"}}, imagetest.File("b.wasm", "y")), caisson.ErrNotFound, "x.wasm"},
	} {
		_, err := module(t, s, &image.Request{Ref: reg.Push(t, where, c.img)})
		if !errors.Is(err, c.kind) || !strings.Contains(fmt.Sprint(err), c.says) || strings.Contains(fmt.Sprint(err), "\n") {
			t.Errorf("%s: %v, want one line of kind %v about %q", where, err, c.kind, c.says)
		}
	}
}

// TestModuleSize holds that a small blob does not become a huge file.
func TestModuleSize(t *testing.T) {
	for _, size := range []int64{image.MaxModule + 1, 4 * image.MaxModule} {
		var header bytes.Buffer
		w := tar.NewWriter(&header)
		if err := w.WriteHeader(&tar.Header{Name: "a.wasm", Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
			t.Fatal(err)
		}
		out := &counting{}
		err := image.UnpackModule(out, io.MultiReader(&header, zeros{}), &image.Config{})
		if !errors.Is(err, caisson.ErrInvalid) || out.n > image.MaxModule+1 {
			t.Errorf("%d bytes: %v, %d written", size, err, out.n)
		}
	}
}

// counting counts what is written to it.
type counting struct{ n int64 }

func (c *counting) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// zeros is a reader without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestModulePolicies holds that modules are let in as images are.
func TestModulePolicies(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	dir, private := keys(t)
	from := sources(t, reg)
	from.KeyDir, from.AllowPrivate = dir, true
	from.Policies = []image.Policy{
		{Prefix: reg.Host + "/signed", Action: image.ActionSigned, Keys: []string{"ecdsa.pub"}},
		{Prefix: reg.Host + "/closed", Action: image.ActionReject},
		{Prefix: "https://example.com/closed", Action: image.ActionReject},
	}
	s := pullStore(t, from)
	img := imagetest.Module(t, "wasm", wasmType, wasmConfig)
	for _, where := range []string{"signed/one:1", "signed/two:1", "closed/one:1"} {
		reg.Push(t, where, img)
	}
	imagetest.Sign(t, reg, "signed/one", digestOf(t, img), private["ecdsa.pub"])
	if got, err := module(t, s, &image.Request{Ref: reg.Host + "/signed/one:1"}); err != nil || got != "wasm" {
		t.Errorf("a signed one: %q, %v", got, err)
	}
	for _, where := range []string{"signed/two:1", "closed/one:1"} {
		if _, err := module(t, s, &image.Request{Ref: reg.Host + "/" + where}); !errors.Is(err, caisson.ErrDenied) {
			t.Errorf("%s: %v, want denied", where, err)
		}
	}
	if err := s.PermitModule(&image.Request{Ref: "https://example.com/closed/a.wasm"}); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("a URL that is rejected: %v", err)
	}
	if err := s.PermitModule(&image.Request{Ref: "https://example.com/open/a.wasm"}); err != nil {
		t.Errorf("a URL that nothing is said of: %v", err)
	}
	from.RequireSignatures = true
	if err := pullStore(t, from).PermitModule(&image.Request{Ref: "https://example.com/open/a.wasm"}); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("a URL where everything must be signed: %v", err)
	}
}

// TestModuleCredentials holds that what a password gave is given to nobody else.
func TestModuleCredentials(t *testing.T) {
	reg := imagetest.NewHTTPRegistry(t)
	s := pullStore(t, image.Sources{AuthFile: authFile(t, `{}`), HTTP: []string{reg.Host}})
	ref := reg.Push(t, "team/m:1", imagetest.Module(t, "wasm", wasmType, wasmConfig))
	reg.Users(map[string]string{"ann": "password"}, true)
	if _, err := module(t, s, as(ref, "ann", "password")); err != nil {
		t.Fatal(err)
	}
	if _, err := module(t, s, &image.Request{Ref: ref}); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("without the password: %v", err)
	}
}

// TestKeptModule holds that a module of a web server is kept under its URL and
// digest, and never given out damaged.
func TestKeptModule(t *testing.T) {
	s := pullStore(t, sources(t, nil))
	file := writeFile(t, filepath.Join(t.TempDir(), "m"), []byte("wasm"))
	sum := sha256.Sum256([]byte("wasm"))
	digest := hex.EncodeToString(sum[:])
	kept := func(ref, digest string) (string, error) {
		file := filepath.Join(t.TempDir(), "module.wasm")
		err := s.KeptModule(t.Context(), ref, digest, file)
		data, _ := os.ReadFile(file)
		return string(data), err
	}
	const ref = "https://example.com/m.wasm?x=1"
	if _, err := kept(ref, digest); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("before it is kept: %v", err)
	}
	if err := s.KeepModule(t.Context(), ref, digest, file); err != nil {
		t.Fatal(err)
	}
	if got, err := kept(ref, digest); err != nil || got != "wasm" {
		t.Errorf("kept: %q, %v", got, err)
	}
	for _, other := range [][2]string{{"https://example.com/m.wasm?x=2", digest}, {ref, strings.Repeat("0", 64)}, {ref, "x"}} {
		if got, err := kept(other[0], other[1]); err == nil {
			t.Errorf("%q gives %q", other, got)
		}
	}
	if err := s.KeepModule(t.Context(), ref, strings.Repeat("0", 64), file); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("a wrong digest is kept: %v", err)
	}
	blobs, err := filepath.Glob(filepath.Join(s.Dir(), "blobs", digest))
	if err != nil || len(blobs) != 1 {
		t.Fatalf("the store has %v, %v", blobs, err)
	}
	writeFile(t, blobs[0], []byte("evil"))
	if got, err := kept(ref, digest); !errors.Is(err, caisson.ErrNotFound) || got != "" {
		t.Errorf("damaged: %q, %v", got, err)
	}
}
