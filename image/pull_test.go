//go:build unix

package image_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/imagetest"
)

// sources are those of a test: no pauses, and nobody's own credentials.
func sources(t *testing.T, reg *imagetest.Registry) image.Sources {
	s := image.Sources{AuthFile: authFile(t, `{}`), Delay: time.Millisecond}
	if reg != nil {
		s.RootCAs = reg.Roots
	}
	return s
}

func authFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func pullStore(t *testing.T, s image.Sources) *image.Store {
	t.Helper()
	return pullStoreIn(t, filepath.Join(t.TempDir(), "images"), s)
}

func pullStoreIn(t *testing.T, dir string, s image.Sources) *image.Store {
	t.Helper()
	store, err := image.Open(&image.Options{Dir: dir, Sources: s})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// small makes a small image, whose layers have contents of their own.
func small(t *testing.T, texts ...string) v1.Image {
	t.Helper()
	var layers []v1.Layer
	for i, text := range texts {
		layers = append(layers, imagetest.Layer(t, imagetest.File(fmt.Sprintf("file%d", i), text)))
	}
	return imagetest.Image(t, &v1.Config{Cmd: []string{"/file0"}, User: "app", WorkingDir: "/w", Env: []string{"A=b"}}, layers...)
}

// noise is text that does not become much smaller when it is compressed.
func noise(seed, size int) string {
	x := uint64(seed)*2862933555777941757 + 3037000493
	data := make([]byte, size)
	for i := range data {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		data[i] = byte(x)
	}
	return string(data)
}

func digestOf(t *testing.T, img interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// get gets an image as the submitter's command line would.
func get(t *testing.T, s *image.Store, ref string) (*image.Image, error) {
	t.Helper()
	return s.Get(t.Context(), &image.Request{Ref: ref, Trusted: true})
}

func mustGet(t *testing.T, s *image.Store, req *image.Request) *image.Image {
	t.Helper()
	req.Trusted = true
	img, err := s.Get(t.Context(), req)
	if err != nil {
		t.Fatalf("Get(%s) = %v", req.Ref, err)
	}
	return img
}

// wantError checks an error's kind, and that it is one line with these words.
func wantError(t *testing.T, err error, kind caisson.Kind, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("the error is %v (%v), want %v", err, caisson.KindOf(err), kind)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error is %q, want it to contain %q", err, word)
		}
	}
	if strings.ContainsAny(err.Error(), "\n\x1b") || strings.Contains(err.Error(), "hidden-words") {
		t.Errorf("the error is more than one line of text: %q", err)
	}
}

func TestPull(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	want := small(t, "one", "two")
	ref := reg.Push(t, "team/app:1", want)
	s := pullStore(t, sources(t, reg))

	var told []image.Progress
	img := mustGet(t, s, &image.Request{Ref: ref, Progress: func(p image.Progress) { told = append(told, p) }})
	if img.Digest != digestOf(t, want) || img.Name != ref || img.Platform != "linux/amd64" || img.Layers != 2 {
		t.Errorf("Get = %+v, want digest %s, name %s", img, digestOf(t, want), ref)
	}
	if c := img.Config; c.User != "app" || c.Workdir != "/w" || len(c.Cmd) != 1 || len(c.Env) != 1 {
		t.Errorf("configuration = %+v", c)
	}
	full := make(map[string]bool)
	for _, p := range told {
		if p.Done == p.Total && p.Total > 0 {
			full[p.Digest] = true
		}
	}
	if len(full) != 2 {
		t.Errorf("progress told of %d complete layers, want 2: %v", len(full), told)
	}

	// What is here is not looked for again, what has not changed not fetched.
	before := reg.Count("GET manifests")
	mustGet(t, s, &image.Request{Ref: ref})
	mustGet(t, s, &image.Request{Ref: ref, Pull: image.PullNever})
	if n := reg.Count("GET manifests"); n != before {
		t.Errorf("%d manifests were asked for where the store has the image", n-before)
	}
	blobs := reg.Count("GET blobs")
	mustGet(t, s, &image.Request{Ref: ref, Pull: image.PullAlways})
	if n := reg.Count("GET blobs"); n != blobs || reg.Count("GET manifests") == before {
		t.Errorf("pull always fetched %d blobs, want the manifest alone", n-blobs)
	}
	// A tag may move; a digest does not.
	next := small(t, "three")
	reg.Push(t, "team/app:1", next)
	if img := mustGet(t, s, &image.Request{Ref: ref, Pull: image.PullAlways}); img.Digest != digestOf(t, next) {
		t.Errorf("after the tag moved: %s, want %s", img.Digest, digestOf(t, next))
	}
	pinned := reg.Host + "/team/app@" + digestOf(t, want)
	if img := mustGet(t, s, &image.Request{Ref: pinned}); img.Digest != digestOf(t, want) {
		t.Errorf("by digest: %s, want %s", img.Digest, digestOf(t, want))
	}
}

func TestPullNever(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	ref := reg.Push(t, "app:1", small(t, "x"))
	s := pullStore(t, sources(t, reg))
	_, err := s.Get(t.Context(), &image.Request{Ref: ref, Pull: image.PullNever, Trusted: true})
	wantError(t, err, caisson.ErrNotFound, "never")
	_, err = s.Get(t.Context(), &image.Request{Ref: ref, Pull: "sometimes", Trusted: true})
	wantError(t, err, caisson.ErrInvalid, "sometimes")
	if n := reg.Count("GET manifests"); n != 0 {
		t.Errorf("%d requests in spite of never", n)
	}
}

func TestPlatforms(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	images := make(map[string]v1.Image)
	var list []v1.Image
	for _, p := range []string{"linux/amd64", "linux/arm64", "linux/arm/v6", "linux/arm/v7", "linux/s390x"} {
		images[p] = imagetest.ImageFor(t, p, nil, imagetest.Layer(t, imagetest.File("platform", p)))
		list = append(list, images[p])
	}
	ref := reg.PushIndex(t, "multi:1", imagetest.Index(t, list...))
	s := pullStore(t, sources(t, reg))
	for want, of := range map[string]string{
		"linux/amd64": "linux/amd64", "linux/x86_64": "linux/amd64", "linux/arm64/v8": "linux/arm64", "linux/arm": "linux/arm/v7",
		"linux/arm/v6": "linux/arm/v6", "linux/arm/v8": "linux/arm/v7", "linux/s390x": "linux/s390x", "linux/amd64/v3": "linux/amd64",
	} {
		img := mustGet(t, s, &image.Request{Ref: ref, Platform: want})
		if img.Digest != digestOf(t, images[of]) {
			t.Errorf("for %s: platform %s, want %s", want, img.Platform, of)
		}
	}
	_, err := s.Get(t.Context(), &image.Request{Ref: ref, Platform: "linux/riscv64", Trusted: true})
	wantError(t, err, caisson.ErrNotFound, "linux/riscv64", "linux/s390x", "linux/arm/v6")
	_, err = s.Get(t.Context(), &image.Request{Ref: ref, Platform: "linux/arm/v5", Trusted: true})
	wantError(t, err, caisson.ErrNotFound, "linux/arm/v5")
	_, err = s.Get(t.Context(), &image.Request{Ref: ref, Platform: "amd64", Trusted: true})
	wantError(t, err, caisson.ErrInvalid, "amd64")

	single := reg.Push(t, "single:1", images["linux/s390x"])
	_, err = s.Get(t.Context(), &image.Request{Ref: single, Platform: "linux/amd64", Trusted: true})
	wantError(t, err, caisson.ErrNotFound, "linux/amd64", "linux/s390x")
}

// An index that lies about what its manifests are for does not get them in.
func TestPlatformLie(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	index := mutate.IndexMediaType(mutate.AppendManifests(imagetest.Index(t), mutate.IndexAddendum{
		Add:        imagetest.ImageFor(t, "linux/s390x", nil, imagetest.Layer(t, imagetest.File("x", "x"))),
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}},
	}), types.OCIImageIndex)
	_, err := pullStore(t, sources(t, reg)).Get(t.Context(), &image.Request{Ref: reg.PushIndex(t, "lie:1", index), Platform: "linux/amd64", Trusted: true})
	wantError(t, err, caisson.ErrNotFound, "linux/s390x")
}

func TestPullErr(t *testing.T) {
	img := small(t, "some text", noise(1, 300_000))
	idle := func(s *image.Sources) { s.Idle = 50 * time.Millisecond }
	ctx := t.Context()
	for name, test := range map[string]struct {
		ref     string // after the host; empty: app:1
		fault   imagetest.Fault
		sources func(*image.Sources)
		kind    caisson.Kind
		words   []string
	}{
		"NoImage":           {ref: "nothing:1", kind: caisson.ErrNotFound, words: []string{"there is no", "nothing"}},
		"NoTag":             {ref: "app:2", kind: caisson.ErrNotFound, words: []string{"there is no", `"2"`}},
		"NoDigest":          {ref: "app@sha256:" + someHex, kind: caisson.ErrNotFound, words: []string{someHex}},
		"Corrupt":           {fault: imagetest.Corrupt(), kind: caisson.ErrInvalid, words: []string{"digest"}},
		"TooShort":          {fault: imagetest.Resize(-7), kind: caisson.ErrInvalid, words: []string{"size"}},
		"TooLong":           {fault: imagetest.Resize(7), kind: caisson.ErrInvalid, words: []string{"size"}},
		"CorruptLayer":      {fault: onlyLarge(imagetest.Corrupt()), kind: caisson.ErrInvalid, words: []string{"digest"}},
		"ShortLayer":        {fault: onlyLarge(imagetest.Resize(-7)), kind: caisson.ErrInvalid, words: []string{"size"}},
		"LongLayer":         {fault: onlyLarge(imagetest.Resize(7)), kind: caisson.ErrInvalid, words: []string{"size"}},
		"CutLayer":          {fault: onlyLarge(cutAtStart), kind: caisson.ErrUnavailable, words: []string{"cut off"}},
		"StallLayer":        {fault: onlyLarge(imagetest.Stall(ctx)), sources: idle, kind: caisson.ErrUnavailable, words: []string{"silent"}},
		"EndlessLayer":      {fault: onlyLarge(endless), kind: caisson.ErrInvalid, words: []string{"bytes"}},
		"StreamShort":       {fault: onlyLarge(stream(-7)), kind: caisson.ErrInvalid, words: []string{"bytes"}},
		"StreamLong":        {fault: onlyLarge(stream(7)), kind: caisson.ErrInvalid, words: []string{"bytes"}},
		"NoLayer":           {fault: onlyLarge(imagetest.Status("/blobs/", 404)), kind: caisson.ErrNotFound, words: []string{"blob"}},
		"ChunkedShort":      {fault: stream(-7), kind: caisson.ErrInvalid, words: []string{"bytes"}},
		"ChunkedLong":       {fault: stream(7), kind: caisson.ErrInvalid, words: []string{"bytes"}},
		"Endless":           {fault: endless, kind: caisson.ErrInvalid},
		"CutAlways":         {fault: cutAtStart, kind: caisson.ErrUnavailable},
		"Stall":             {fault: imagetest.Stall(ctx), sources: idle, kind: caisson.ErrUnavailable, words: []string{"silent"}},
		"SilentServer":      {fault: silent(ctx), sources: idle, kind: caisson.ErrUnavailable},
		"Busy":              {fault: imagetest.Status("/manifests/", 503), kind: caisson.ErrUnavailable, words: []string{"503"}},
		"TooMany":           {fault: imagetest.Status("/blobs/", 429), kind: caisson.ErrUnavailable, words: []string{"429"}},
		"Forbidden":         {fault: imagetest.Status("/manifests/", 403), kind: caisson.ErrDenied, words: []string{"no access"}},
		"NoBlob":            {fault: imagetest.Status("/blobs/", 404), kind: caisson.ErrNotFound, words: []string{"blob"}},
		"Rubbish":           {fault: answer("/manifests/", "hello"), kind: caisson.ErrInvalid, words: []string{"not a manifest"}},
		"WrongDigest":       {ref: "app@" + digestOf(t, img), fault: answer("/manifests/", `{"schemaVersion":2,"layers":[]}`), kind: caisson.ErrInvalid, words: []string{"wrong digest"}},
		"ControlCharacters": {fault: answer("/manifests/", `{"schemaVersion":2,"config":{"digest":"sha256:\u001b[2J\n"},"layers":[]}`), kind: caisson.ErrInvalid},
		"StrangeToken": {
			fault: challenge, kind: caisson.ErrDenied, words: []string{"token"},
		},
		"Schema1":   {fault: answer("/manifests/", `{"schemaVersion":1,"fsLayers":[]}`), kind: caisson.ErrUnsupported, words: []string{"version 1"}},
		"Confusion": {fault: answer("/manifests/", `{"schemaVersion":2,"layers":[],"manifests":[]}`), kind: caisson.ErrInvalid, words: []string{"clearly"}},
		"Artifact": {
			fault: answer("/manifests/", `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.empty.v1+json","size":2,"digest":"sha256:`+someHex+`"},"layers":[]}`),
			kind:  caisson.ErrUnsupported, words: []string{"artifact"},
		},
		"HugeConfig": {
			fault: answer("/manifests/", `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":999999999999,"digest":"sha256:`+someHex+`"},"layers":[]}`),
			kind:  caisson.ErrInvalid, words: []string{"999999999999"},
		},
		"HugeManifest":       {fault: answer("/manifests/", strings.Repeat(" ", 5<<20)+"{}"), kind: caisson.ErrInvalid, words: []string{"larger"}},
		"UnknownCertificate": {sources: func(s *image.Sources) { s.RootCAs = nil }, kind: caisson.ErrDenied, words: []string{"certificate"}},
		"Total":              {fault: imagetest.Stall(ctx), sources: func(s *image.Sources) { s.Total = 50 * time.Millisecond }, kind: caisson.ErrUnavailable, words: []string{"longer than is permitted"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := imagetest.NewRegistry(t)
			reg.Push(t, "app:1", img)
			reg.Break(test.fault)
			src := sources(t, reg)
			if test.sources != nil {
				test.sources(&src)
			}
			dir := filepath.Join(t.TempDir(), "images")
			s := pullStoreIn(t, dir, src)
			ref := test.ref
			if ref == "" {
				ref = "app:1"
			}
			_, err := get(t, s, reg.Host+"/"+ref)
			wantError(t, err, test.kind, append(test.words, ref)...)
			if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
				t.Errorf("after the failure the store has %v, %v", list, err)
			}
			// The next one is not hindered by what this one has left.
			reg.Break(nil)
			src = sources(t, reg)
			mustGet(t, pullStoreIn(t, dir, src), &image.Request{Ref: reg.Host + "/app:1"})
		})
	}
}

// challenge asks for a token that cannot be had.
func challenge(w http.ResponseWriter, r *http.Request, _ []byte) bool {
	if strings.HasPrefix(r.URL.Path, "/mint") {
		fmt.Fprint(w, "{\"refresh_token\":\n\"hidden-words\"}")
		return true
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/mint",service="x"`, r.Host))
	w.WriteHeader(http.StatusUnauthorized)
	return true
}

// stream sends so many bytes more, or fewer, of a blob without saying how many.
func stream(by int) imagetest.Fault {
	return func(w http.ResponseWriter, _ *http.Request, data []byte) bool {
		if data == nil {
			return false
		}
		data = append(data, make([]byte, max(by, 0))...)
		data = data[:len(data)+min(by, 0)]
		w.(http.Flusher).Flush()
		w.Write(data)
		return true
	}
}

// endless sends until nobody listens any more.
func endless(w http.ResponseWriter, _ *http.Request, data []byte) bool {
	if data == nil {
		return false
	}
	for {
		if _, err := w.Write(data); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// cutAtStart ends each connection before a byte of a blob has come.
func cutAtStart(_ http.ResponseWriter, _ *http.Request, data []byte) bool {
	if data != nil {
		panic(http.ErrAbortHandler)
	}
	return false
}

// silent never answers about manifests.
func silent(ctx context.Context) imagetest.Fault {
	return func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if strings.Contains(r.URL.Path, "/manifests/") {
			select {
			case <-ctx.Done():
			case <-r.Context().Done():
			}
			panic(http.ErrAbortHandler)
		}
		return false
	}
}

// answer gives the same answer to each request for a part of the registry.
func answer(part, text string) imagetest.Fault {
	return func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if !strings.Contains(r.URL.Path, part) {
			return false
		}
		fmt.Fprint(w, text)
		return true
	}
}

// A connection that is cut is gone on with where it ended.
func TestResume(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	ref := reg.Push(t, "app:1", small(t, noise(2, 400_000)))
	var mu sync.Mutex
	var ranges []string
	cut := imagetest.Cut(4)
	reg.Break(func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		if len(data) > 100_000 {
			mu.Lock()
			ranges = append(ranges, r.Header.Get("Range"))
			mu.Unlock()
			return cut(w, r, data)
		}
		return false
	})
	src := sources(t, reg)
	src.Tries = 2
	mustGet(t, pullStore(t, src), &image.Request{Ref: ref})
	if len(ranges) != 5 || ranges[0] != "" {
		t.Fatalf("requests with ranges %q, want 5", ranges)
	}
	last := int64(0)
	for _, r := range ranges[1:] {
		var from int64
		if n, _ := fmt.Sscanf(r, "bytes=%d-", &from); n != 1 || from <= last {
			t.Errorf("ranges %q: each must begin further than the one before", ranges)
		}
		last = from
	}
}

// A server that knows no ranges is listened to from the beginning again.
func TestResumeWithoutRanges(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	ref := reg.Push(t, "app:1", small(t, noise(7, 400_000)))
	cut := onlyLarge(imagetest.Cut(1))
	reg.Break(func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		r.Header.Del("Range")
		return cut(w, r, data)
	})
	mustGet(t, pullStore(t, sources(t, reg)), &image.Request{Ref: ref})
}

// Nor is it lost what an ended process has fetched.
func TestResumeInNextProcess(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	ref := reg.Push(t, "app:1", small(t, noise(3, 400_000)))
	dir := filepath.Join(t.TempDir(), "images")
	src := sources(t, reg)
	src.Tries = 1
	reg.Break(imagetest.Cut(1))
	s := pullStoreIn(t, dir, src)
	// The first try may fail at the configuration, which is fetched as one.
	for range 2 {
		if _, err := get(t, s, ref); err == nil {
			t.Fatal("a cut is not noticed")
		}
		reg.Break(onlyLarge(imagetest.Cut(1)))
	}
	resumed := false
	reg.Break(func(_ http.ResponseWriter, r *http.Request, data []byte) bool {
		resumed = resumed || len(data) > 100_000 && r.Header.Get("Range") != ""
		return false
	})
	mustGet(t, pullStoreIn(t, dir, src), &image.Request{Ref: ref})
	if !resumed {
		t.Error("the layer was fetched from its beginning")
	}
}

func onlyLarge(f imagetest.Fault) imagetest.Fault {
	return func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		return len(data) > 100_000 && f(w, r, data)
	}
}

// Of callers at once one fetches, in this store and in another on the same
// folder.
func TestOneDownload(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	ref := reg.Push(t, "app:1", small(t, noise(4, 200_000), noise(5, 200_000)))
	var mu sync.Mutex
	layers := make(map[string]int)
	reg.Break(func(_ http.ResponseWriter, r *http.Request, data []byte) bool {
		if len(data) > 100_000 {
			mu.Lock()
			layers[r.URL.Path]++
			mu.Unlock()
			time.Sleep(10 * time.Millisecond) // long enough for the others to come
		}
		return false
	})
	dir := filepath.Join(t.TempDir(), "images")
	stores := []*image.Store{pullStoreIn(t, dir, sources(t, reg)), pullStoreIn(t, dir, sources(t, reg))}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			if _, err := stores[i%2].Get(t.Context(), &image.Request{Ref: ref, Trusted: true}); err != nil {
				t.Errorf("Get = %v", err)
			}
		})
	}
	group.Wait()
	if len(layers) != 2 {
		t.Errorf("%d layers were fetched, want 2", len(layers))
	}
	for path, n := range layers {
		if n != 1 {
			t.Errorf("%s was fetched %d times", path, n)
		}
	}
}

// A caller that gives up ends at once, and does not end the others.
func TestCancel(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	ref := reg.Push(t, "app:1", small(t, noise(6, 200_000)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started := make(chan struct{}, 10)
	stall := onlyLarge(imagetest.Stall(t.Context()))
	reg.Break(func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		if len(data) > 100_000 {
			started <- struct{}{}
		}
		return stall(w, r, data)
	})
	s := pullStore(t, sources(t, reg))
	failed := make(chan error, 2)
	go func() {
		_, err := s.Get(ctx, &image.Request{Ref: ref, Trusted: true})
		failed <- err
	}()
	<-started
	go func() {
		_, err := s.Get(t.Context(), &image.Request{Ref: ref, Trusted: true})
		failed <- err
	}()
	reg.Break(nil)
	cancel()
	var canceled, fine int
	for range 2 {
		switch err := <-failed; {
		case err == nil:
			fine++
		case errors.Is(err, context.Canceled):
			canceled++
		default:
			t.Errorf("Get = %v", err)
		}
	}
	if canceled != 1 || fine != 1 {
		t.Errorf("%d were cancelled and %d have the image, want one each", canceled, fine)
	}
}

func TestHTTP(t *testing.T) {
	reg := imagetest.NewHTTPRegistry(t)
	ref := reg.Push(t, "app:1", small(t, "x"))
	src := sources(t, nil)
	src.Tries = 1
	if _, err := get(t, pullStore(t, src), ref); err == nil {
		t.Fatal("a registry is spoken to by http that is not listed")
	}
	if n := reg.Count("GET manifests"); n != 0 {
		t.Errorf("%d requests by http", n)
	}
	src.HTTP = []string{reg.Host}
	mustGet(t, pullStore(t, src), &image.Request{Ref: ref})

	// A task may ask for it where the operator permits.
	src.HTTP = nil
	req := &image.Request{Ref: ref, InsecureOptions: []string{"http"}, Trusted: true}
	_, err := pullStore(t, src).Get(t.Context(), req)
	wantError(t, err, caisson.ErrDenied, "http", "allow_insecure")
	src.AllowInsecure = []string{"all-fetch"}
	mustGet(t, pullStore(t, src), req)
}

func TestSkipTLS(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	ref := reg.Push(t, "app:1", small(t, "x"))
	src := sources(t, nil)
	src.SkipTLS = []string{reg.Host}
	mustGet(t, pullStore(t, src), &image.Request{Ref: ref})
	src.SkipTLS, src.AllowInsecure = nil, []string{"tls"}
	s := pullStore(t, src)
	weak := &image.Request{Ref: ref, InsecureOptions: []string{"tls"}}
	mustGet(t, s, weak)
	// What came so serves only those who want it so.
	_, err := get(t, s, ref)
	wantError(t, err, caisson.ErrDenied, "certificate")
	before := reg.Count("GET manifests")
	mustGet(t, s, weak)
	if reg.Count("GET manifests") != before {
		t.Error("what is here was asked for again")
	}
}

// Private addresses are for those who submit on this host, or whom the operator
// trusts.
func TestPrivateAddress(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	ref := reg.Push(t, "app:1", small(t, "x"))
	src := sources(t, reg)
	_, err := pullStore(t, src).Get(t.Context(), &image.Request{Ref: ref})
	wantError(t, err, caisson.ErrDenied, "not a public address")
	if n := reg.Count("GET manifests"); n != 0 {
		t.Errorf("%d requests came through", n)
	}
	src.AllowPrivate = true
	if _, err := pullStore(t, src).Get(t.Context(), &image.Request{Ref: ref}); err != nil {
		t.Errorf("with allow_private: %v", err)
	}
	// Where a redirect leads is not what the submitter named.
	other := imagetest.NewRegistry(t)
	src.AllowPrivate = false
	reg.Break(func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		if data == nil {
			return false
		}
		http.Redirect(w, r, "https://"+other.Host+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	_, err = get(t, pullStore(t, src), ref)
	wantError(t, err, caisson.ErrDenied, "not a public address")
	if n := other.Count("GET blobs"); n != 0 {
		t.Error("the redirect was followed to a private address")
	}
}

func TestMirrors(t *testing.T) {
	reg, mirror := imagetest.NewHTTPRegistry(t), imagetest.NewHTTPRegistry(t)
	img, other := small(t, "x"), small(t, "y")
	ref := reg.Push(t, "team/app:1", img)
	mirror.Push(t, "cache/team/app:1", img)
	alone := reg.Push(t, "alone:1", other)
	src := sources(t, nil)
	src.HTTP = []string{reg.Host, mirror.Host}
	src.Mirrors = map[string][]string{reg.Host: {"127.0.0.1:1", mirror.Host + "/cache"}}
	s := pullStore(t, src)
	if got := mustGet(t, s, &image.Request{Ref: ref}); got.Name != ref || reg.Count("GET manifests") != 0 || mirror.Count("GET blobs") == 0 {
		t.Errorf("Get = %s with %d requests to the registry itself", got.Name, reg.Count("GET manifests"))
	}
	// What no mirror has comes from the registry.
	mustGet(t, s, &image.Request{Ref: alone})
	// A mirror never sees a task's own credentials.
	before := mirror.Count("GET manifests")
	reg.Users(map[string]string{"me": "secret"}, false)
	mustGet(t, s, &image.Request{Ref: ref, Username: "me", Password: "secret", Pull: image.PullAlways})
	if mirror.Count("GET manifests") != before {
		t.Error("a task's own credentials went to a mirror")
	}
}
