package objects

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/internal/crash"
)

// A fileRecord is files/ID.json. Without an Object it is the claim of a file
// that is being added, and is not listed.
type fileRecord struct {
	Format    int       `json:"format"`
	ID        int64     `json:"id"`
	Load      string    `json:"load,omitempty"`
	Name      string    `json:"name"`
	Object    string    `json:"object,omitempty"`
	Created   time.Time `json:"created"`
	Tags      []string  `json:"tags"`
	Size      int64     `json:"size"`
	Public    bool      `json:"public"`
	Permanent bool      `json:"permanent"`
	Encrypted bool      `json:"encrypted"`
	Nonce     string    `json:"nonce"` // tells claims apart that are the same otherwise
}

func fileKey(id int64) string { return fmt.Sprintf("files/%d.json", id) }

func (r *fileRecord) file() storage.File {
	return storage.File{
		ID: r.ID, Name: r.Name, Created: r.Created, Tags: slices.Clone(r.Tags), Size: r.Size,
		Public: r.Public, Permanent: r.Permanent, Encrypted: r.Encrypted,
	}
}

// Files implements storage.Storage.
func (s *Storage) Files(ctx context.Context, q *storage.FileQuery) ([]storage.File, error) {
	if q == nil {
		q = &storage.FileQuery{}
	}
	match, err := q.Matcher()
	if err != nil {
		return nil, err
	}
	ids, err := s.fileIDs(ctx)
	if err != nil {
		return nil, err
	}
	first := int64(math.MaxInt64)
	if q.Settled {
		// Files that are there now have been listed: an id that is free yet is above
		// them. What is not being added any more is read as what it has become.
		if first, err = s.firstAdded(ctx); err != nil {
			return nil, err
		}
	}
	var list []storage.File
	for _, id := range slices.Backward(ids) {
		if id > first || !q.MayMatch(id) {
			continue
		}
		r, _, err := s.fileRecord(ctx, id)
		if errors.Is(err, caisson.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if f := r.file(); match(&f) {
			list = append(list, f)
		}
		if q.Limit > 0 && len(list) == q.Limit {
			break
		}
	}
	return list, nil
}

// firstAdded returns the lowest id of a file that is being added.
func (s *Storage) firstAdded(ctx context.Context) (int64, error) {
	first := int64(math.MaxInt64)
	err := s.adding(ctx, func(id int64, since time.Time, _ string) error {
		if id > first || s.now().Sub(since) >= addingFor {
			return nil
		}
		r, _, err := s.fileClaim(ctx, id)
		if errors.Is(err, caisson.ErrNotFound) {
			return nil
		}
		if err == nil && r.Object == "" {
			first = id
		}
		return err
	})
	return first, err
}

// fileIDs lists the ids of files in order, those that are being added with them.
func (s *Storage) fileIDs(ctx context.Context) ([]int64, error) {
	names, err := s.store.List(ctx, "files")
	if err != nil {
		return nil, err
	}
	var ids []int64
	for _, name := range names {
		base, ok := strings.CutSuffix(name, ".json")
		id, err := strconv.ParseInt(base, 10, 64)
		if ok && err == nil && id > 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// fileRecord reads what is known of a file, and its version. Errors:
// ErrNotFound, also for one that is being added.
func (s *Storage) fileRecord(ctx context.Context, id int64) (*fileRecord, string, error) {
	r, version, err := s.fileClaim(ctx, id)
	if err == nil && r.Object == "" {
		err = &caisson.Error{Item: fmt.Sprintf("file %d", id), Kind: caisson.ErrNotFound, Err: fmt.Errorf("not in %s", s.Name())}
	}
	return r, version, err
}

func (s *Storage) fileClaim(ctx context.Context, id int64) (*fileRecord, string, error) {
	data, version, err := s.store.Get(ctx, fileKey(id))
	if err != nil {
		return nil, "", err
	}
	r := &fileRecord{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, "", s.broken(fileKey(id), err)
	}
	if r.Format != format || r.ID != id || path.Base(r.Object) != r.Object && r.Object != "" {
		return nil, "", s.broken(fileKey(id), errors.New("not the description of this file"))
	}
	return r, version, nil
}

// OpenFile implements storage.Storage.
func (s *Storage) OpenFile(ctx context.Context, id int64) (io.ReadCloser, error) {
	r, _, err := s.fileRecord(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.store.Open(ctx, "files/"+r.Object)
}

// PutFile implements storage.Storage.
func (s *Storage) PutFile(ctx context.Context, f *storage.NewFile, r io.Reader) (*storage.File, error) {
	c, err := s.claim(ctx, f)
	if err != nil {
		return nil, err
	}
	if c.Object != "" {
		return c.done(), nil
	}
	object, err := s.store.Create(ctx, "files/"+c.object())
	if err != nil {
		return nil, s.giveUp(ctx, c, err)
	}
	defer object.Close()
	n, err := io.Copy(object, readerOf(ctx, r))
	if err != nil {
		return nil, s.giveUp(ctx, c, err)
	}
	if _, err := object.Commit(); err != nil {
		return nil, s.giveUp(ctx, c, err)
	}
	c.Object, c.Size = c.object(), n
	crash.Point(crash.FileBefore)
	_, err = s.putFile(ctx, &c.fileRecord, c.version)
	if errors.Is(err, caisson.ErrExists) {
		return s.overtaken(ctx, c, err)
	}
	if err != nil {
		return nil, err
	}
	crash.Point(crash.FileAfter)
	// If it stays, a later file removes it.
	_ = s.store.Remove(ctx, addingKey(c.ID))
	return c.done(), nil
}

// overtaken is for a file whose claim is not what it was: the same load was done
// by somebody else, or the claim was taken back because it was too old.
func (s *Storage) overtaken(ctx context.Context, c *claim, cause error) (*storage.File, error) {
	r, _, err := s.fileClaim(ctx, c.ID)
	switch {
	case errors.Is(err, caisson.ErrNotFound):
		return nil, errors.Join(cause, s.store.Remove(ctx, "files/"+c.Object))
	case err == nil && c.Load != "" && r.Load == c.Load && r.Object != "":
		f := r.file()
		return &f, nil
	}
	return nil, errors.Join(cause, err)
}

// A claim is a file that is being added, or was.
type claim struct {
	fileRecord
	version string
}

func (c *claim) done() *storage.File {
	f := c.file()
	return &f
}

// object is the name of a file's contents: with its own as far as any file
// system can have it.
func (c *claim) object() string {
	name := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-", r) {
			return r
		}
		return '_'
	}, strings.ToValidUTF8(c.Name, "_"))
	const limit = 150
	if len(name) > limit {
		name = name[len(name)-limit:]
		for !utf8.RuneStart(name[0]) {
			name = name[1:]
		}
	}
	return fmt.Sprintf("%d_%s", c.ID, name)
}

// claim finds the file that a load has made or begun, or begins one.
//
// A load's note says which id it takes, and is changed only when that id is
// somebody else's: so all who do the same load, at the same time or one after
// the other, come to the same claim.
func (s *Storage) claim(ctx context.Context, f *storage.NewFile) (*claim, error) {
	release, err := s.store.Lock(ctx, "files")
	if err != nil {
		return nil, err
	}
	defer release()
	if err := s.clearFiles(ctx); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		c, err := s.tryClaim(ctx, f)
		if !errors.Is(err, caisson.ErrExists) || try == tries {
			return c, err
		}
	}
}

// tryClaim is claim, but ErrExists if others do the same.
func (s *Storage) tryClaim(ctx context.Context, f *storage.NewFile) (*claim, error) {
	if f.Load == "" {
		id, err := s.freeID(ctx)
		if err != nil {
			return nil, err
		}
		return s.begin(ctx, f, id)
	}
	id, version, err := s.noted(ctx, f.Load)
	if err != nil {
		return nil, err
	}
	if id > 0 {
		r, version, err := s.fileClaim(ctx, id)
		if errors.Is(err, caisson.ErrNotFound) {
			return s.begin(ctx, f, id)
		}
		if err != nil {
			return nil, err
		}
		if r.Load == f.Load {
			return &claim{fileRecord: *r, version: version}, nil
		}
	}
	if id, err = s.freeID(ctx); err != nil {
		return nil, err
	}
	if _, err := s.store.Put(ctx, loadKey(f.Load), fmt.Appendln(nil, id), version); err != nil {
		return nil, err
	}
	return s.begin(ctx, f, id)
}

// freeID is an id above all others.
func (s *Storage) freeID(ctx context.Context) (int64, error) {
	ids, err := s.fileIDs(ctx)
	if err != nil || len(ids) == 0 {
		return 1, err
	}
	return ids[len(ids)-1] + 1, nil
}

// begin takes an id. What is about to be there is noted first, so that it is
// found again if nobody goes on.
func (s *Storage) begin(ctx context.Context, f *storage.NewFile, id int64) (*claim, error) {
	c := &claim{fileRecord: fileRecord{
		Format: format, ID: id, Load: f.Load, Name: f.Name, Created: s.now(), Tags: unique(nil, f.Tags),
		Public: f.Public, Permanent: f.Permanent, Encrypted: f.Encrypted, Nonce: rand.Text(),
	}}
	if err := s.replace(ctx, addingKey(id), []byte(c.Created.Format(time.RFC3339)+" "+c.object()+"\n")); err != nil {
		return nil, err
	}
	var err error
	if c.version, err = s.putFile(ctx, &c.fileRecord, ""); err != nil {
		return nil, err
	}
	return c, nil
}

func loadKey(load string) string {
	sum := sha256.Sum256([]byte(load))
	return "files/.loads/" + hex.EncodeToString(sum[:16])
}

// noted is the id that a load takes, 0 if it has none, and the version of the
// note.
func (s *Storage) noted(ctx context.Context, load string) (int64, string, error) {
	data, version, err := s.store.Get(ctx, loadKey(load))
	if errors.Is(err, caisson.ErrNotFound) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", err
	}
	id, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil || id <= 0 {
		return 0, "", s.broken(loadKey(load), errors.New("not the id of a file"))
	}
	return id, version, nil
}

func addingKey(id int64) string { return fmt.Sprintf("files/.adding/%d", id) }

// replace is Put whatever the version is.
func (s *Storage) replace(ctx context.Context, key string, data []byte) error {
	for try := 1; ; try++ {
		_, version, err := s.store.Get(ctx, key)
		if err != nil && !errors.Is(err, caisson.ErrNotFound) {
			return err
		}
		if _, err = s.store.Put(ctx, key, data, version); !errors.Is(err, caisson.ErrExists) || try == tries {
			return err
		}
	}
}

// addingFor is how long a file can take to be added.
const addingFor = 24 * time.Hour

// clearFiles removes what is left of files that nobody adds any more.
func (s *Storage) clearFiles(ctx context.Context) error {
	return s.adding(ctx, func(id int64, since time.Time, object string) error {
		if s.now().Sub(since) < addingFor {
			return nil
		}
		return s.clearFile(ctx, id, object)
	})
}

// adding calls f for each file that is noted to be added: since when, and as
// which object.
func (s *Storage) adding(ctx context.Context, f func(id int64, since time.Time, object string) error) error {
	names, err := s.store.List(ctx, "files/.adding")
	if err != nil {
		return err
	}
	for _, name := range names {
		id, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			continue
		}
		data, _, err := s.store.Get(ctx, addingKey(id))
		if errors.Is(err, caisson.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		when, object, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
		since, err := time.Parse(time.RFC3339, when)
		if err != nil {
			continue
		}
		if err := f(id, since, object); err != nil {
			return err
		}
	}
	return nil
}

func (s *Storage) clearFile(ctx context.Context, id int64, object string) error {
	r, _, err := s.fileClaim(ctx, id)
	if err != nil && !errors.Is(err, caisson.ErrNotFound) {
		return err
	}
	if err == nil && r.Object == "" {
		if err := s.store.Remove(ctx, fileKey(id)); err != nil {
			return err
		}
	}
	if (err != nil || r.Object == "") && path.Base(object) == object && object != "" {
		if err := s.store.Remove(ctx, "files/"+object); err != nil {
			return err
		}
	}
	return s.store.Remove(ctx, addingKey(id))
}

func (s *Storage) putFile(ctx context.Context, r *fileRecord, version string) (string, error) {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", err
	}
	return s.store.Put(ctx, fileKey(r.ID), append(data, '\n'), version)
}

// giveUp takes back a claim.
func (s *Storage) giveUp(ctx context.Context, c *claim, cause error) error {
	ctx = context.WithoutCancel(ctx)
	err := errors.Join(s.store.Remove(ctx, fileKey(c.ID)), s.store.Remove(ctx, addingKey(c.ID)))
	if c.Load != "" {
		err = errors.Join(err, s.store.Remove(ctx, loadKey(c.Load)))
	}
	if err != nil {
		return fmt.Errorf("%w (and its claim stays: %w)", cause, err)
	}
	return cause
}

// TagFile implements storage.Storage.
func (s *Storage) TagFile(ctx context.Context, id int64, tags []string) error {
	for try := 1; ; try++ {
		r, version, err := s.fileRecord(ctx, id)
		if err != nil {
			return err
		}
		all := unique(r.Tags, tags)
		if len(all) == len(r.Tags) {
			return nil
		}
		r.Tags = all
		if _, err = s.putFile(ctx, r, version); !errors.Is(err, caisson.ErrExists) || try == tries {
			return err
		}
	}
}

// unique returns both, each once.
func unique(tags, more []string) []string {
	list := append([]string{}, tags...)
	for _, t := range more {
		if !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	return list
}

// readerOf ends with a context.
func readerOf(ctx context.Context, r io.Reader) io.Reader { return &ctxReader{ctx: ctx, r: r} }

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
