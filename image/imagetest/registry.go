package imagetest

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// A Registry is one in this process, on a loopback address.
type Registry struct {
	Host  string         // 127.0.0.1:PORT
	Roots *x509.CertPool // who vouches for it, where it speaks https
	Close func()         // ends it before the test ends

	blobs registry.BlobHandler
	push  string // host of the door that asks for no password and has no faults

	mu     sync.Mutex
	users  map[string]string
	bearer bool
	fault  Fault
	count  map[string]int
}

// A Fault is asked before each request of a client. It returns true if it has
// answered the request itself. For a request of a blob's contents, data is them.
type Fault func(w http.ResponseWriter, r *http.Request, data []byte) bool

// NewRegistry starts a registry that speaks https.
func NewRegistry(t testing.TB) *Registry { return newRegistry(t, httptest.NewTLSServer) }

// NewHTTPRegistry starts a registry that speaks http only.
func NewHTTPRegistry(t testing.TB) *Registry { return newRegistry(t, httptest.NewServer) }

// NewListingRegistry starts a registry that speaks https and lists what refers
// to a manifest, which older ones do not.
func NewListingRegistry(t testing.TB) *Registry {
	return newRegistry(t, httptest.NewTLSServer, registry.WithReferrersSupport(true))
}

func newRegistry(t testing.TB, start func(http.Handler) *httptest.Server, more ...registry.Option) *Registry {
	t.Helper()
	r := &Registry{blobs: registry.NewInMemoryBlobHandler(), count: make(map[string]int)}
	store := registry.New(append(more, registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(r.blobs))...)
	quiet := log.New(io.Discard, "", 0)

	door := start(r.front(store))
	door.Config.ErrorLog = quiet
	r.Host = strings.TrimPrefix(strings.TrimPrefix(door.URL, "https://"), "http://")
	if cert := door.Certificate(); cert != nil {
		r.Roots = x509.NewCertPool()
		r.Roots.AddCert(cert)
	}
	back := httptest.NewServer(store)
	r.push = strings.TrimPrefix(back.URL, "http://")
	r.Close = sync.OnceFunc(func() {
		door.CloseClientConnections()
		door.Close()
		back.Close()
	})
	t.Cleanup(r.Close)
	return r
}

// Push puts an image into the registry and returns its reference. Where is
// such as team/app:1.
func (r *Registry) Push(t testing.TB, where string, img v1.Image) string {
	t.Helper()
	if err := remote.Write(r.tag(t, where), img); err != nil {
		t.Fatal(err)
	}
	return r.Host + "/" + where
}

// PushIndex puts an image for several platforms into the registry.
func (r *Registry) PushIndex(t testing.TB, where string, index v1.ImageIndex) string {
	t.Helper()
	if err := remote.WriteIndex(r.tag(t, where), index); err != nil {
		t.Fatal(err)
	}
	return r.Host + "/" + where
}

// PushRaw puts any manifest into the registry, with nothing of what it names.
func (r *Registry) PushRaw(t testing.TB, where, mediaType string, data []byte) string {
	t.Helper()
	tag := r.tag(t, where)
	target := fmt.Sprintf("http://%s/v2/%s/manifests/%s", r.push, tag.RepositoryStr(), tag.TagStr())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, target, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("PUT %s: %s: %s", target, resp.Status, text)
	}
	return r.Host + "/" + where
}

func (r *Registry) tag(t testing.TB, where string) name.Tag {
	t.Helper()
	tag, err := name.NewTag(r.push+"/"+where, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

// Users has the registry ask for one of these users, by name and password: with
// basic authentication, or with tokens if bearer is set.
func (r *Registry) Users(users map[string]string, bearer bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users, r.bearer = users, bearer
}

// Break sets what goes wrong; nil: nothing.
func (r *Registry) Break(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

// Count returns how many requests there were of a kind: METHOD, a space, and
// blobs or manifests.
func (r *Registry) Count(kind string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count[kind]
}

// front is what clients see.
func (r *Registry) front(store http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/token" {
			r.token(w, req)
			return
		}
		if !r.permitted(w, req) {
			return
		}
		data, isBlob := r.blob(req)
		r.mu.Lock()
		fault := r.fault
		for _, what := range []string{"blobs", "manifests"} {
			if strings.Contains(req.URL.Path, "/"+what+"/") {
				r.count[req.Method+" "+what]++
			}
		}
		r.mu.Unlock()
		switch {
		case fault != nil && fault(w, req, data):
		case isBlob:
			http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(data))
		default:
			store.ServeHTTP(w, req)
		}
	})
}

// blob returns the contents that a request is for.
func (r *Registry) blob(req *http.Request) ([]byte, bool) {
	_, digest, ok := strings.Cut(req.URL.Path, "/blobs/")
	hash, err := v1.NewHash(digest)
	if !ok || err != nil || req.Method != http.MethodGet {
		return nil, false
	}
	rc, err := r.blobs.Get(req.Context(), "", hash)
	if err != nil {
		return nil, false
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	return data, err == nil
}

// permitted answers a request of somebody who has not said who he is.
func (r *Registry) permitted(w http.ResponseWriter, req *http.Request) bool {
	r.mu.Lock()
	users, bearer := r.users, r.bearer
	r.mu.Unlock()
	if users == nil {
		return true
	}
	if bearer {
		if user, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer token-of-"); ok && users[user] != "" {
			return true
		}
		scheme := "https"
		if r.Roots == nil {
			scheme = "http"
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s://%s/token",service="test"`, scheme, r.Host))
	} else {
		user, password, ok := req.BasicAuth()
		if ok && password != "" && users[user] == password {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	}
	w.WriteHeader(http.StatusUnauthorized)
	io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
	return false
}

// token gives a token to a user.
func (r *Registry) token(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	user, password, ok := req.BasicAuth()
	if !ok || password == "" || r.users[user] != password {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	fmt.Fprintf(w, `{"token":%q}`, "token-of-"+url.PathEscape(user))
}

// Cut is a Fault that ends the connection in the middle of a blob's contents,
// the given number of times.
func Cut(times int) Fault {
	var mu sync.Mutex
	return onBlob(func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		mu.Lock()
		times--
		over := times < 0
		mu.Unlock()
		if over {
			return false
		}
		from := 0
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		rest := data[min(from, len(data)):]
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
		if from > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		w.Write(rest[:(len(rest)+1)/2])
		flush(w)
		panic(http.ErrAbortHandler)
	})
}

// Stall is a Fault that falls silent in the middle of a blob's contents until
// ctx ends or the client goes.
func Stall(ctx context.Context) Fault {
	return onBlob(func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:len(data)/2])
		flush(w)
		select {
		case <-ctx.Done():
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	})
}

// Corrupt is a Fault that changes one byte of each blob.
func Corrupt() Fault {
	return onBlob(func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		data[len(data)/2] ^= 1
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		return true
	})
}

// Resize is a Fault that sends so many bytes more, or fewer, of each blob than
// there are.
func Resize(by int) Fault {
	return onBlob(func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		if by > 0 {
			data = append(data, make([]byte, by)...)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data[:max(0, min(len(data), len(data)+by))]))
		return true
	})
}

// Status is a Fault that answers each request for a part of the registry, such
// as /manifests/, with an HTTP status.
func Status(part string, code int) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if !strings.Contains(r.URL.Path, part) {
			return false
		}
		w.WriteHeader(code)
		return true
	}
}

// onBlob is a Fault of requests for contents only.
func onBlob(f Fault) Fault {
	return func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		return data != nil && f(w, r, data)
	}
}

func flush(w http.ResponseWriter) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}
