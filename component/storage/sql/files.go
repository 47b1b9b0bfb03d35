package sql

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
)

// chunkSize is how much of a file is in one row of the database. It is the
// memory that a file needs.
const chunkSize = 1 << 20

// A fileEntry is what the catalog knows of a file, without what is in columns
// of their own. It goes into one JSON text.
type fileEntry struct {
	Name      string `json:"name"`
	Size      int64  `json:"size"`
	Public    bool   `json:"public,omitempty"`
	Permanent bool   `json:"permanent,omitempty"`
	Encrypted bool   `json:"encrypted,omitempty"`
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
	where, err := s.filesWhere(q)
	if err != nil {
		return nil, err
	}
	var files []storage.File
	err = s.view(ctx, "files", func(c *session) error {
		if c.bare {
			return nil
		}
		var err error
		files, err = c.files(ctx, where)
		return err
	})
	if q.Query != "" {
		files = slices.DeleteFunc(files, func(f storage.File) bool { return !match(&f) })
		if q.Limit > 0 && len(files) > q.Limit {
			files = files[:q.Limit]
		}
	}
	return files, err
}

// filesWhere makes the end of a statement about files "f".
func (s *Storage) filesWhere(q *storage.FileQuery) (string, error) {
	where := []string{"1 = 1"}
	tag := func(prefix string, tags []string) error {
		for _, t := range tags {
			if err := checkText("tag", t); err != nil {
				return err
			}
			where = append(where, prefix+"EXISTS (SELECT 1 FROM "+s.d.catalog("file_tags")+" t WHERE t.file = f.id AND t.tag = "+literal(t)+")")
		}
		return nil
	}
	if err := tag("", q.Tags); err != nil {
		return "", err
	}
	if err := tag("NOT ", q.NotTags); err != nil {
		return "", err
	}
	if len(q.IDs) > 0 {
		where = append(where, "f.id IN ("+numbers(q.IDs)+")")
	}
	if q.After != 0 {
		where = append(where, fmt.Sprintf("f.id > %d", q.After))
	}
	if !q.ChangedSince.IsZero() {
		where = append(where, fmt.Sprintf("f.created > %d", q.ChangedSince.UnixMicro()))
	}
	text := " WHERE " + strings.Join(where, " AND ") + " ORDER BY f.id DESC"
	// The database can't answer Query, which comes after it.
	if q.Limit > 0 && q.Query == "" {
		text += fmt.Sprintf(" LIMIT %d", q.Limit)
	}
	return text, nil
}

func numbers(ids []int64) string {
	text := make([]string, len(ids))
	for i, id := range ids {
		text[i] = fmt.Sprint(id)
	}
	return strings.Join(text, ", ")
}

func (c *session) files(ctx context.Context, where string) ([]storage.File, error) {
	var files []storage.File
	at := make(map[int64]int)
	err := c.each(ctx, func(scan func(...any) error) error {
		var id, created int64
		var text string
		if err := scan(&id, &created, &text); err != nil {
			return err
		}
		e, err := decode[fileEntry](text)
		if err != nil {
			return err
		}
		at[id] = len(files)
		files = append(files, storage.File{
			ID: id, Name: e.Name, Created: date(created), Size: e.Size,
			Public: e.Public, Permanent: e.Permanent, Encrypted: e.Encrypted,
		})
		return nil
	}, "SELECT f.id, f.created, f.entry FROM "+c.s.d.catalog("files")+" f"+where)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	err = c.each(ctx, func(scan func(...any) error) error {
		var id int64
		var tag string
		err := scan(&id, &tag)
		if i, ok := at[id]; ok {
			files[i].Tags = append(files[i].Tags, tag)
		}
		return err
	}, "SELECT file, tag FROM "+c.s.d.catalog("file_tags")+" WHERE file IN (SELECT f.id FROM "+c.s.d.catalog("files")+" f"+where+") ORDER BY file, seq")
	return files, err
}

// file returns one file. Errors: ErrNotFound.
func (c *session) file(ctx context.Context, id int64) (*storage.File, error) {
	missing := &caisson.Error{Item: fileItem(id), Kind: caisson.ErrNotFound, Err: errors.New("there is no such file")}
	if c.bare {
		return nil, missing
	}
	files, err := c.files(ctx, fmt.Sprintf(" WHERE f.id = %d", id))
	if err == nil && len(files) == 0 {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	return &files[0], nil
}

func fileItem(id int64) string { return fmt.Sprintf("file %d", id) }

// OpenFile implements storage.Storage. It reads piece by piece, each by a call
// of its own that ctx bounds.
func (s *Storage) OpenFile(ctx context.Context, id int64) (io.ReadCloser, error) {
	r := &fileReader{ctx: ctx, s: s, item: fileItem(id)}
	err := s.view(ctx, r.item, func(c *session) error {
		if _, err := c.file(ctx, id); err != nil {
			return err
		}
		return c.one(ctx, "SELECT chunks FROM "+s.d.catalog("files")+" WHERE id = ?", []any{id}, &r.chunks)
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// A fileReader reads the chunks of a file one after the other.
type fileReader struct {
	ctx    context.Context // that of OpenFile
	s      *Storage
	item   string
	chunks string
	seq    int64
	data   []byte
	err    error
}

// Read implements io.Reader.
func (r *fileReader) Read(p []byte) (int, error) {
	for len(r.data) == 0 && r.err == nil && len(p) > 0 {
		r.err = r.next()
	}
	if len(r.data) == 0 && r.err != nil {
		return 0, r.err
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

func (r *fileReader) next() error {
	err := r.s.view(r.ctx, r.item, func(c *session) error {
		err := c.one(r.ctx, "SELECT data FROM "+r.s.d.catalog("chunks")+" WHERE chunks = ? AND seq = ?",
			append(r.s.d.bulk(), r.chunks, r.seq), &r.data)
		if errors.Is(err, errNone) {
			return nil
		}
		return err
	})
	if err == nil && len(r.data) == 0 {
		return io.EOF
	}
	r.seq++
	return err
}

// Close implements io.Closer.
func (r *fileReader) Close() error {
	r.data, r.err = nil, errors.New("the file is closed")
	return nil
}

// PutFile implements storage.Storage. The file's number is given last, so that
// numbers rise in the order in which files can be seen.
func (s *Storage) PutFile(ctx context.Context, f *storage.NewFile, r io.Reader) (*storage.File, error) {
	item := fmt.Sprintf("file %q", f.Name)
	for _, text := range append([]string{f.Name, f.Load}, f.Tags...) {
		if err := checkText(item, text); err != nil {
			return nil, err
		}
	}
	chunks := rand.Text()
	lock := f.Load
	if lock == "" {
		lock = chunks
	}
	var made *storage.File
	err := s.change(ctx, item, "file "+lock, func(c *session) error {
		id, err := c.loadedFile(ctx, f.Load)
		if errors.Is(err, errNone) {
			id, err = c.putFile(ctx, f, chunks, r)
		}
		if err == nil {
			made, err = c.file(ctx, id)
		}
		return err
	})
	return made, err
}

// loadedFile returns the file that a load has made. Errors: errNone.
func (c *session) loadedFile(ctx context.Context, load string) (id int64, err error) {
	if load == "" {
		return 0, errNone
	}
	err = c.one(ctx, "SELECT id FROM "+c.s.d.catalog("files")+" WHERE load_id = ?", []any{load}, &id)
	return id, err
}

func (c *session) putFile(ctx context.Context, f *storage.NewFile, chunks string, r io.Reader) (id int64, err error) {
	size, err := c.putChunks(ctx, chunks, f.Name, r)
	if err != nil {
		return 0, err
	}
	c.s.at("chunks")
	if err := c.s.d.lock(ctx, c, "files"); err != nil {
		return 0, err
	}
	var load any
	if f.Load != "" {
		load = f.Load
	}
	e := fileEntry{Name: f.Name, Size: size, Public: f.Public, Permanent: f.Permanent, Encrypted: f.Encrypted}
	err = c.one(ctx, "INSERT INTO "+c.s.d.catalog("files")+" (load_id, chunks, created, entry) VALUES (?, ?, ?, ?) RETURNING id",
		[]any{load, chunks, time.Now().UnixMicro(), encode(e)}, &id)
	if err != nil {
		return 0, err
	}
	return id, c.tag(ctx, id, f.Tags)
}

// putChunks writes what r has, in bounded memory.
func (c *session) putChunks(ctx context.Context, chunks, name string, r io.Reader) (size int64, err error) {
	buffer := make([]byte, chunkSize)
	for seq := int64(0); ; seq++ {
		n, err := readChunk(r, buffer)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, &caisson.Error{Item: fmt.Sprintf("file %q", name), Kind: caisson.KindOf(err), Err: err}
		}
		if n > 0 {
			_, bad := c.exec(ctx, "INSERT INTO "+c.s.d.catalog("chunks")+" (chunks, seq, data) VALUES (?, ?, ?)",
				append(c.s.d.bulk(), chunks, seq, buffer[:n])...)
			if bad != nil {
				return 0, bad
			}
			size += int64(n)
		}
		if err != nil {
			return size, nil
		}
	}
}

// readChunk is io.ReadFull, which would not tell the end of everything from a
// reader that ended too soon.
func readChunk(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = r.Read(p[n:])
		n += more
	}
	return n, err
}

func (c *session) tag(ctx context.Context, id int64, tags []string) error {
	for _, t := range tags {
		table := c.s.d.catalog("file_tags")
		_, err := c.exec(ctx, fmt.Sprintf("INSERT INTO %s (file, tag, seq) SELECT %d, %s, coalesce(max(seq), 0) + 1 FROM %s WHERE file = %d"+
			" ON CONFLICT DO NOTHING", table, id, literal(t), table, id))
		if err != nil {
			return err
		}
	}
	return nil
}

// TagFile implements storage.Storage.
func (s *Storage) TagFile(ctx context.Context, id int64, tags []string) error {
	for _, t := range tags {
		if err := checkText("tag", t); err != nil {
			return err
		}
	}
	return s.change(ctx, fileItem(id), "file tags", func(c *session) error {
		if _, err := c.file(ctx, id); err != nil {
			return err
		}
		return c.tag(ctx, id, tags)
	})
}
