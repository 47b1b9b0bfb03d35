//go:build unix

// Package s3 is a storage in a bucket of a server that speaks S3. Tables are
// objects of CSV, each version another one, and one small object names the
// version that is the table; see package objects for what lies where.
//
// That small object is replaced only if it still is what it was, by the
// conditional writes of S3 (If-Match, If-None-Match). A server that does not
// have them is found out before the first write and refused, because two
// programs that write would undo each other's work; "writers=one" in the URL
// says that there is only one.
//
// The URL is s3://BUCKET/PREFIX with these parameters:
//
//	endpoint=URL      of the server; without it Amazon's
//	region=NAME       else AWS_REGION, else us-east-1
//	style=path|host   where the bucket's name is in requests; without it as the endpoint needs it
//	writers=one       nobody else writes; the server need not have conditional writes
//
// Credentials are those of AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
// AWS_SESSION_TOKEN. Without them requests are not signed.
//
// Objects that a load replaced stay for an hour for whoever reads them, and what
// a load that was killed left stays for a day; later loads of the table remove
// them.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/internal/objects"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/idle"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	// smallLimit is the largest object that Get takes.
	smallLimit = 64 << 20
	// partSize is what an upload keeps in memory. S3 has at most 10,000 parts of
	// an object: it can have 160 GB.
	partSize = 16 << 20
	// linger is how long replaced objects stay, and orphanAge how long those stay
	// that nothing names: a load can take long between writing and naming.
	linger    = time.Hour
	orphanAge = 24 * time.Hour
	// retries is how often a request is sent anew where the server or the way to
	// it fails.
	retries = 5
)

// Options are the settings of a storage.
type Options struct {
	CellLimit int64               // bytes of a value; 0: 64 MiB
	Memory    int64               // about what a load with a key takes of it, bytes; 0: 64 MiB
	Getenv    func(string) string // credentials and region; nil: os.Getenv
	Transport http.RoundTripper   // nil: minio-go's own
	Silence   time.Duration       // how long the server may say nothing while it is read from; 0: a minute
	Now       func() time.Time    // nil: time.Now
}

// Open returns the storage of a URL. It does not ask the server yet. Errors:
// ErrInvalid.
func Open(text string, opts *Options) (storage.Storage, error) {
	if opts == nil {
		opts = &Options{}
	}
	s, err := newStore(text, opts)
	if err != nil {
		return nil, &caisson.Error{Op: caisson.OpConfig, Item: fmt.Sprintf("storage %q", public(text)), Kind: caisson.ErrInvalid, Err: err}
	}
	s.now, s.silence = opts.Now, opts.Silence
	if s.now == nil {
		s.now = time.Now
	}
	if s.silence <= 0 {
		s.silence = time.Minute
	}
	return objects.New(s, objects.Options{CellLimit: opts.CellLimit, Memory: opts.Memory, Linger: linger, Now: opts.Now}), nil
}

// parameters are those that a URL may have.
var parameters = []string{"endpoint", "region", "style", "writers"}

// public is a URL without credentials, which do not belong there.
func public(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "s3:"
	}
	u.User = nil
	known := url.Values{}
	for name, values := range u.Query() {
		for _, value := range values {
			if at, err := url.Parse(value); slices.Contains(parameters, name) && err == nil && at.User == nil {
				known.Add(name, value)
			}
		}
	}
	u.RawQuery = known.Encode()
	return u.String()
}

// A store is a bucket, or a part of it.
type store struct {
	core   minio.Core
	bucket string
	prefix string // with its "/", or empty
	trust  bool   // nobody else writes
	work   objects.Work
	now    func() time.Time
	// silence is how long the server may say nothing while it is read from.
	silence time.Duration

	mu     sync.Mutex
	probed bool
	locks  map[string]chan struct{} // by name; a place in the channel is the lock
}

var _ objects.Store = (*store)(nil)

func newStore(text string, opts *Options) (*store, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	if u.Scheme != "s3" || u.Host == "" || u.User != nil || u.Port() != "" {
		return nil, errors.New("the URL is s3://BUCKET/PREFIX?endpoint=URL; credentials are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	s := &store{bucket: u.Host, prefix: strings.Trim(u.Path, "/"), locks: map[string]chan struct{}{}}
	if s.prefix != "" {
		s.prefix += "/"
	}
	client, err := s.client(u.Query(), opts)
	if err != nil {
		return nil, err
	}
	s.core = minio.Core{Client: client}
	s.work.Parent = filepath.Join(os.TempDir(), fmt.Sprintf("caisson-storage-%d", os.Getuid()))
	s.work.Make = func() error { return own(s.work.Parent) }
	s.work.Temporary = true
	return s, nil
}

func (s *store) client(query url.Values, opts *Options) (*minio.Client, error) {
	getenv := opts.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	o := &minio.Options{Secure: true, Region: getenv("AWS_REGION"), Transport: opts.Transport, MaxRetries: retries}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	endpoint := "s3.amazonaws.com"
	for name, values := range query {
		value := values[len(values)-1]
		switch {
		case name == "endpoint":
			u, err := url.Parse(value)
			if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" || u.User != nil {
				return nil, errors.New("endpoint is http://HOST:PORT or https://HOST")
			}
			endpoint, o.Secure = u.Host, u.Scheme == "https"
		case name == "region":
			o.Region = value
		case name == "style" && value == "path":
			o.BucketLookup = minio.BucketLookupPath
		case name == "style" && value == "host":
			o.BucketLookup = minio.BucketLookupDNS
		case name == "writers" && value == "one":
			s.trust = true
		default:
			// The value is not repeated: it could be a key that does not belong there.
			return nil, fmt.Errorf("%s is not known, or not with this value; the parameters are endpoint, region, style=path|host and writers=one", name)
		}
	}
	o.Creds = credentials.NewStaticV4(getenv("AWS_ACCESS_KEY_ID"), getenv("AWS_SECRET_ACCESS_KEY"), getenv("AWS_SESSION_TOKEN"))
	return minio.New(endpoint, o)
}

// own makes a folder below that of temporary files, where others could have made
// one of the name.
func own(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil || !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || info.Mode().Perm() != 0o700 || !mine(info) {
		return &caisson.Error{Item: dir, Kind: caisson.ErrDenied, Err: errors.New("not a folder of this user alone: remove it or set TMPDIR")}
	}
	return nil
}

// Name implements objects.Store.
func (s *store) Name() string { return strings.TrimSuffix("s3://"+s.bucket+"/"+s.prefix, "/") }

func (s *store) key(key string) string { return s.prefix + key }

// Get implements objects.Store.
func (s *store) Get(ctx context.Context, key string) ([]byte, string, error) {
	r, info, _, err := s.core.GetObject(ctx, s.bucket, s.key(key), minio.GetObjectOptions{})
	if err != nil {
		return nil, "", s.wrap(key, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, smallLimit+1))
	if err != nil {
		return nil, "", s.wrap(key, err)
	}
	if len(data) > smallLimit {
		return nil, "", &caisson.Error{Item: s.Name() + "/" + key, Kind: caisson.ErrInvalid, Err: fmt.Errorf("larger than %s", caisson.Bytes(smallLimit))}
	}
	return data, info.ETag, nil
}

// Put implements objects.Store.
func (s *store) Put(ctx context.Context, key string, data []byte, version string) (string, error) {
	if err := s.probe(ctx); err != nil {
		return "", err
	}
	crash.Point(crash.PutBefore)
	if s.trust {
		// The server may not look; this finds at least what was there before.
		_, now, err := s.Get(ctx, key)
		if err != nil && !errors.Is(err, caisson.ErrNotFound) {
			return "", err
		}
		if now != version {
			return "", s.changed(key)
		}
	}
	etag, err := s.put(ctx, key, data, version)
	if errors.Is(err, caisson.ErrExists) {
		// A request whose answer was lost is sent again, and meets itself.
		now, etag, err := s.Get(ctx, key)
		switch {
		case err == nil && bytes.Equal(now, data) && etag != version:
			return etag, nil
		case err != nil && !errors.Is(err, caisson.ErrNotFound):
			return "", err // it may be this one's
		}
		return "", s.changed(key)
	}
	crash.Point(crash.PutAfter)
	return etag, err
}

func (s *store) changed(key string) error {
	return &caisson.Error{Item: s.Name() + "/" + key, Kind: caisson.ErrExists, Err: errors.New("somebody else changed it")}
}

func (s *store) put(ctx context.Context, key string, data []byte, version string) (string, error) {
	o := minio.PutObjectOptions{ContentType: "application/json", DisableMultipart: true, SendContentMd5: true}
	switch {
	case s.trust:
	case version == "":
		o.SetMatchETagExcept("*")
	default:
		o.SetMatchETag(version)
	}
	info, err := s.core.Client.PutObject(ctx, s.bucket, s.key(key), bytes.NewReader(data), int64(len(data)), o)
	if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		return "", s.changed(key) // that was to be replaced
	}
	if err != nil {
		return "", s.wrap(key, err)
	}
	return info.ETag, nil
}

// probe looks once whether the server has conditional writes, by trying.
func (s *store) probe(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probed || s.trust {
		return nil
	}
	key := ".caisson/probe-" + rand()
	if _, err := s.put(ctx, key, []byte("a"), ""); err != nil {
		return err
	}
	_, created := s.put(ctx, key, []byte("b"), "")
	_, replaced := s.put(ctx, key, []byte("c"), "00000000000000000000000000000000")
	if err := s.Remove(ctx, key); err != nil {
		return err
	}
	for what, err := range map[string]error{"If-None-Match": created, "If-Match": replaced} {
		if err == nil || errors.Is(err, caisson.ErrUnsupported) {
			return &caisson.Error{Item: s.Name(), Kind: caisson.ErrUnsupported, Err: fmt.Errorf(
				`the server does not look at %s when it writes, so two writers could undo each other's work; add "writers=one" to the URL if there is only one`, what,
			)}
		}
		if !errors.Is(err, caisson.ErrExists) {
			return err
		}
	}
	s.probed = true
	return nil
}

// Open implements objects.Store.
func (s *store) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	ctx, timer := idle.Watch(ctx, s.silence)
	r, _, _, err := s.core.GetObject(ctx, s.bucket, s.key(key), minio.GetObjectOptions{})
	if err != nil {
		err = errors.Join(timer.Err(), err)
		timer.Stop()
		return nil, s.wrap(key, err)
	}
	timer.Pause()
	return &reader{r: r, s: s, key: key, timer: timer}, nil
}

// A reader gives errors their kind, and gives up a server that is silent while
// it is being read from.
type reader struct {
	r     io.ReadCloser
	s     *store
	key   string
	timer *idle.Timer
}

func (r *reader) Read(p []byte) (int, error) {
	r.timer.Reset()
	n, err := r.r.Read(p)
	r.timer.Pause()
	if err != nil && !errors.Is(err, io.EOF) {
		if silent := r.timer.Err(); silent != nil {
			err = &caisson.Error{Item: r.s.Name() + "/" + r.key, Kind: caisson.ErrUnavailable, Err: silent}
		}
		err = r.s.wrap(r.key, err)
	}
	return n, err
}

func (r *reader) Close() error {
	r.timer.Stop()
	return r.r.Close()
}

// Create implements objects.Store.
func (s *store) Create(ctx context.Context, key string) (objects.Object, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	o := &object{s: s, key: key, w: w, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		o.info, o.err = s.core.Client.PutObject(ctx, s.bucket, s.key(key), r, -1, minio.PutObjectOptions{
			ContentType: contentType(key), PartSize: partSize,
		})
		// A writer must not wait for an upload that is over.
		r.CloseWithError(errors.Join(o.err, io.ErrClosedPipe))
	}()
	return o, nil
}

func contentType(key string) string {
	if strings.HasSuffix(key, ".csv") {
		return "text/csv"
	}
	return "application/octet-stream"
}

// An object is being uploaded by a goroutine that ends with Commit or Close.
type object struct {
	s      *store
	key    string
	w      *io.PipeWriter
	cancel context.CancelFunc
	size   int64

	done chan struct{} // closed when the upload is over; then:
	info minio.UploadInfo
	err  error
}

// Write implements objects.Object.
func (o *object) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	o.size += int64(n)
	if err != nil {
		err = o.s.wrap(o.key, err)
	}
	return n, err
}

// Commit implements objects.Object: the last request of an upload makes the
// object.
func (o *object) Commit() (objects.Print, error) {
	defer o.cancel()
	crash.Point(crash.ObjectBefore)
	if err := o.w.Close(); err != nil {
		return objects.Print{}, err
	}
	<-o.done
	if o.err != nil {
		return objects.Print{}, o.s.wrap(o.key, o.err)
	}
	if o.info.Size != o.size {
		return objects.Print{}, &caisson.Error{Item: o.s.Name() + "/" + o.key, Kind: caisson.ErrUnavailable, Err: fmt.Errorf(
			"%d bytes arrived, %d were sent", o.info.Size, o.size,
		)}
	}
	crash.Point(crash.ObjectAfter)
	return objects.Print{Size: o.size, Tag: o.info.ETag}, nil
}

// errTakenBack ends an upload that nobody wants any more.
var errTakenBack = errors.New("taken back")

// Close implements objects.Object.
func (o *object) Close() error {
	o.w.CloseWithError(errTakenBack)
	<-o.done
	o.cancel()
	return nil
}

// List implements objects.Store.
func (s *store) List(ctx context.Context, folder string) ([]string, error) {
	var names []string
	prefix := s.key(folder) + "/"
	for o := range s.core.Client.ListObjects(ctx, s.bucket, minio.ListObjectsOptions{Prefix: prefix}) {
		if o.Err != nil {
			return nil, s.wrap(folder, o.Err)
		}
		if name := strings.TrimPrefix(o.Key, prefix); name != "" {
			names = append(names, name)
		}
	}
	return names, ctx.Err()
}

// Remove implements objects.Store.
func (s *store) Remove(ctx context.Context, key string) error {
	err := s.wrap(key, s.core.Client.RemoveObject(ctx, s.bucket, s.key(key), minio.RemoveObjectOptions{}))
	if errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	return err
}

// Sweep implements objects.Store. What nothing names may be about to be named,
// so only what is old goes, and what keep once was true of: that is old as well.
func (s *store) Sweep(ctx context.Context, folder string, keep func(name string) bool) error {
	prefix := s.key(folder) + "/"
	var errs []error
	for o := range s.core.Client.ListObjects(ctx, s.bucket, minio.ListObjectsOptions{Prefix: prefix}) {
		name := strings.TrimPrefix(o.Key, prefix)
		if o.Err != nil || strings.HasSuffix(name, "/") {
			errs = append(errs, o.Err)
			continue
		}
		if keep(name) || s.now().Sub(o.LastModified) < orphanAge {
			continue
		}
		crash.Point(crash.SweepMiddle)
		errs = append(errs, s.Remove(ctx, folder+"/"+name))
	}
	for u := range s.core.Client.ListIncompleteUploads(ctx, s.bucket, prefix, false) {
		if u.Err == nil && s.now().Sub(u.Initiated) > orphanAge {
			errs = append(errs, s.core.AbortMultipartUpload(ctx, s.bucket, u.Key, u.UploadID))
		}
	}
	return errors.Join(errs...)
}

// Lock implements objects.Store, for this process only: others are noticed when
// they have changed something.
func (s *store) Lock(ctx context.Context, name string) (func(), error) {
	s.mu.Lock()
	lock := s.locks[name]
	if lock == nil {
		lock = make(chan struct{}, 1)
		s.locks[name] = lock
	}
	s.mu.Unlock()
	select {
	case lock <- struct{}{}:
		return func() { <-lock }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Scratch implements objects.Store.
func (s *store) Scratch() (string, error) {
	dir, err := s.work.Dir()
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(dir, "")
}

// Close implements objects.Store.
func (s *store) Close() error { return s.work.Close() }
