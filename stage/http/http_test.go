//go:build unix

package http_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/stage"
	stagehttp "github.com/caissonrun/caisson/stage/http"
	"github.com/caissonrun/caisson/stage/stagetest"
)

func newStager(t *testing.T, opts stagehttp.Options) *stagehttp.Stager {
	t.Helper()
	if opts.Delay == 0 {
		opts.Delay = time.Millisecond
	}
	s, err := stagehttp.New(&opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func private(t *testing.T) *stagehttp.Stager {
	return newStager(t, stagehttp.Options{AllowPrivate: true})
}

func serve(t *testing.T, f http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.URL
}

// get fetches a URL and returns the contents, and what else Fetch says.
func get(t *testing.T, s *stagehttp.Stager, in caisson.Input, env *stage.Env) (string, *stage.Fetched, error) {
	t.Helper()
	work, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer work.Close()
	if env == nil {
		env = &stage.Env{}
	}
	in.To = "a"
	got, err := s.Fetch(t.Context(), &in, work, env)
	data, readErr := work.ReadFile("a")
	if err != nil && !errors.Is(readErr, fs.ErrNotExist) {
		t.Errorf("after an error something is at to: %q, %v", data, readErr)
	}
	return string(data), got, err
}

func TestFetcher(t *testing.T) {
	stagetest.TestFetcher(t, stagetest.FetcherHarness{
		New: func(t *testing.T) stage.Fetcher { return private(t) },
		Input: func(t *testing.T, data string) caisson.Input {
			return caisson.Input{From: serve(t, func(w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader(data))
			})}
		},
		Absent: func(t *testing.T) caisson.Input {
			return caisson.Input{From: serve(t, func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) })}
		},
	})
}

func TestCheckInput(t *testing.T) {
	s := newStager(t, stagehttp.Options{})
	for from, want := range map[string]caisson.Kind{
		"https://example.com/x": 0, "http://example.com:8080/x?y": 0, "https://8.8.8.8/x": 0,
		"http://": caisson.ErrInvalid, "http:x": caisson.ErrInvalid, "http:///x": caisson.ErrInvalid, "ftp://h/x": caisson.ErrInvalid,
		"http://h:x/": caisson.ErrInvalid, "http://h/\x00": caisson.ErrInvalid, "https://u:$NONE@h/": caisson.ErrInvalid,
		"http://127.0.0.1/x": caisson.ErrDenied, "http://[::1]/": caisson.ErrDenied, "http://[::ffff:127.0.0.1]/": caisson.ErrDenied,
		"http://169.254.169.254/latest": caisson.ErrDenied, "http://10.0.0.1:80/": caisson.ErrDenied,
	} {
		err := s.CheckInput(&caisson.Input{From: from, To: "a"}, &stage.Env{})
		if caisson.KindOf(err) != want {
			t.Errorf("CheckInput(%q) = %v, want %v", from, err, want)
		}
	}
	err := s.CheckInput(&caisson.Input{From: "http://127.0.0.1/x", To: "a"}, &stage.Env{Trusted: true})
	if err != nil {
		t.Errorf("for a trusted task: %v", err)
	}
}

// No spelling of this host gets a task there.
func TestPrivateAddresses(t *testing.T) {
	var asked atomic.Int32
	base := serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	port := base[strings.LastIndex(base, ":"):]
	s := newStager(t, stagehttp.Options{})
	for _, host := range []string{
		"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "[::]", "2130706433", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.1.",
		"[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]",
	} {
		if _, _, err := get(t, s, caisson.Input{From: "http://" + host + port + "/"}, nil); err == nil {
			t.Errorf("Fetch from %s succeeded", host)
		}
	}
	if asked.Load() != 0 {
		t.Errorf("the server was asked %d times", asked.Load())
	}
}

// A trusted task names a private server itself; where that redirects to is not
// its choice.
func TestTrusted(t *testing.T) {
	other := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "SECRET") })
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, other+"/x", http.StatusFound)
		case "/here":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/metadata":
			http.Redirect(w, r, "http://169.254.169.254/latest/", http.StatusFound)
		default:
			fmt.Fprint(w, "fine")
		}
	})
	s := newStager(t, stagehttp.Options{})
	trusted := &stage.Env{Trusted: true}
	for path, want := range map[string]caisson.Kind{"/ok": 0, "/here": 0, "/away": caisson.ErrDenied, "/metadata": caisson.ErrDenied} {
		data, _, err := get(t, s, caisson.Input{From: base + path}, trusted)
		if caisson.KindOf(err) != want || want == 0 && data != "fine" {
			t.Errorf("Fetch(%s) = %q, %v, want kind %v", path, data, err, want)
		}
	}
}

func TestRedirects(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		if r.Header.Get("Referer") != "" {
			t.Errorf("Referer %q", r.Header.Get("Referer"))
		}
		switch {
		case n > 0:
			http.Redirect(w, r, fmt.Sprintf("/%d?secret", n-1), http.StatusTemporaryRedirect)
		case r.URL.Path == "/file":
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		case r.URL.Path == "/nowhere":
			w.WriteHeader(http.StatusFound)
		default:
			fmt.Fprint(w, "end")
		}
	})
	s := newStager(t, stagehttp.Options{AllowPrivate: true, Redirects: 3})
	for path, want := range map[string]caisson.Kind{
		"/3": 0, "/4": caisson.ErrDenied, "/file": caisson.ErrDenied, "/nowhere": caisson.ErrDenied,
	} {
		data, _, err := get(t, s, caisson.Input{From: base + path}, nil)
		if caisson.KindOf(err) != want || want == 0 && data != "end" {
			t.Errorf("Fetch(%s) = %q, %v, want kind %v", path, data, err, want)
		}
	}
}

func TestCredentials(t *testing.T) {
	var elsewhere atomic.Value
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		elsewhere.Store(r.Header.Get("Authorization"))
		fmt.Fprint(w, "ok")
	})
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "s3cret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, strings.Replace(other, "127.0.0.1", "localhost", 1), http.StatusFound)
		case "/here":
			http.Redirect(w, r, "/", http.StatusFound)
		default:
			fmt.Fprint(w, "ok")
		}
	})
	env := &stage.Env{Secrets: map[string]string{"TOKEN": "s3cret"}}
	with := strings.Replace(base, "://", "://me:$TOKEN@", 1)
	for _, path := range []string{"/", "/here", "/away"} {
		if data, _, err := get(t, private(t), caisson.Input{From: with + path}, env); err != nil || data != "ok" {
			t.Errorf("Fetch(%s) = %q, %v", path, data, err)
		}
	}
	if got := elsewhere.Load(); got != "" {
		t.Errorf("the other server was given %q", got)
	}
	wrong := strings.Replace(base, "://", "://me:hunter2@", 1)
	_, _, err := get(t, private(t), caisson.Input{From: wrong + "/?token=abc"}, nil)
	if !errors.Is(err, caisson.ErrDenied) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "abc") {
		t.Errorf("wrong password: %v, want ErrDenied without the secrets", err)
	}
}

func TestHTTPS(t *testing.T) {
	plain := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "plain") })
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" {
			http.Redirect(w, r, plain, http.StatusFound)
			return
		}
		fmt.Fprint(w, "safe")
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // a handshake that fails is part of the test
	server.StartTLS()
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	s := newStager(t, stagehttp.Options{AllowPrivate: true, RootCAs: pool})
	if data, _, err := get(t, s, caisson.Input{From: server.URL}, nil); err != nil || data != "safe" {
		t.Errorf("Fetch = %q, %v", data, err)
	}
	if _, _, err := get(t, s, caisson.Input{From: server.URL + "/down"}, nil); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("a redirect from https to http: %v, want ErrDenied", err)
	}
	if _, _, err := get(t, private(t), caisson.Input{From: server.URL}, nil); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("a server that nobody vouches for: %v, want ErrDenied", err)
	}
}

func TestStatus(t *testing.T) {
	var asked atomic.Int32
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		code, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		w.WriteHeader(code)
	})
	for code, want := range map[int]struct {
		kind  caisson.Kind
		tries int32
	}{
		404: {caisson.ErrNotFound, 1}, 410: {caisson.ErrNotFound, 1}, 401: {caisson.ErrDenied, 1}, 403: {caisson.ErrDenied, 1},
		400: {caisson.ErrInvalid, 1}, 204: {caisson.ErrInvalid, 1}, 206: {caisson.ErrInvalid, 1}, 501: {caisson.ErrInvalid, 1},
		500: {caisson.ErrUnavailable, 3}, 503: {caisson.ErrUnavailable, 3}, 429: {caisson.ErrUnavailable, 3},
	} {
		asked.Store(0)
		s := newStager(t, stagehttp.Options{AllowPrivate: true, Tries: 3})
		_, _, err := get(t, s, caisson.Input{From: fmt.Sprint(base, "/", code)}, nil)
		if !errors.Is(err, want.kind) || asked.Load() != want.tries {
			t.Errorf("%d: %v after %d requests, want %v after %d", code, err, asked.Load(), want.kind, want.tries)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, _, err := get(t, private(t), caisson.Input{From: "http://" + l.Addr().String()}, nil); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Fetch = %v, want ErrUnavailable", err)
	}
}

// cutting serves data and cuts each answer off after so many bytes.
func cutting(t *testing.T, data func(request int) string, after int, header func(http.Header)) (string, *atomic.Int32) {
	var requests atomic.Int32
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		content := data(int(requests.Add(1)))
		header(w.Header())
		http.ServeContent(&cutWriter{w, after}, r, "", time.Time{}, strings.NewReader(content))
	}), &requests
}

// A cutWriter drops the connection after left bytes.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		c.ResponseWriter.Write(p[:c.left])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func digest(data string) string {
	sum := sha256.Sum256([]byte(data))
	return hex.EncodeToString(sum[:])
}

func TestResume(t *testing.T) {
	data := strings.Repeat("0123456789abcdef", 40_000)
	for name, header := range map[string]func(http.Header){
		"tag":  func(h http.Header) { h.Set("ETag", `"v1"`) },
		"time": func(h http.Header) { h.Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT") },
	} {
		t.Run(name, func(t *testing.T) {
			url, requests := cutting(t, func(int) string { return data }, 100_000, header)
			if name == "time" {
				url, requests = cuttingByTime(t, data)
			}
			var last int64
			env := &stage.Env{Progress: func(done, total int64) {
				if done < last || total != int64(len(data)) {
					t.Errorf("progress %d of %d after %d", done, total, last)
				}
				last = done
			}}
			s := newStager(t, stagehttp.Options{AllowPrivate: true, Tries: 2})
			got, fetched, err := get(t, s, caisson.Input{From: url, SHA256: digest(data)}, env)
			if err != nil || got != data || fetched.SHA256 != digest(data) {
				t.Fatalf("Fetch = %d bytes, %v", len(got), err)
			}
			if n := requests.Load(); n != 7 {
				t.Errorf("%d requests, want 7 that go on where the one before was cut off", n)
			}
		})
	}
}

// cuttingByTime is cutting for a server that knows the time of last change only.
func cuttingByTime(t *testing.T, data string) (string, *atomic.Int32) {
	var requests atomic.Int32
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.ServeContent(&cutWriter{w, 100_000}, r, "", time.Unix(1e9, 0), strings.NewReader(data))
	}), &requests
}

// A file that changes between two parts is fetched anew, never mixed.
func TestResumeChanged(t *testing.T) {
	older, newer := strings.Repeat("a", 300_000), strings.Repeat("b", 90_000)
	var requests atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		content, tag := older, `"old"`
		if requests.Add(1) > 1 {
			content, tag = newer, `"new"`
		}
		w.Header().Set("ETag", tag)
		http.ServeContent(&cutWriter{w, 100_000}, r, "", time.Time{}, strings.NewReader(content))
	})
	got, _, err := get(t, private(t), caisson.Input{From: url}, nil)
	if err != nil || got != newer {
		t.Errorf("Fetch = %d bytes %.10q, %v, want the newer file", len(got), got, err)
	}
}

// Without anything that tells whether the file is the same, it begins anew.
func TestNoValidator(t *testing.T) {
	data := strings.Repeat("x", 300_000)
	var requests atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			t.Error("a part was asked for")
		}
		after := 100_000
		if requests.Add(1) == 3 {
			after = len(data)
		}
		http.ServeContent(&cutWriter{w, after}, r, "", time.Time{}, strings.NewReader(data))
	})
	if got, _, err := get(t, private(t), caisson.Input{From: url}, nil); err != nil || got != data {
		t.Errorf("Fetch = %d bytes, %v", len(got), err)
	}
}

// Servers that lie about parts do not get their bytes in.
func TestWrongRange(t *testing.T) {
	data := strings.Repeat("0123456789", 30_000)
	for _, contentRange := range []string{"", "bytes 0-9/300000", "bytes 100001-299999/300000", "bytes x", "bytes 100000-299999/5"} {
		var requests atomic.Int32
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"v"`)
			if requests.Add(1) == 2 {
				w.Header().Set("Content-Range", contentRange)
				w.WriteHeader(http.StatusPartialContent)
				fmt.Fprint(w, strings.Repeat("!", 200_000))
				return
			}
			after := 100_000
			if requests.Load() > 2 {
				after = len(data)
			}
			http.ServeContent(&cutWriter{w, after}, r, "", time.Time{}, strings.NewReader(data))
		})
		if got, _, err := get(t, private(t), caisson.Input{From: url}, nil); err != nil || got != data {
			t.Errorf("Content-Range %q: %d bytes, %v", contentRange, len(got), err)
		}
	}
}

// A server that never finishes is given up.
func TestAlwaysCut(t *testing.T) {
	url, _ := cutting(t, func(int) string { return strings.Repeat("x", 10_000) }, 0, func(http.Header) {})
	if _, _, err := get(t, private(t), caisson.Input{From: url}, nil); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Fetch = %v, want ErrUnavailable", err)
	}
}

func TestSilentServer(t *testing.T) {
	done := make(chan struct{})
	defer close(done)
	for name, begin := range map[string]string{"header": "", "body": "some"} {
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			if begin != "" {
				fmt.Fprint(w, begin)
				w.(http.Flusher).Flush()
			}
			<-done
		})
		s := newStager(t, stagehttp.Options{AllowPrivate: true, Tries: 2, Idle: 50 * time.Millisecond})
		if _, _, err := get(t, s, caisson.Input{From: url}, nil); !errors.Is(err, caisson.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want ErrUnavailable", name, err)
		}
	}
}

// A server that gives a byte at a time is given up too.
func TestTotal(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			fmt.Fprint(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(time.Millisecond)
		}
	})
	s := newStager(t, stagehttp.Options{AllowPrivate: true, Total: 50 * time.Millisecond})
	if _, _, err := get(t, s, caisson.Input{From: url}, nil); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Fetch = %v, want ErrUnavailable", err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	defer close(done)
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		cancel()
		<-done
	})
	work, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer work.Close()
	_, err = private(t).Fetch(ctx, &caisson.Input{From: url, To: "a"}, work, &stage.Env{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Fetch = %v, want Canceled", err)
	}
}

// What the server sends is kept byte for byte; a bomb stays packed.
func TestNotUnpacked(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	w.Write(make([]byte, 10<<20))
	w.Close()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("Accept-Encoding %q", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(packed.Bytes())
	})
	if got, _, err := get(t, private(t), caisson.Input{From: url}, nil); err != nil || got != packed.String() {
		t.Errorf("Fetch = %d bytes, %v, want %d", len(got), err, packed.Len())
	}
}

// An endless body, of no declared length, ends at the limit.
func TestMaxSizeWhileStreaming(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	if _, _, err := get(t, private(t), caisson.Input{From: url, MaxSize: 1 << 20}, nil); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Fetch = %v, want ErrInvalid", err)
	}
}

func TestNewErr(t *testing.T) {
	if _, err := stagehttp.New(&stagehttp.Options{Tries: -1}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("New = %v, want ErrInvalid", err)
	}
	if _, err := stagehttp.New(nil); err != nil {
		t.Error(err)
	}
}
