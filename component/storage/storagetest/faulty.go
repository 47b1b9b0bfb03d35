package storagetest

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
)

// Faulty wraps a Storage and fails where it is told to: at the call of a number,
// before or after the storage has done it.
//
// Every method of the contract is a call, and so are an Export's WriteTo and
// the first Read of an open file.
type Faulty struct {
	storage.Storage

	// At is the number of the call that fails, from 1; 0: none does.
	At int
	// Late says that the call is done and its answer is lost, as when a server is
	// cut off.
	Late bool
	// Down says that every call after it fails too.
	Down bool
	// Err is what it fails with; nil: ErrUnavailable.
	Err error

	mu    sync.Mutex
	calls []string
}

var _ storage.Storage = (*Faulty)(nil)

// Calls returns the calls that were made, by their names, in order.
func (f *Faulty) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.calls...)
}

// call notes a call. Early fails before it is done, late after it.
func (f *Faulty) call(format string, args ...any) (early, late error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := fmt.Sprintf(format, args...)
	f.calls = append(f.calls, name)
	n := len(f.calls)
	if f.At == 0 || n != f.At && (n < f.At || !f.Down) {
		return nil, nil
	}
	err := f.Err
	if err == nil {
		err = caisson.ErrUnavailable
	}
	err = &caisson.Error{Item: "storage", Kind: caisson.KindOf(err), Err: fmt.Errorf("call %d, %s, fails as it was told to", n, name)}
	if f.Late && n == f.At {
		return nil, err
	}
	return err, nil
}

// Table implements storage.Storage.
func (f *Faulty) Table(ctx context.Context, id string) (*storage.Table, error) {
	early, late := f.call("Table %s", id)
	if early != nil {
		return nil, early
	}
	t, err := f.Storage.Table(ctx, id)
	return answer(t, err, late)
}

// answer is what a call returns whose answer may be lost.
func answer[T any](v T, err, late error) (T, error) {
	if late != nil {
		var none T
		return none, late
	}
	return v, err
}

// Tables implements storage.Storage.
func (f *Faulty) Tables(ctx context.Context) ([]storage.Table, error) {
	early, late := f.call("Tables")
	if early != nil {
		return nil, early
	}
	list, err := f.Storage.Tables(ctx)
	return answer(list, err, late)
}

// Export implements storage.Storage. Its File is left out, so that WriteTo is
// called.
func (f *Faulty) Export(ctx context.Context, id string, q *storage.Query) (*storage.Export, error) {
	early, late := f.call("Export %s", id)
	if early != nil {
		return nil, early
	}
	x, err := f.Storage.Export(ctx, id, q)
	if err != nil {
		return nil, err
	}
	if late != nil {
		_ = x.Close()
		return nil, late
	}
	write := x.WriteTo
	x.File = ""
	x.WriteTo = func(w io.Writer) (int64, error) {
		early, late := f.call("WriteTo %s", id)
		if early != nil {
			return 0, early
		}
		n, err := write(w)
		return answer(n, err, late)
	}
	return x, nil
}

// Load implements storage.Storage.
func (f *Faulty) Load(ctx context.Context, l *storage.Load) (*storage.Loaded, error) {
	early, late := f.call("Load %s", l.Table)
	if early != nil {
		return nil, early
	}
	done, err := f.Storage.Load(ctx, l)
	return answer(done, err, late)
}

// Files implements storage.Storage.
func (f *Faulty) Files(ctx context.Context, q *storage.FileQuery) ([]storage.File, error) {
	early, late := f.call("Files")
	if early != nil {
		return nil, early
	}
	list, err := f.Storage.Files(ctx, q)
	return answer(list, err, late)
}

// OpenFile implements storage.Storage.
func (f *Faulty) OpenFile(ctx context.Context, id int64) (io.ReadCloser, error) {
	early, late := f.call("OpenFile %d", id)
	if early != nil {
		return nil, early
	}
	r, err := f.Storage.OpenFile(ctx, id)
	if err != nil {
		return nil, err
	}
	if late != nil {
		_ = r.Close()
		return nil, late
	}
	return &faultyFile{ReadCloser: r, f: f, id: id}, nil
}

// A faultyFile counts its first Read.
type faultyFile struct {
	io.ReadCloser
	f    *Faulty
	id   int64
	read bool
}

func (r *faultyFile) Read(p []byte) (int, error) {
	if r.read {
		return r.ReadCloser.Read(p)
	}
	r.read = true
	early, late := r.f.call("Read %d", r.id)
	if early != nil {
		return 0, early
	}
	n, err := r.ReadCloser.Read(p)
	if late != nil {
		return n, late
	}
	return n, err
}

// PutFile implements storage.Storage.
func (f *Faulty) PutFile(ctx context.Context, n *storage.NewFile, r io.Reader) (*storage.File, error) {
	early, late := f.call("PutFile %s", n.Name)
	if early != nil {
		return nil, early
	}
	file, err := f.Storage.PutFile(ctx, n, r)
	return answer(file, err, late)
}

// TagFile implements storage.Storage.
func (f *Faulty) TagFile(ctx context.Context, id int64, tags []string) error {
	early, late := f.call("TagFile %d", id)
	if early != nil {
		return early
	}
	_, err := answer(struct{}{}, f.Storage.TagFile(ctx, id, tags), late)
	return err
}

// Document implements storage.Storage.
func (f *Faulty) Document(ctx context.Context, name string) ([]byte, string, error) {
	early, late := f.call("Document %s", name)
	if early != nil {
		return nil, "", early
	}
	data, version, err := f.Storage.Document(ctx, name)
	if late != nil {
		return nil, "", late
	}
	return data, version, err
}

// PutDocument implements storage.Storage.
func (f *Faulty) PutDocument(ctx context.Context, name string, data []byte, version string) (string, error) {
	early, late := f.call("PutDocument %s", name)
	if early != nil {
		return "", early
	}
	v, err := f.Storage.PutDocument(ctx, name, data, version)
	return answer(v, err, late)
}
