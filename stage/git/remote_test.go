//go:build unix

package git_test

import (
	"context"
	"encoding/pem"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/git"
)

// trust has git believe a server's certificate.
func trust(t *testing.T, s *served) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}
	must(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o644))
	t.Setenv("SSL_CERT_FILE", path)
}

// withUser puts a user and password into a server's URL.
func withUser(server *served, user, path string) string {
	return "git+" + strings.Replace(server.URL, "://", "://"+user+"@", 1) + path
}

func TestCredentials(t *testing.T) {
	root := t.TempDir()
	newRepository(t, root+"/r").commit(map[string]string{"f": "x"})
	server := serve(t, root, true)
	trust(t, server)
	var mu sync.Mutex
	var strangerGot []string
	stranger := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		strangerGot = append(strangerGot, r.Header.Get("Authorization"))
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer stranger.Close()
	server.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		user, password, _ := r.BasicAuth()
		for _, path := range globAll("/proc/[0-9]*/cmdline") {
			if line, _ := os.ReadFile(path); strings.Contains(string(line), "/'word") || strings.Contains(string(line), "WRONG") {
				t.Errorf("the password is on a command line: %q", line)
			}
		}
		switch {
		case user != "me" || password != "p@ss/'word":
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		case strings.HasPrefix(r.URL.Path, "/away"):
			http.Redirect(w, r, stranger.URL+r.URL.RequestURI(), http.StatusMovedPermanently)
		default:
			next.ServeHTTP(w, r)
		}
	}
	s := newStager(t, &git.Options{AllowPrivate: true})
	fetch := func(user, path string) error {
		t.Helper()
		w := newWork(t)
		w.env.Secrets = map[string]string{"PASS": "p@ss/'word"}
		_, err := w.fetch(s, &caisson.Input{From: withUser(server, user, path)})
		if err == nil && w.tree("in")["f"] != "x" {
			t.Errorf("%s: tree %v", user, w.tree("in"))
		}
		if err != nil && (strings.Contains(err.Error(), "word") || strings.Contains(err.Error(), "WRONG")) {
			t.Errorf("%s: the error tells the password: %v", user, err)
		}
		return err
	}
	must(t, fetch("me:p%40ss%2F'word", "/r/.git"))
	must(t, fetch("me:$PASS", "/r/.git"))
	refused(t, fetch("me:WRONG", "/r/.git"), caisson.ErrDenied)
	refused(t, fetch("me", "/r/.git"), caisson.ErrDenied)
	refused(t, fetch("me:$OTHER", "/r/.git"), caisson.ErrInvalid, "OTHER")

	// The certificate is the same for both, so only git keeps it from the other.
	refused(t, fetch("me:$PASS", "/away"), caisson.ErrDenied)
	mu.Lock()
	defer mu.Unlock()
	if len(strangerGot) == 0 {
		t.Error("the redirection was not followed")
	}
	for _, got := range strangerGot {
		if got != "" {
			t.Errorf("another server got the credentials %q", got)
		}
	}
}

func TestUnknownCertificate(t *testing.T) {
	server := serve(t, t.TempDir(), true)
	_, err := newWork(t).fetch(newStager(t, &git.Options{AllowPrivate: true}), &caisson.Input{From: "git+" + server.URL + "/r"})
	refused(t, err, caisson.ErrDenied, "certificate")
}

func TestPrivateAddresses(t *testing.T) {
	root := t.TempDir()
	newRepository(t, root+"/r").commit(map[string]string{"f": "x"})
	server, other := serve(t, root, false), serve(t, root, false)
	server.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/away"); ok {
			http.Redirect(w, r, other.URL+rest+"?"+r.URL.RawQuery, http.StatusMovedPermanently)
			return
		}
		next.ServeHTTP(w, r)
	}
	reached := false
	other.wrap = func(_ http.ResponseWriter, _ *http.Request, _ http.Handler) { reached = true }
	byName := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	guarded := newStager(t, nil)

	refused(t, guarded.CheckInput(&caisson.Input{From: "git+" + server.URL + "/r/.git", To: "a"}, &stage.Env{}), caisson.ErrDenied)
	for _, from := range []string{server.URL, byName, strings.Replace(server.URL, "127.0.0.1", "2130706433", 1)} {
		_, err := newWork(t).fetch(guarded, &caisson.Input{From: "git+" + from + "/r/.git"})
		if kind := caisson.KindOf(err); kind != caisson.ErrDenied && (kind != caisson.ErrNotFound || from == byName) {
			t.Errorf("%s: %v, want ErrDenied", from, err)
		}
	}
	w := newWork(t)
	w.env.Trusted = true
	_, err := w.fetch(guarded, &caisson.Input{From: "git+" + byName + "/r/.git"})
	if got := w.tree("in"); err != nil || got["f"] != "x" {
		t.Errorf("named by a trusted task: %v, %v", got, err)
	}
	_, err = w.fetch(guarded, &caisson.Input{From: "git+" + server.URL + "/away/r/.git"})
	refused(t, err, caisson.ErrDenied, "public")
	if reached {
		t.Error("a redirection reached a private address")
	}
}

// Where a server gives out no commit by its hash alone, it is found in the
// history.
func TestHashOfOldServer(t *testing.T) {
	root := t.TempDir()
	r := newRepository(t, root+"/r")
	hash := r.commit(map[string]string{"f": "1"})
	r.commit(map[string]string{"f": "2"})
	server := serve(t, root, false)
	server.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r.Header.Del("Git-Protocol")
		next.ServeHTTP(w, r)
	}
	w := newWork(t)
	_, err := w.fetch(newStager(t, &git.Options{AllowPrivate: true}),
		&caisson.Input{From: "git+" + server.URL + "/r/.git", Git: &caisson.GitInput{Ref: hash}})
	if got := w.tree("in"); err != nil || got["f"] != "1" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestServerErrors(t *testing.T) {
	server := serve(t, t.TempDir(), false)
	status := http.StatusOK
	server.wrap = func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.WriteHeader(status)
		w.Write([]byte("\x1b[31mrubbish"))
	}
	s := newStager(t, &git.Options{AllowPrivate: true})
	for _, c := range []struct {
		status int
		kind   caisson.Kind
	}{
		{http.StatusNotFound, caisson.ErrNotFound},
		{http.StatusUnauthorized, caisson.ErrDenied},
		{http.StatusForbidden, caisson.ErrDenied},
		{http.StatusServiceUnavailable, caisson.ErrUnavailable},
		{http.StatusTooManyRequests, caisson.ErrUnavailable},
		{http.StatusOK, caisson.ErrNotFound},
	} {
		status = c.status
		_, err := newWork(t).fetch(s, &caisson.Input{From: "git+" + server.URL + "/r"})
		if caisson.KindOf(err) != c.kind || strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("status %d: %v, want %v", c.status, err, c.kind)
		}
	}
	server.Close()
	_, err := newWork(t).fetch(s, &caisson.Input{From: "git+" + server.URL + "/r"})
	refused(t, err, caisson.ErrUnavailable, "refused")
	_, err = newWork(t).fetch(s, &caisson.Input{From: "git+https://host.invalid/r"})
	if kind := caisson.KindOf(err); kind != caisson.ErrNotFound && kind != caisson.ErrUnavailable {
		t.Errorf("no such host: %v", err)
	}
}

func globAll(pattern string) []string {
	all, _ := filepath.Glob(pattern)
	return all
}

// running lists the processes whose environment has a word in it.
func running(t *testing.T, word string) []string {
	t.Helper()
	all := globAll("/proc/[0-9]*/environ")
	if len(all) == 0 {
		t.Skip("needs /proc")
	}
	var found []string
	for _, path := range all {
		if env, err := os.ReadFile(path); err == nil && strings.Contains(string(env), word) {
			found = append(found, path)
		}
	}
	return found
}

// stuck serves a repository, but lets only so many bytes of its objects
// through. It says so on the channel.
func stuck(t *testing.T, root string, bytes int) (*served, chan struct{}) {
	server := serve(t, root, false)
	held := make(chan struct{})
	var once sync.Once
	server.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		whole := httptest.NewRecorder()
		next.ServeHTTP(whole, r)
		data := whole.Body.Bytes()
		for key, values := range whole.Header() {
			w.Header()[key] = values
		}
		if len(data) <= bytes {
			w.Write(data)
			return
		}
		w.Write(data[:bytes])
		http.NewResponseController(w).Flush()
		once.Do(func() { close(held) })
		<-r.Context().Done()
	}
	return server, held
}

// noise returns contents that can't be compressed.
func noise(bytes int) string {
	var seed [32]byte
	data := make([]byte, bytes)
	rand.NewChaCha8(seed).Read(data)
	return string(data)
}

func TestCancel(t *testing.T) {
	root := t.TempDir()
	newRepository(t, root+"/r").commit(map[string]string{"f": noise(1 << 20)})
	server, held := stuck(t, root, 1<<19)
	w := newWork(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		select {
		case <-held:
		case <-ctx.Done():
		}
		if len(running(t, w.env.Temp)) == 0 {
			t.Error("git does not run, so nothing is tested")
		}
		cancel()
	}()
	work, err := os.OpenRoot(w.dir)
	must(t, err)
	defer work.Close()
	s := newStager(t, &git.Options{AllowPrivate: true})
	_, err = s.Fetch(ctx, &caisson.Input{From: "git+" + server.URL + "/r/.git", To: "in"}, work, w.env)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Fetch = %v, want Canceled", err)
	}
	left, _ := os.ReadDir(w.env.Temp)
	if len(left) != 0 || len(w.tree("in")) != 0 {
		t.Errorf("left %v, %v", left, w.tree("in"))
	}
	for end := time.Now().Add(10 * time.Second); ; {
		found := running(t, w.env.Temp)
		if len(found) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("still running: %v", found)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A fetch that grows far beyond the limit is ended, however long it would go
// on.
func TestGrowth(t *testing.T) {
	root := t.TempDir()
	r := newRepository(t, root+"/r")
	r.commit(map[string]string{"f": noise(4 << 20)})
	r.commit(map[string]string{"f": "small"})
	server, _ := stuck(t, root, 3<<20)
	s := newStager(t, &git.Options{AllowPrivate: true})
	s.SetSlack(1 << 20)
	w := newWork(t)
	_, err := w.fetch(s, &caisson.Input{From: "git+" + server.URL + "/r/.git", MaxSize: 1000, Git: &caisson.GitInput{Depth: -1}})
	refused(t, err, caisson.ErrInvalid, "max_size")
	// Without history there is nothing of it.
	must(t, os.RemoveAll(w.dir+"/in"))
	_, err = w.fetch(s, &caisson.Input{From: "git+" + server.URL + "/r/.git", MaxSize: 1000})
	if got := w.tree("in"); err != nil || got["f"] != "small" {
		t.Errorf("%v, %v", got, err)
	}
}

// fakeSSH puts a ssh into PATH that tells how it was called and serves the
// repositories of this host.
func fakeSSH(t *testing.T) (calls func() string) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\necho \"$*\" >> '" + dir + "/calls'\nfor last; do :; done\nexec sh -c \"$last\"\n"
	must(t, os.WriteFile(dir+"/ssh", []byte(script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() string {
		data, _ := os.ReadFile(dir + "/calls")
		return string(data)
	}
}

func TestSSH(t *testing.T) {
	calls := fakeSSH(t)
	root := t.TempDir()
	leaf := newRepository(t, root+"/leaf")
	hash := leaf.commit(map[string]string{"l": "leaf"})
	r := newRepository(t, root+"/r 'x")
	r.commit(map[string]string{"f": "x"})
	r.submodule("a", "../leaf", hash)
	r.submodule("b", "git@example.com:"+strings.TrimPrefix(root, "/")+"/leaf", hash)
	u := url.URL{Scheme: "git+ssh", User: url.User("git"), Host: "example.com:2222", Path: r.dir}

	in := func() *caisson.Input { return &caisson.Input{From: u.String(), Git: &caisson.GitInput{}} }
	refused(t, newStager(t, nil).CheckInput(&caisson.Input{From: u.String(), To: "a"}, &stage.Env{}), caisson.ErrDenied, "keys")
	_, err := newWork(t).fetch(newStager(t, nil), in())
	refused(t, err, caisson.ErrDenied)
	if got := calls(); got != "" {
		t.Fatalf("ssh was called: %s", got)
	}

	w := newWork(t)
	w.env.Trusted = true
	_, err = w.fetch(newStager(t, nil), in())
	if got := w.tree("in"); err != nil || got["f"] != "x" || got["a"] != "/" {
		t.Errorf("%v, %v", got, err)
	}
	for _, want := range []string{"BatchMode=yes", "StrictHostKeyChecking=yes", "-p 2222", "git@example.com"} {
		if !strings.Contains(calls(), want) {
			t.Errorf("ssh was called without %s: %s", want, calls())
		}
	}

	// The second is relative to the far side's home, which is no such folder here.
	both := in()
	both.Git.Submodules = true
	_, err = w.fetch(newStager(t, nil), both)
	refused(t, err, caisson.ErrNotFound, `submodule "b"`)
	if !strings.Contains(calls(), "git@example.com git-upload-pack '"+strings.TrimPrefix(root, "/")+"/leaf'") {
		t.Errorf("ssh was not called for the submodule: %s", calls())
	}
}

// The real ssh asks nobody and waits for nobody.
func TestSSHUnreachable(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("needs ssh")
	}
	w := newWork(t)
	w.env.Trusted = true
	_, err := w.fetch(newStager(t, nil), &caisson.Input{From: "git+ssh://git@127.0.0.1:1/r"})
	refused(t, err, caisson.ErrUnavailable)
}
