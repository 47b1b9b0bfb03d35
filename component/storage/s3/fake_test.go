//go:build unix

package s3_test

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// A fake is a server of objects in memory, as much of S3 as is used here, so
// that the suite runs without any service and faults can be ordered. It does not
// look at signatures.
type fake struct {
	careless bool // does not look at conditions

	mu      sync.Mutex
	objects map[string]object
	uploads map[string]*upload
	next    int
	body    []byte // of the last request
	// fault, where it is set, answers instead if it returns true.
	fault func(w http.ResponseWriter, r *http.Request) bool
}

type object struct {
	data []byte
	etag string
	time time.Time
}

type upload struct {
	key   string
	parts map[string][]byte
}

func newFake() *fake { return &fake{objects: map[string]object{}, uploads: map[string]*upload{}} }

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went
	}
	f.mu.Lock()
	fault := f.fault
	f.body = data
	f.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	q := r.URL.Query()
	switch {
	case bucket != "bucket":
		refuse(w, http.StatusNotFound, "NoSuchBucket")
	case key == "" && q.Has("uploads"):
		f.listUploads(w)
	case key == "":
		f.list(w, q.Get("prefix"), q.Get("delimiter"))
	case r.Method == http.MethodPost && q.Has("uploads"):
		f.next++
		id := fmt.Sprint(f.next)
		f.uploads[id] = &upload{key: key, parts: map[string][]byte{}}
		answer(w, initiated{Bucket: bucket, Key: key, UploadId: id})
	case q.Has("uploadId"):
		f.part(w, r, key, data)
	case r.Method == http.MethodPut:
		f.put(w, r, key, data)
	case r.Method == http.MethodDelete:
		delete(f.objects, key)
		w.WriteHeader(http.StatusNoContent)
	default:
		f.get(w, r, key)
	}
}

// sent is the body of the request that fault is asked about, where there is one
// at a time.
func (f *fake) sent() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.body
}

func (f *fake) get(w http.ResponseWriter, r *http.Request, key string) {
	o, ok := f.objects[key]
	if !ok {
		refuse(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	w.Header().Set("ETag", `"`+o.etag+`"`)
	w.Header().Set("Last-Modified", o.time.UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Length", fmt.Sprint(len(o.data)))
	if r.Method == http.MethodGet {
		w.Write(o.data)
	}
}

func (f *fake) put(w http.ResponseWriter, r *http.Request, key string, data []byte) {
	old, ok := f.objects[key]
	none, match := r.Header.Get("If-None-Match"), strings.Trim(r.Header.Get("If-Match"), `"`)
	if !f.careless && match != "" && !ok {
		refuse(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	if !f.careless && (none == "*" && ok || match != "" && match != old.etag) {
		refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
		return
	}
	w.Header().Set("ETag", `"`+f.store(key, data)+`"`)
}

func (f *fake) store(key string, data []byte) string {
	sum := md5.Sum(data)
	f.objects[key] = object{data: data, etag: hex.EncodeToString(sum[:]), time: time.Now()}
	return f.objects[key].etag
}

type initiated struct {
	XMLName               xml.Name `xml:"InitiateMultipartUploadResult"`
	Bucket, Key, UploadId string
}

type completed struct {
	XMLName           xml.Name `xml:"CompleteMultipartUploadResult"`
	Bucket, Key, ETag string
}

func (f *fake) part(w http.ResponseWriter, r *http.Request, key string, data []byte) {
	id := r.URL.Query().Get("uploadId")
	u := f.uploads[id]
	if u == nil {
		refuse(w, http.StatusNotFound, "NoSuchUpload")
		return
	}
	switch r.Method {
	case http.MethodPut:
		u.parts[fmt.Sprintf("%05s", r.URL.Query().Get("partNumber"))] = data
		sum := md5.Sum(data)
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	case http.MethodPost:
		var all []byte
		for _, n := range slices.Sorted(maps.Keys(u.parts)) {
			all = append(all, u.parts[n]...)
		}
		delete(f.uploads, id)
		answer(w, completed{Bucket: "bucket", Key: key, ETag: `"` + f.store(key, all) + `"`})
	case http.MethodDelete:
		delete(f.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	}
}

type listing struct {
	XMLName        xml.Name `xml:"ListBucketResult"`
	Name           string
	IsTruncated    bool
	Contents       []content
	CommonPrefixes []prefix
}

type content struct {
	Key          string
	LastModified string
	ETag         string
	Size         int
}

type prefix struct{ Prefix string }

func (f *fake) list(w http.ResponseWriter, in, delimiter string) {
	list := listing{Name: "bucket"}
	seen := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(f.objects)) {
		rest, ok := strings.CutPrefix(key, in)
		if !ok {
			continue
		}
		if dir, _, ok := strings.Cut(rest, "/"); ok && delimiter != "" {
			if !seen[dir] {
				list.CommonPrefixes = append(list.CommonPrefixes, prefix{in + dir + "/"})
			}
			seen[dir] = true
			continue
		}
		o := f.objects[key]
		list.Contents = append(list.Contents, content{
			Key: key, LastModified: o.time.UTC().Format(time.RFC3339), ETag: `"` + o.etag + `"`, Size: len(o.data),
		})
	}
	answer(w, list)
}

func (f *fake) listUploads(w http.ResponseWriter) {
	answer(w, struct {
		XMLName xml.Name `xml:"ListMultipartUploadsResult"`
		Bucket  string
	}{Bucket: "bucket"})
}

type failure struct {
	XMLName       xml.Name `xml:"Error"`
	Code, Message string
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	xml.NewEncoder(w).Encode(failure{Code: code, Message: code})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/xml")
	xml.NewEncoder(w).Encode(v)
}
