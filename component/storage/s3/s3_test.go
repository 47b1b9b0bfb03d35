//go:build unix

package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/s3"
	"github.com/caissonrun/caisson/component/storage/storagetest"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/slowtest"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// serve starts a fake and returns the URL of a storage in it.
func serve(t *testing.T) (*fake, string) {
	t.Helper()
	f := newFake()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return f, "s3://bucket/some/prefix?style=path&endpoint=" + url.QueryEscape(server.URL)
}

func open(t *testing.T, url string, opts *s3.Options) storage.Storage {
	t.Helper()
	if opts == nil {
		opts = &s3.Options{Getenv: func(string) string { return "" }}
	}
	s, err := s3.Open(url, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMain(m *testing.M) {
	storagetest.Child(openPlace)
	os.Exit(m.Run())
}

func openPlace(place string) (storage.Storage, error) {
	return s3.Open(place, &s3.Options{Getenv: func(string) string { return "" }})
}

// A process is killed at every write, by SIGKILL. What it leaves in the bucket
// stays for a day: nobody can tell whether a writer is still alive.
func TestKilled(t *testing.T) {
	slowtest.Skip(t) // package file's has the same writes, with less around them
	storagetest.Killed(t, crash.Storage(), openPlace, func(t *testing.T) string {
		_, place := serve(t)
		return place
	}, func(string) ([]string, error) { return nil, nil })
}

func TestSuite(t *testing.T) {
	opts := &s3.Options{CellLimit: 1 << 20, Memory: 1 << 17, Getenv: func(string) string { return "" }}
	var last string
	storagetest.Run(t, storagetest.Harness{
		New: func(t *testing.T) storage.Storage {
			_, last = serve(t)
			return open(t, last, opts)
		},
		Again:     func(t *testing.T, _ storage.Storage) storage.Storage { return open(t, last, opts) },
		CellLimit: 1 << 20,
	})
}

// TestServer runs the suite against a real server: CAISSON_TEST_S3 is
// http://KEY:SECRET@HOST:PORT/BUCKET, which scripts/services starts.
func TestServer(t *testing.T) {
	text := os.Getenv("CAISSON_TEST_S3")
	if text == "" {
		if os.Getuid() == 0 {
			t.Fatal("CAISSON_TEST_S3 is not set: run it with scripts/services")
		}
		t.Skip("CAISSON_TEST_S3 is not set, and only root starts services")
	}
	server, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := server.User.Password()
	env := map[string]string{"AWS_ACCESS_KEY_ID": server.User.Username(), "AWS_SECRET_ACCESS_KEY": secret}
	opts := &s3.Options{CellLimit: 1 << 20, Memory: 1 << 17, Getenv: func(name string) string { return env[name] }}
	client, err := minio.New(server.Host, &minio.Options{
		Creds: credentials.NewStaticV4(server.User.Username(), secret, ""), BucketLookup: minio.BucketLookupPath, Region: "us-east-1",
	})
	if err != nil {
		t.Fatal(err)
	}
	bucket := strings.Trim(server.Path, "/")
	n := 0
	storagetest.Run(t, storagetest.Harness{
		New: func(t *testing.T) storage.Storage {
			n++
			prefix := fmt.Sprintf("suite-%d-%d", os.Getpid(), n)
			t.Cleanup(func() { empty(t, client, bucket, prefix) })
			return open(t, fmt.Sprintf("s3://%s/%s?style=path&endpoint=http://%s", bucket, prefix, server.Host), opts)
		},
		Again: func(t *testing.T, s storage.Storage) storage.Storage {
			return open(t, fmt.Sprintf("%s?style=path&endpoint=http://%s", s.Name(), server.Host), opts)
		},
		CellLimit: 1 << 20,
	})
}

// empty removes what a test made.
func empty(t *testing.T, client *minio.Client, bucket, prefix string) {
	ctx := context.Background()
	objects := client.ListObjects(ctx, bucket, minio.ListObjectsOptions{Prefix: prefix + "/", Recursive: true})
	for err := range client.RemoveObjects(ctx, bucket, objects, minio.RemoveObjectsOptions{}) {
		t.Errorf("remove %s: %v", err.ObjectName, err.Err)
	}
}

func load(id string, rows string) *storage.Load {
	return &storage.Load{ID: id, Table: "in.c-main.t", Columns: []string{"a"}, Incremental: true, Slices: []storage.Slice{storagetest.Slice("rows.csv", []byte(rows))}}
}

func TestURL(t *testing.T) {
	for _, text := range []string{
		"s3:bucket", "s3://", "http://bucket", "s3://key:secret@bucket", "s3://bucket?endpoint=http://key:secret@host", "s3://bucket?key=secret",
		"s3://bucket?endpoint=localhost", "s3://bucket?endpoint=ftp://x",
		"s3://bucket?endpoint=http://x/path", "s3://bucket?nothing=1", "s3://bucket?style=x", "s3://bucket?writers=two",
	} {
		if _, err := s3.Open(text, nil); !errors.Is(err, caisson.ErrInvalid) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q) = %v, want ErrInvalid", text, err)
		}
	}
}

// A server that does not look at conditions is refused before anything is
// written, unless the operator says that nobody else writes.
func TestCarelessServer(t *testing.T) {
	f, text := serve(t)
	f.careless = true
	s := open(t, text, nil)
	defer s.Close()
	if _, err := s.Load(t.Context(), load("1", "1\n")); !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), "writers=one") {
		t.Errorf("Load = %v, want ErrUnsupported that says what to do", err)
	}
	if len(f.objects) != 0 {
		t.Errorf("%d objects are left, want none", len(f.objects))
	}
	one := open(t, text+"&writers=one", nil)
	defer one.Close()
	if _, err := one.Load(t.Context(), load("1", "1\n")); err != nil {
		t.Errorf("Load = %v", err)
	}
}

// A write whose answer was lost is sent again, and its own first try is no
// other writer.
func TestAnswerLost(t *testing.T) {
	f, text := serve(t)
	s := open(t, text, nil)
	defer s.Close()
	lost := false
	f.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if lost || r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, "/in/c-main/t.json") {
			return false
		}
		lost = true
		data := f.sent()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.store(strings.TrimPrefix(r.URL.Path, "/bucket/"), data)
		refuse(w, http.StatusServiceUnavailable, "SlowDown")
		return true
	}
	done, err := s.Load(t.Context(), load("1", "1\n"))
	if err != nil || !lost || done.Table.Rows != 1 {
		t.Errorf("Load = %+v, %v", done, err)
	}
}

// A load that does not hear whether it was committed leaves a whole table, which
// is the former one or the new one: by a stop at that moment, and by a server that
// has nothing more to say.
func TestCommitUnknown(t *testing.T) {
	for name, fault := range map[string]func(stop func(), w http.ResponseWriter, r *http.Request){
		"Stopped": func(stop func(), _ http.ResponseWriter, r *http.Request) {
			stop()
			<-r.Context().Done()
		},
		"Refused": func(_ func(), w http.ResponseWriter, _ *http.Request) {
			refuse(w, http.StatusForbidden, "AccessDenied")
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, text := serve(t)
			s := open(t, text, nil)
			defer s.Close()
			if _, err := s.Load(t.Context(), load("1", "1\n")); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			done := false
			f.fault = func(w http.ResponseWriter, r *http.Request) bool {
				record := strings.HasSuffix(r.URL.Path, "/in/c-main/t.json")
				switch {
				case r.Method == http.MethodPut && record && !done:
					done = true
					data := f.sent()
					f.mu.Lock()
					f.store(strings.TrimPrefix(r.URL.Path, "/bucket/"), data)
					f.mu.Unlock()
					refuse(w, http.StatusServiceUnavailable, "SlowDown")
				case record && done:
					fault(stop, w, r)
				default:
					return false
				}
				return true
			}
			if _, err := s.Load(ctx, load("2", "2\n")); err == nil || !done {
				t.Errorf("Load = %v, want that nobody knows", err)
			}
			f.mu.Lock()
			f.fault = nil
			f.mu.Unlock()
			again, err := s.Load(t.Context(), load("2", "2\n"))
			if err != nil || !again.Again {
				t.Errorf("the same load again = %+v, %v, want that it was done", again, err)
			}
			x, err := s.Export(t.Context(), "in.c-main.t", nil)
			if err != nil {
				t.Fatalf("Export = %v: the table is lost", err)
			}
			defer x.Close()
			var b bytes.Buffer
			if _, err := x.WriteTo(&b); err != nil || b.String() != "\"a\"\n\"1\"\n\"2\"\n" {
				t.Errorf("WriteTo = %q, %v, want both rows", b.String(), err)
			}
		})
	}
}

// An object larger than a part is uploaded in parts, and an upload that failed
// is taken back.
func TestParts(t *testing.T) {
	f, text := serve(t)
	s := open(t, text, nil)
	defer s.Close()
	content := bytes.Repeat([]byte("0123456789abcdef"), 5<<20/4)
	file, err := s.PutFile(t.Context(), &storage.NewFile{Load: "f", Name: "large"}, bytes.NewReader(content))
	if err != nil || file.Size != int64(len(content)) {
		t.Fatalf("PutFile = %+v, %v", file, err)
	}
	if o := f.objects["some/prefix/files/1_large"]; !bytes.Equal(o.data, content) {
		t.Errorf("the object has %d bytes, want %d", len(o.data), len(content))
	}
	f.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("partNumber") != "2" {
			return false
		}
		refuse(w, http.StatusForbidden, "AccessDenied")
		return true
	}
	if _, err := s.PutFile(t.Context(), &storage.NewFile{Load: "g", Name: "large"}, bytes.NewReader(content)); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("PutFile = %v, want ErrDenied", err)
	}
	if len(f.uploads) != 0 {
		t.Errorf("%d uploads are left", len(f.uploads))
	}
	if list, err := s.Files(t.Context(), nil); err != nil || len(list) != 1 {
		t.Errorf("Files = %v, %v, want the first alone", list, err)
	}
}

// What a load replaced stays for an hour, and what nothing names for a day; a
// later load removes both.
func TestSweep(t *testing.T) {
	f, text := serve(t)
	now := time.Now()
	s := open(t, text, &s3.Options{Getenv: func(string) string { return "" }, Now: func() time.Time { return now }})
	defer s.Close()
	versions := func() (list []string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for key := range f.objects {
			if name, ok := strings.CutPrefix(key, "some/prefix/in/c-main/.t/"); ok {
				list = append(list, name)
			}
		}
		return list
	}
	do := func(id string) {
		l := load(id, id+"\n")
		l.Incremental = false
		if _, err := s.Load(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	do("1")
	f.mu.Lock()
	f.store("some/prefix/in/c-main/.t/orphan.csv", nil)
	f.mu.Unlock()
	x, err := s.Export(t.Context(), "in.c-main.t", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	do("2")
	do("3")
	if got := versions(); len(got) != 4 {
		t.Errorf("versions are %q, want three and the orphan", got)
	}
	var b bytes.Buffer
	if _, err := x.WriteTo(&b); err != nil || b.String() != "\"a\"\n\"1\"\n" {
		t.Errorf("WriteTo = %q, %v", b.String(), err)
	}
	now = now.Add(2 * time.Hour)
	do("4")
	if got := versions(); len(got) != 5 || !slices.Contains(got, "orphan.csv") {
		t.Errorf("after two hours versions are %q, want that nothing is gone that somebody may be about to name", got)
	}
	now = now.Add(25 * time.Hour)
	do("5")
	if got := versions(); len(got) != 2 || slices.Contains(got, "orphan.csv") {
		t.Errorf("after a day versions are %q, want the last two", got)
	}
}

// A server that stops in the middle of an answer is given up.
func TestSilent(t *testing.T) {
	f, text := serve(t)
	s := open(t, text, &s3.Options{Getenv: func(string) string { return "" }, Silence: 20 * time.Millisecond})
	defer s.Close()
	if _, err := s.Load(t.Context(), load("1", "1\n")); err != nil {
		t.Fatal(err)
	}
	f.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, ".csv") {
			return false
		}
		w.Header().Set("Content-Length", "1000000")
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		fmt.Fprint(w, "\"a\"\n\"1\"\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	x, err := s.Export(t.Context(), "in.c-main.t", nil)
	if err == nil {
		_, err = x.WriteTo(&bytes.Buffer{})
		x.Close()
	}
	if !errors.Is(err, caisson.ErrUnavailable) || !strings.Contains(err.Error(), "silent") {
		t.Errorf("WriteTo = %v, want ErrUnavailable because the server is silent", err)
	}
}

func TestErrors(t *testing.T) {
	for code, want := range map[string]caisson.Kind{
		"AccessDenied": caisson.ErrDenied, "SignatureDoesNotMatch": caisson.ErrDenied, "NoSuchBucket": caisson.ErrInvalid,
		"QuotaExceeded": caisson.ErrExhausted, "Odd": caisson.ErrUnknown,
	} {
		f, text := serve(t)
		s := open(t, text, nil)
		f.fault = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut {
				return false
			}
			refuse(w, http.StatusBadRequest, code)
			return true
		}
		if _, err := s.Load(t.Context(), load("1", "1\n")); !errors.Is(err, want) {
			t.Errorf("%s: Load = %v, want %v", code, err, want)
		}
		s.Close()
	}
	s := open(t, "s3://bucket?style=path&endpoint=http://127.0.0.1:1", nil)
	defer s.Close()
	if _, err := s.Tables(t.Context()); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Tables of no server = %v, want ErrUnavailable", err)
	}
}
