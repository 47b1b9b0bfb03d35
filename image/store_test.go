//go:build unix

package image_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/imagetest"
)

// rawLayer is a layer of any bytes, of which its image says that they hold
// something else.
type rawLayer struct {
	v1.Layer
}

func (l rawLayer) DiffID() (v1.Hash, error) {
	hash, _, err := v1.SHA256(bytes.NewReader([]byte("else")))
	return hash, err
}

func (l rawLayer) Uncompressed() (io.ReadCloser, error) { return l.Compressed() }

func rawImage(t *testing.T, data []byte) v1.Image {
	t.Helper()
	return imagetest.Image(t, nil, rawLayer{static.NewLayer(data, types.OCILayer)})
}

// fetched gets an image that must be there.
func fetched(t *testing.T, s *image.Store, ref string) *image.Image {
	t.Helper()
	img, err := s.Get(t.Context(), &image.Request{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func rootFS(t *testing.T, s *image.Store, img *image.Image, lease *image.Lease) *image.RootFS {
	t.Helper()
	root, err := s.RootFS(t.Context(), img, lease)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func collect(t *testing.T, s *image.Store, opts image.GCOptions) *image.GCResult {
	t.Helper()
	result, err := s.GC(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func names(t *testing.T, s *image.Store) []string {
	t.Helper()
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := []string{}
	for i := range list {
		found = append(found, list[i].Name)
	}
	return found
}

// holds lists the files and trees of a store, but for those that are always
// there.
func holds(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	for _, sub := range []string{"blobs", "partial", "grants", "names", "trees", "leases", "claims", "copies", "trash"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			list = append(list, sub+"/"+e.Name())
		}
	}
	return list
}

// TestGet holds what comes from the store and what from outside.
func TestGet(t *testing.T) {
	images := map[string]v1.Image{"app": imageOf(t, entries{file("a", "1")})}
	s := openStore(t, nil, images)
	never := &image.Request{Ref: "app", Pull: image.PullNever}
	if _, err := s.Get(t.Context(), never); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("never, and not there: %v, want ErrNotFound", err)
	}
	first := fetched(t, s, "app")
	if first.Name != "docker.io/library/app:latest" || first.Ref != "app" || first.Layers != 1 || first.Size == 0 {
		t.Errorf("Get = %+v", first)
	}
	images["app"] = imageOf(t, entries{file("a", "2")})
	if again := fetched(t, s, "app"); again.Digest != first.Digest {
		t.Error("missing: the image was looked for although it is there")
	}
	if again, err := s.Get(t.Context(), never); err != nil || again.Digest != first.Digest {
		t.Errorf("never: %v", err)
	}
	newest, err := s.Get(t.Context(), &image.Request{Ref: "app", Pull: image.PullAlways})
	if err != nil || newest.Digest == first.Digest {
		t.Errorf("always: the image was not looked for, %v", err)
	}
	if after := fetched(t, s, "app"); after.Digest != newest.Digest {
		t.Error("the name is not the newest image's")
	}
	for _, req := range []image.Request{{Ref: "app", Pull: "sometimes"}, {Ref: ""}, {Ref: "UPPER"}} {
		if _, err := s.Get(t.Context(), &req); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Get %+v = %v, want ErrInvalid", req, err)
		}
	}
	// What is not complete any more is got again.
	for _, path := range glob(t, s, "blobs", "*") {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if again := fetched(t, s, "app"); again.Digest != newest.Digest {
		t.Error("what was lost is not what came")
	}
}

func glob(t *testing.T, s *image.Store, elem ...string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(append([]string{s.Dir()}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestLease holds that an image in use stays, whatever is removed.
func TestLease(t *testing.T) {
	s := openStore(t, nil, map[string]v1.Image{"app": imageOf(t, entries{file("a", "1")}), "other": imageOf(t, entries{file("b", "1")})})
	img := fetched(t, s, "app")
	one := rootFS(t, s, img, &image.Lease{Owner: "task/1/main"})
	two := rootFS(t, s, img, &image.Lease{Owner: "task/2/main"})
	if !one.Shared || one.Mode != image.ModeOverlay || *one != *two {
		t.Errorf("two leases give %+v and %+v, want the same shared folder", one, two)
	}
	if _, err := s.RootFS(t.Context(), fetched(t, s, "other"), &image.Lease{Owner: "task/1/main"}); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("a lease of another image: %v, want ErrExists", err)
	}
	for _, owner := range []string{"", "a\nb", strings.Repeat("x", 256)} {
		if _, err := s.RootFS(t.Context(), img, &image.Lease{Owner: owner}); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("owner %q: %v, want ErrInvalid", owner, err)
		}
	}
	if err := s.Remove(t.Context(), "app", false); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("Remove = %v, want ErrExists", err)
	}
	collect(t, s, image.GCOptions{All: true})
	if got := names(t, s); !slices.Equal(got, []string{"docker.io/library/app:latest"}) {
		t.Errorf("after a collection of all there is %q", got)
	}
	if err := s.Remove(t.Context(), "app", true); err != nil {
		t.Fatal(err)
	}
	// Another store of the same folder knows as much.
	again, err := image.OpenWith(&image.Options{Dir: s.Dir()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	collect(t, again, image.GCOptions{All: true})
	if got := tree(t, one.Path); !slices.Equal(got, []string{"a = 1"}) {
		t.Errorf("what is in use holds %q", got)
	}
	if same := rootFS(t, again, img, &image.Lease{Owner: "task/1/main"}); *same != *one {
		t.Errorf("asked again: %+v, want %+v", same, one)
	}
	if err := s.Unlease(t.Context(), "task/1/main"); err != nil {
		t.Fatal(err)
	}
	collect(t, s, image.GCOptions{All: true})
	if _, err := os.Stat(one.Path); err != nil {
		t.Errorf("one of two leases is left: %v", err)
	}
	if err := s.Sweep(t.Context(), func(owner string) bool { return owner == "task/1/main" }); err != nil {
		t.Fatal(err)
	}
	collect(t, s, image.GCOptions{All: true})
	if got := holds(t, s.Dir()); len(got) > 0 {
		t.Errorf("with nobody left there is %q", got)
	}
	if err := s.Unlease(t.Context(), "nobody"); err != nil {
		t.Errorf("Unlease of nobody = %v", err)
	}
	if _, err := s.RootFS(t.Context(), img, &image.Lease{Owner: "late"}); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("RootFS of what was collected = %v, want ErrNotFound", err)
	}
}

// TestCopy holds that copies are whole and private.
func TestCopy(t *testing.T) {
	layer := entries{
		file("a", "1"), hardLink("b", "a"), symlink("l", "/etc/passwd"), folder("d"), file("d/x", strings.Repeat("x", 300_000)),
		special('6', "p", ""), file("zero", strings.Repeat("\x00", 1<<20)),
	}
	for name, noOverlay := range map[string]bool{"ByLease": false, "ByOperator": true} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, &image.Options{NoOverlay: noOverlay}, map[string]v1.Image{"app": imageOf(t, layer)})
			img := fetched(t, s, "app")
			mode := image.ModeCopy
			if noOverlay {
				mode = image.ModeOverlay
			}
			one := rootFS(t, s, img, &image.Lease{Owner: "one", Mode: mode})
			mine := t.TempDir()
			two := rootFS(t, s, img, &image.Lease{Owner: "two", Mode: mode, Dir: mine})
			if one.Shared || two.Shared || one.Path == two.Path || filepath.Dir(two.Path) != mine || one.Mode == image.ModeOverlay {
				t.Errorf("copies are %+v and %+v", one, two)
			}
			if a, b := tree(t, one.Path), tree(t, two.Path); !slices.Equal(a, b) || len(a) != 7 {
				t.Errorf("copies hold %q and %q", a, b)
			}
			a, errA := os.Stat(filepath.Join(one.Path, "a"))
			b, errB := os.Stat(filepath.Join(one.Path, "b"))
			if errA != nil || errB != nil || !os.SameFile(a, b) {
				t.Error("a file with two names has become two")
			}
			if err := os.WriteFile(filepath.Join(one.Path, "a"), []byte("changed"), 0o644); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(filepath.Join(two.Path, "a")); string(got) != "1" {
				t.Errorf("a write to one copy shows in another: %q", got)
			}
			if again := rootFS(t, s, img, &image.Lease{Owner: "one", Mode: mode}); again.Path != one.Path {
				t.Errorf("asked again: %+v", again)
			}
			if got, _ := os.ReadFile(filepath.Join(one.Path, "a")); string(got) != "changed" {
				t.Errorf("asking again has made it new: %q", got)
			}
			for _, owner := range []string{"one", "two"} {
				if err := s.Unlease(t.Context(), owner); err != nil {
					t.Fatal(err)
				}
			}
			collect(t, s, image.GCOptions{All: true})
			if got := holds(t, s.Dir()); len(got) > 0 {
				t.Errorf("left: %q", got)
			}
			if _, err := os.Stat(two.Path); err != nil {
				t.Errorf("the caller's copy is the caller's to remove: %v", err)
			}
		})
	}
}

// TestModes holds that a copy can always be had, and that what is claimed to
// work was tried here.
func TestModes(t *testing.T) {
	s := openStore(t, nil, nil)
	modes, err := s.Modes(t.Context())
	if err != nil || len(modes) == 0 || modes[len(modes)-1] != image.ModeCopy {
		t.Errorf("Modes = %q, %v", modes, err)
	}
	if got, _ := filepath.Glob(filepath.Join(s.Dir(), ".caisson-*")); len(got) > 0 {
		t.Errorf("the probe has left %q", got)
	}
	without, err := openStore(t, &image.Options{NoOverlay: true}, nil).Modes(t.Context())
	if err != nil || slices.Contains(without, image.ModeOverlay) {
		t.Errorf("without overlays: %q, %v", without, err)
	}
}

// TestGC holds which images a collection chooses.
func TestGC(t *testing.T) {
	now := time.Now()
	random := func(seed byte) string { return string(bytes.Repeat([]byte{seed, seed ^ 0x5a, 3}, 40_000)) }
	prepare := func(t *testing.T) *image.Store {
		images := map[string]v1.Image{}
		shared := imagetest.Layer(t, file("shared", random(9)))
		for i, name := range []string{"old", "middle", "new"} {
			images[name] = imagetest.Image(t, nil, shared, imagetest.Layer(t, file("f", random(byte(i)))))
		}
		s := openStore(t, nil, images)
		s.SetNow(func() time.Time { return now })
		for name, age := range map[string]time.Duration{"old": 72 * time.Hour, "middle": 48 * time.Hour, "new": time.Hour} {
			img := fetched(t, s, name)
			rootFS(t, s, img, &image.Lease{Owner: name})
			if err := s.Unlease(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			if err := s.SetUsed(img.Name, now.Add(-age)); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	all := []string{"docker.io/library/middle:latest", "docker.io/library/new:latest", "docker.io/library/old:latest"}
	for name, c := range map[string]struct {
		opts image.GCOptions
		left []string
	}{
		"Nothing":  {image.GCOptions{}, all},
		"Age":      {image.GCOptions{MaxAge: 60 * time.Hour}, all[:2]},
		"AgeOfTwo": {image.GCOptions{MaxAge: 24 * time.Hour}, all[1:2]},
		"Keep":     {image.GCOptions{MaxBytes: 1}, nil},
		"KeepAll":  {image.GCOptions{MaxBytes: caisson.GiB}, all},
		// An unpacked tree has some 240 kB, and a packed one little more than nothing.
		"KeepTwo": {image.GCOptions{MaxBytes: 600_000}, all[:2]},
		"Free":    {image.GCOptions{MinFree: 1 << 60}, nil},
		"FreeNow": {image.GCOptions{MinFree: 1}, all},
		"All":     {image.GCOptions{All: true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := prepare(t)
			dry := c.opts
			dry.DryRun = true
			would := collect(t, s, dry)
			if got := names(t, s); !slices.Equal(got, all) {
				t.Errorf("a dry run has left %q", got)
			}
			did := collect(t, s, c.opts)
			if got := names(t, s); !slices.Equal(got, c.left) && len(got)+len(c.left) > 0 {
				t.Errorf("left: %q, want %q", got, c.left)
			}
			if !slices.Equal(would.Images, did.Images) || would.Freed != did.Freed || would.Trees != did.Trees || would.Blobs != did.Blobs || would.Kept != did.Kept {
				t.Errorf("it said %+v and did %+v", would, did)
			}
			for _, name := range c.left {
				if _, _, err := s.Inspect(t.Context(), name); err != nil {
					t.Errorf("%s is damaged: %v", name, err)
				}
			}
			if got := holds(t, s.Dir()); len(c.left) == 0 && len(got) > 0 {
				t.Errorf("without images there is %q", got)
			}
		})
	}
}

// TestAutoGC holds that a collection comes now and then only.
func TestAutoGC(t *testing.T) {
	now := time.Now()
	s := openStore(t, &image.Options{GC: image.GCOptions{MaxAge: time.Minute}}, map[string]v1.Image{"app": imageOf(t, entries{file("a", "")})})
	s.SetNow(func() time.Time { return now })
	auto := func() {
		t.Helper()
		if err := s.AutoGC(t.Context(), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	auto() // nothing is there, and nothing is made
	fetched(t, s, "app")
	auto()
	if len(names(t, s)) != 1 {
		t.Error("what was used just now is gone")
	}
	now = now.Add(30 * time.Minute)
	auto()
	if len(names(t, s)) != 1 {
		t.Error("a second collection within the hour")
	}
	now = now.Add(40 * time.Minute)
	auto()
	if len(names(t, s)) != 0 {
		t.Error("no collection after the hour")
	}
}

// TestInspect holds by what an image is found.
func TestInspect(t *testing.T) {
	config := &v1.Config{
		Cmd: []string{"run"}, Entrypoint: []string{"sh", "-c"}, Env: []string{"A=1"}, User: "me", WorkingDir: "/w", StopSignal: "SIGINT",
		Volumes: map[string]struct{}{"/v": {}, "/a": {}}, Labels: map[string]string{"l": "binary:///bin/sh"},
	}
	s := openStore(t, nil, map[string]v1.Image{
		"app":   imagetest.Image(t, config, imagetest.Layer(t, file("a", ""), special('3', "dev", ""))),
		"other": imageOf(t, entries{file("b", "")}),
	})
	app, other := fetched(t, s, "app"), fetched(t, s, "other")
	rootFS(t, s, app, &image.Lease{Owner: "x"})
	id := strings.TrimPrefix(app.ID, "sha256:")
	for _, name := range []string{"app", "app:latest", "docker.io/library/app:latest", "docker://app", app.Digest, app.ID, id, id[:12]} {
		img, rec, err := s.Inspect(t.Context(), name)
		if err != nil || img.ID != app.ID {
			t.Errorf("Inspect(%q) = %v, %v", name, img, err)
			continue
		}
		if !rec.InUse || !rec.Unpacked || rec.UnpackedSize == 0 || !slices.Equal(rec.Skipped, []string{"dev"}) {
			t.Errorf("Inspect(%q) = %+v", name, rec)
		}
		want := image.Config{
			Cmd: []string{"run"}, Entrypoint: []string{"sh", "-c"}, Env: []string{"A=1"}, User: "me", Workdir: "/w", StopSignal: "SIGINT",
			Volumes: []string{"/a", "/v"}, Labels: map[string]string{"l": "binary:///bin/sh"},
		}
		if fmt.Sprint(img.Config) != fmt.Sprint(want) {
			t.Errorf("config %+v, want %+v", img.Config, want)
		}
	}
	if _, rec, err := s.Inspect(t.Context(), other.Name); err != nil || rec.InUse || rec.Unpacked {
		t.Errorf("Inspect(other) = %+v, %v", rec, err)
	}
	for _, name := range []string{"absent", "sha256:" + strings.Repeat("0", 64), "0", "../x", ""} {
		if _, _, err := s.Inspect(t.Context(), name); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("Inspect(%q) = %v, want ErrNotFound", name, err)
		}
	}
	if err := s.Remove(t.Context(), other.ID, false); err != nil {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), "other", false); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Remove again = %v, want ErrNotFound", err)
	}
}

// TestStoreOfOthers holds that a folder of something else, or of a newer
// program, is not touched.
func TestStoreOfOthers(t *testing.T) {
	for text, kind := range map[string]caisson.Kind{`{"version":2}`: caisson.ErrUnsupported, `{}`: caisson.ErrInvalid, `x`: caisson.ErrInvalid} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "version.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, &image.Options{Dir: dir}, map[string]v1.Image{"app": imageOf(t, entries{file("a", "")})})
		if _, err := s.Get(t.Context(), &image.Request{Ref: "app"}); !errors.Is(err, kind) {
			t.Errorf("version %s: Get = %v, want kind %v", text, err, kind)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("version %s: %d files", text, len(entries))
		}
	}
	if _, err := image.Open(&image.Options{Dir: "relative"}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("a relative folder: %v", err)
	}
	if _, err := image.Open(&image.Options{Dir: "/x", Limits: image.Limits{Depth: -1}}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("a negative limit: %v", err)
	}
}

// fetchOf fetches data from a stream that may be told to fail.
func fetchOf(data []byte, open func(offset int64) (io.Reader, int64, error)) *image.Fetch {
	hash, size, _ := v1.SHA256(bytes.NewReader(data))
	if open == nil {
		open = func(offset int64) (io.Reader, int64, error) { return bytes.NewReader(data[offset:]), offset, nil }
	}
	return &image.Fetch{Digest: hash, Size: size, Open: func(_ context.Context, offset int64) (io.ReadCloser, int64, error) {
		rd, at, err := open(offset)
		return io.NopCloser(rd), at, err
	}}
}

var errCut = errors.New("connection cut")

type cutReader struct{ rd io.Reader }

func (c cutReader) Read(p []byte) (int, error) {
	n, err := c.rd.Read(p)
	if errors.Is(err, io.EOF) {
		err = errCut
	}
	return n, err
}

// TestFetch holds that a blob is there completely and checked, or not at all.
func TestFetch(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 50_000)
	t.Run("Resumes", func(t *testing.T) {
		s := openStore(t, nil, nil)
		var offsets []int64
		f := fetchOf(data, func(offset int64) (io.Reader, int64, error) {
			offsets = append(offsets, offset)
			end := min(int64(len(data)), offset+200_000)
			if end < int64(len(data)) {
				return cutReader{bytes.NewReader(data[offset:end])}, offset, nil
			}
			return bytes.NewReader(data[offset:]), offset, nil
		})
		for range 2 {
			if err := s.Fetch(t.Context(), f); !errors.Is(err, errCut) {
				t.Fatalf("Fetch = %v, want what the stream said", err)
			}
		}
		if err := s.Fetch(t.Context(), f); err != nil || s.Blob(f.Digest) != int64(len(data)) {
			t.Errorf("Fetch = %v, %d bytes are there", err, s.Blob(f.Digest))
		}
		if !slices.Equal(offsets, []int64{0, 200_000, 400_000}) {
			t.Errorf("it was read from %v on", offsets)
		}
		if err := s.Fetch(t.Context(), f); err != nil || len(offsets) != 3 {
			t.Errorf("what is there was fetched again, %v", err)
		}
	})
	t.Run("FromTheBeginning", func(t *testing.T) {
		s := openStore(t, nil, nil)
		first := true
		f := fetchOf(data, func(int64) (io.Reader, int64, error) {
			if first {
				first = false
				return cutReader{bytes.NewReader(data[:1000])}, 0, nil
			}
			return bytes.NewReader(data), 0, nil
		})
		if err := s.Fetch(t.Context(), f); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		if err := s.Fetch(t.Context(), f); err != nil || s.Blob(f.Digest) != int64(len(data)) {
			t.Errorf("Fetch = %v", err)
		}
	})
	// What a crash has left of a download may be anything.
	t.Run("DamagedRest", func(t *testing.T) {
		s := openStore(t, nil, nil)
		f := fetchOf(data, nil)
		cut := fetchOf(data, func(int64) (io.Reader, int64, error) { return cutReader{bytes.NewReader(data[:1000])}, 0, nil })
		if err := s.Fetch(t.Context(), cut); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		for _, path := range glob(t, s, "partial", "*") {
			if err := os.WriteFile(path, []byte("junk of a crash"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Fetch(t.Context(), f); err != nil || s.Blob(f.Digest) != int64(len(data)) {
			t.Errorf("Fetch = %v", err)
		}
	})
	for name, sent := range map[string][]byte{
		"ErrOther": bytes.Repeat([]byte("987654321x"), 50_000), "ErrShort": data[:100], "ErrLong": append(slices.Clone(data), "more"...),
		"ErrEmpty": {}, "ErrEndless": bytes.Repeat(data, 20),
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, nil, nil)
			f := fetchOf(data, func(int64) (io.Reader, int64, error) { return bytes.NewReader(sent), 0, nil })
			if err := s.Fetch(t.Context(), f); !errors.Is(err, caisson.ErrInvalid) {
				t.Errorf("Fetch = %v, want ErrInvalid", err)
			}
			if got := holds(t, s.Dir()); s.Blob(f.Digest) >= 0 || len(got) > 0 {
				t.Errorf("left: %q", got)
			}
		})
	}
	t.Run("ErrLimit", func(t *testing.T) {
		s := openStore(t, nil, nil)
		f := fetchOf(data, nil)
		f.Size, f.Limit = -1, 1000
		if err := s.Fetch(t.Context(), f); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Fetch = %v, want ErrInvalid", err)
		}
	})
	t.Run("ErrDigest", func(t *testing.T) {
		s := openStore(t, nil, nil)
		for _, digest := range []v1.Hash{{Algorithm: "sha512", Hex: strings.Repeat("0", 128)}, {Algorithm: "sha256", Hex: "../../x"}, {Algorithm: "sha256", Hex: strings.Repeat("A", 64)}} {
			f := fetchOf(data, nil)
			f.Digest = digest
			if err := s.Fetch(t.Context(), f); err == nil {
				t.Errorf("digest %v was taken", digest)
			}
		}
	})
}

// TestFetchGrants holds that nobody gets at a blob by naming its digest.
func TestFetchGrants(t *testing.T) {
	s := openStore(t, nil, nil)
	data := []byte("private layer")
	mine := fetchOf(data, nil)
	mine.Access = strings.Repeat("a", 64)
	if err := s.Fetch(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	theirs := fetchOf(data, func(int64) (io.Reader, int64, error) { return nil, 0, errCut })
	for _, access := range []string{strings.Repeat("b", 64), "", "../" + mine.Access} {
		theirs.Access = access
		if err := s.Fetch(t.Context(), theirs); !errors.Is(err, errCut) || s.Granted(mine.Digest, access) {
			t.Errorf("access %q: %v", access, err)
		}
	}
	open := fetchOf(data, nil)
	if err := s.Fetch(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	if err := s.Fetch(t.Context(), theirs); err != nil {
		t.Errorf("what is everybody's: %v", err)
	}
}

// TestFetchOnce holds that of many callers one downloads.
func TestFetchOnce(t *testing.T) {
	s := openStore(t, nil, nil)
	data := bytes.Repeat([]byte("x"), 1<<20)
	var opened atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			f := fetchOf(data, func(offset int64) (io.Reader, int64, error) {
				opened.Add(1)
				return bytes.NewReader(data[offset:]), offset, nil
			})
			if err := s.Fetch(t.Context(), f); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := opened.Load(); n != 1 {
		t.Errorf("%d downloads of one blob", n)
	}
}

// TestConcurrent has images pulled, unpacked, used and collected at the same
// time: whoever has a root file system has all of it.
func TestConcurrent(t *testing.T) {
	images := map[string]v1.Image{}
	for i := range 3 {
		images[fmt.Sprint("app", i)] = imageOf(t, entries{file("shared", "s")}, entries{file("own", fmt.Sprint(i))})
	}
	dir := filepath.Join(t.TempDir(), "images")
	ctx, cancel := context.WithCancel(t.Context())
	var users, collectors sync.WaitGroup
	for i := range 6 {
		users.Go(func() {
			s, err := image.OpenWith(&image.Options{Dir: dir}, images)
			if err != nil {
				t.Error(err)
				return
			}
			for round := range 8 {
				if err := useOnce(ctx, s, i, round); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 2 {
		collectors.Go(func() {
			s, err := image.OpenWith(&image.Options{Dir: dir}, images)
			for err == nil && ctx.Err() == nil {
				_, err = s.GC(ctx, image.GCOptions{All: true})
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	users.Wait()
	cancel()
	collectors.Wait()
	s := openStore(t, &image.Options{Dir: dir}, images)
	collect(t, s, image.GCOptions{All: true})
	if got := holds(t, dir); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}

// useOnce uses an image as an executor does.
func useOnce(ctx context.Context, s *image.Store, user, round int) error {
	n := (user + round) % 3
	mode := image.ModeOverlay
	if round%3 == 0 {
		mode = image.ModeCopy
	}
	owner := fmt.Sprintf("%d/%d", user, round)
	for {
		img, err := s.Get(ctx, &image.Request{Ref: fmt.Sprint("app", n)})
		if err != nil {
			return err
		}
		root, err := s.RootFS(ctx, img, &image.Lease{Owner: owner, Mode: mode})
		if errors.Is(err, caisson.ErrNotFound) {
			continue // collected in between
		}
		if err != nil {
			return err
		}
		data, err := os.ReadFile(filepath.Join(root.Path, "own"))
		if err != nil || string(data) != fmt.Sprint(n) {
			return fmt.Errorf("%s of app%d holds %q: %w", root.Path, n, data, err)
		}
		return s.Unlease(ctx, owner)
	}
}

// TestDamagedOnDisk holds that what the disk has damaged is told apart from a
// bad image, and comes anew.
func TestDamagedOnDisk(t *testing.T) {
	s := openStore(t, nil, map[string]v1.Image{"app": imageOf(t, entries{file("a", strings.Repeat("1", 10_000))})})
	img := fetched(t, s, "app")
	use := func() error {
		root, err := s.RootFS(t.Context(), img, &image.Lease{Owner: "x"})
		if err == nil && !slices.Equal(tree(t, root.Path), []string{"a = " + strings.Repeat("1", 10_000)}) {
			t.Errorf("the image is damaged: %q", tree(t, root.Path))
		}
		return errors.Join(err, s.Unlease(t.Context(), "x"))
	}
	for _, path := range glob(t, s, "blobs", "*") { // manifest, configuration and layer
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := use(); err != nil && !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("RootFS = %v, want ErrNotFound", err)
		}
		img = fetched(t, s, "app")
		if err := use(); err != nil {
			t.Error(err)
		}
		if now, err := os.ReadFile(path); err != nil || bytes.Equal(now, data) {
			t.Errorf("%s is still damaged, %v", path, err)
		}
		for _, tree := range glob(t, s, "trees", "*") {
			if err := os.RemoveAll(tree); err != nil {
				t.Fatal(err)
			}
		}
	}
}
