package docker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/moby/client"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/testimage"
)

// A store is a registry of a test.
type store struct {
	host     string
	password string       // empty: it is open to everybody
	pulls    atomic.Int32 // of manifests by name
	stall    atomic.Bool  // requests for them wait
	release  chan struct{}
}

func newStore(t *testing.T, password string) *store {
	s := &store{password: password, release: make(chan struct{})}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, given, _ := r.BasicAuth()
		if s.password != "" && (user != "me" || given != s.password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		if strings.Contains(r.URL.Path, "/manifests/latest") {
			s.pulls.Add(1)
			if s.stall.Load() {
				select {
				case <-s.release:
				case <-r.Context().Done():
					return
				}
			}
		}
		inner.ServeHTTP(w, r)
	}))
	if os.Getenv(podmanVariable) != "" {
		srv.Listener.Close()
		srv.Listener = plainListener(t)
	}
	srv.Start()
	t.Cleanup(srv.Close)
	s.host = strings.TrimPrefix(srv.URL, "http://")
	return s
}

// plainListener listens on one of the ports at which Podman has been told to
// speak http: see scripts/podman.
func plainListener(t *testing.T) net.Listener {
	t.Helper()
	for port := 5001; port <= 5020; port++ {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return l
		}
	}
	t.Fatal("all ports are taken that Podman speaks http at")
	return nil
}

// push puts an image of its own into the store and returns its name.
func (s *store) push(t *testing.T, repository string) string {
	t.Helper()
	img, err := testimage.Busybox(v1.Config{Labels: map[string]string{"test": fmt.Sprint(repository, os.Getpid(), time.Now().UnixNano())}})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(s.host + "/" + repository + ":latest")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: "me", Password: s.password})); err != nil {
		t.Fatal(err)
	}
	c := daemon(t)
	t.Cleanup(func() {
		_, _ = c.ImageRemove(context.Background(), ref.String(), client.ImageRemoveOptions{Force: true})
	})
	s.pulls.Store(0)
	return ref.String()
}

// withPassword lets a spec pull with credentials of its own.
func withPassword(s *engine.Spec, password, pull string) *engine.Spec {
	s.Registry = &caisson.Registry{Username: "me", Password: "REGISTRY", Pull: pull}
	s.Secrets = append(s.Secrets, engine.Secret{Name: "REGISTRY", Value: []byte(password)})
	return s
}

// What was pulled with a task's credentials is for those alone who have them,
// also after a restart.
func TestPrivateImage(t *testing.T) {
	opts := options(t)
	e := newEngine(t, opts)
	s := newStore(t, "registry-password")
	image := s.push(t, "private")
	refused := func(what string, spec *engine.Spec, kinds ...caisson.Kind) {
		t.Helper()
		sb, err := e.Create(soon(t), spec)
		if err == nil {
			sb.Destroy(context.Background())
			t.Errorf("%s: Create worked", what)
			return
		}
		for _, kind := range kinds {
			if errors.Is(err, kind) {
				return
			}
		}
		t.Errorf("%s: Create = %v, want %v", what, err, kinds)
	}
	hello := []string{"echo", "hello"}
	refused("before, without credentials", newSpec(t, image, hello...), caisson.ErrDenied)
	refused("before, with a wrong password", withPassword(newSpec(t, image, hello...), "wrong-password", ""), caisson.ErrDenied)
	if out, exit := run1(t, e, withPassword(newSpec(t, image, hello...), s.password, "")); out != "hello\n" {
		t.Fatalf("with credentials: %q, %+v", out, exit)
	}
	for range 2 {
		refused("after, without credentials", newSpec(t, image, hello...), caisson.ErrDenied)
		never := newSpec(t, image, hello...)
		never.Registry = &caisson.Registry{Pull: "never"}
		refused("after, without credentials and pulling", never, caisson.ErrDenied)
		refused("after, with a wrong password", withPassword(newSpec(t, image, hello...), "wrong-password", ""), caisson.ErrDenied)
		if out, exit := run1(t, e, withPassword(newSpec(t, image, hello...), s.password, "never")); out != "hello\n" {
			t.Errorf("again with credentials: %q, %+v", out, exit)
		}
		e = newEngine(t, opts)
	}
	// By its id it is the same image.
	r, err := daemon(t).ImageInspect(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	refused("by its id", newSpec(t, r.ID, hello...), caisson.ErrDenied)
}

// The operator's credentials are everybody's.
func TestOperatorsCredentials(t *testing.T) {
	opts := options(t)
	s := newStore(t, "registry-password")
	image := s.push(t, "private")
	opts.Config = filepath.Join(t.TempDir(), "config.json")
	config := fmt.Sprintf(`{"auths": {%q: {"username": "me", "password": %q}}}`, s.host, s.password)
	if err := os.WriteFile(opts.Config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, opts)
	for range 2 {
		if out, exit := run1(t, e, newSpec(t, image, "echo", "hello")); out != "hello\n" {
			t.Errorf("%q, %+v", out, exit)
		}
	}
}

// One image is pulled once for all who want it at once, another one is not held
// up by that, and a pull that nobody wants any more ends.
func TestPullOnce(t *testing.T) {
	e := newEngine(t, options(t))
	slow, quick := newStore(t, ""), newStore(t, "")
	image, other := slow.push(t, "slow"), quick.push(t, "quick")
	slow.stall.Store(true)

	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan error, 1)
	go func() { given <- e.Prepare(ctx, newSpec(t, image, "true")) }()
	for slow.pulls.Load() == 0 && t.Context().Err() == nil {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled pull = %v", err)
	}

	var all sync.WaitGroup
	for range 5 {
		spec := newSpec(t, image, "true")
		all.Go(func() {
			if err := e.Prepare(t.Context(), spec); err != nil {
				t.Errorf("Prepare: %v", err)
			}
		})
	}
	if err := e.Prepare(soon(t), newSpec(t, other, "true")); err != nil {
		t.Errorf("an image beside a slow one: %v", err)
	}
	slow.stall.Store(false)
	close(slow.release)
	all.Wait()
	// A daemon asks for a manifest by its name once or twice: HEAD, then GET.
	if n := slow.pulls.Load(); n > 4 {
		t.Errorf("five tasks have pulled one image %d times", n)
	}
}

func TestPullPolicy(t *testing.T) {
	e := newEngine(t, options(t))
	s := newStore(t, "")
	image := s.push(t, "policy")
	prepare := func(pull string) error {
		spec := newSpec(t, image, "true")
		spec.Registry = &caisson.Registry{Pull: pull}
		return e.Prepare(soon(t), spec)
	}
	if err := prepare("never"); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("never = %v, want ErrNotFound", err)
	}
	if err := prepare("missing"); err != nil {
		t.Fatal(err)
	}
	n := s.pulls.Load()
	if err := errors.Join(prepare("missing"), prepare("never"), prepare("")); err != nil || s.pulls.Load() != n {
		t.Errorf("an image that is there: %v, asked for %d times more", err, s.pulls.Load()-n)
	}
	if err := prepare("always"); err != nil || s.pulls.Load() == n {
		t.Errorf("always = %v, and the registry was not asked", err)
	}
	if err := e.Prepare(soon(t), newSpec(t, s.host+"/absent:1", "true")); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("an image that is not there = %v, want ErrNotFound", err)
	}
	// Pinned by its digest it is the same.
	r, err := daemon(t).ImageInspect(t.Context(), image)
	if err != nil || len(r.RepoDigests) == 0 {
		t.Fatalf("%+v, %v", r.RepoDigests, err)
	}
	if out, _ := run1(t, e, newSpec(t, r.RepoDigests[0], "echo", "pinned")); out != "pinned\n" {
		t.Errorf("by its digest: %q", out)
	}
}

// Images that were pulled for tasks go when nobody has used them, also in
// another process; those of the operator stay.
func TestPrune(t *testing.T) {
	opts := options(t)
	s := newStore(t, "")
	image, own := s.push(t, "pruned"), emptyImage(t)
	for _, name := range []string{image, own} {
		if err := newEngine(t, opts).Prepare(soon(t), newSpec(t, name, "true")); err != nil {
			t.Fatal(err)
		}
	}
	c := daemon(t)
	there := func(name string) bool {
		_, err := c.ImageInspect(t.Context(), name)
		return err == nil
	}
	opts.ImageTTL = time.Hour
	if _, err := newEngine(t, opts).Sweep(soon(t), nil); err != nil || !there(image) {
		t.Fatalf("Sweep = %v; an image that was used an hour ago is there: %v", err, there(image))
	}
	opts.ImageTTL = time.Nanosecond
	e := newEngine(t, opts)
	// One that is used stays.
	spec := newSpec(t, image, "sleep", "1000")
	sb, _ := start(t, e, spec)
	if _, err := e.Sweep(soon(t), []string{spec.ID}); err != nil || !there(image) {
		t.Errorf("Sweep = %v; an image that is used is there: %v", err, there(image))
	}
	if err := sb.Destroy(soon(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Sweep(soon(t), nil); err != nil || there(image) || !there(own) {
		t.Errorf("Sweep = %v; the pulled image is there: %v, the operator's: %v", err, there(image), there(own))
	}
}

func TestArchive(t *testing.T) {
	opts := options(t)
	opts.Verify = true
	e := newEngine(t, opts)
	img, err := testimage.Busybox(v1.Config{Entrypoint: []string{"echo", "the image says"}, Cmd: []string{"hello"}, Env: []string{"FROM_IMAGE=yes"}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	tag := fmt.Sprintf("caisson-test-archive:%d", os.Getpid())
	if err := testimage.WriteArchive(img, file, tag); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = daemon(t).ImageRemove(context.Background(), tag, client.ImageRemoveOptions{Force: true})
	})
	if out, exit := run1(t, e, newSpec(t, "docker-archive:"+file)); out != "the image says hello\n" {
		t.Errorf("%q, %+v", out, exit)
	}
	behind := newSpec(t, "docker-archive:"+file, "you")
	behind.ImageEntrypoint = true
	if out, _ := run1(t, e, behind); out != "the image says you\n" {
		t.Errorf("behind the entrypoint: %q", out)
	}
	script := newSpec(t, "docker-archive:"+file)
	script.Run = "echo $FROM_IMAGE $CAISSON_WORK; pwd"
	if out, _ := run1(t, e, script); out != "yes /work\n/work\n" {
		t.Errorf("a script: %q", out)
	}
	garbage := filepath.Join(t.TempDir(), "garbage.tar")
	if err := os.WriteFile(garbage, []byte("no archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]caisson.Kind{file + ".not": caisson.ErrNotFound, filepath.Dir(file): caisson.ErrInvalid, garbage: caisson.ErrInvalid} {
		if sb, err := e.Create(soon(t), newSpec(t, "docker-archive:"+path)); !errors.Is(err, want) {
			t.Errorf("%s = %v, %v, want %v", path, sb, err, want)
		}
	}
}
