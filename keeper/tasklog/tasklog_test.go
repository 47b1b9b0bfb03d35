package tasklog_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 42, time.UTC)

func create(t *testing.T, path string, limit caisson.Bytes) *tasklog.Writer {
	t.Helper()
	w, err := tasklog.Create(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func write(t *testing.T, w *tasklog.Writer, stream tasklog.Stream, data string) {
	t.Helper()
	if err := w.Write(stream, noon, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

// read returns all records of a log and the bytes of each stream, and checks
// that offsets have no gap.
func read(t *testing.T, path string) ([]tasklog.Record, map[tasklog.Stream]string) {
	t.Helper()
	r, err := tasklog.Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var recs []tasklog.Record
	streams := map[tasklog.Stream]string{}
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return recs, streams
		}
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(len(streams[rec.Stream])); rec.Offset != want {
			t.Errorf("offset in %v = %d, want %d", rec.Stream, rec.Offset, want)
		}
		streams[rec.Stream] += string(rec.Data)
		recs = append(recs, rec)
	}
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := create(t, path, 0)
	binary := "\x00\xff\r\n\x1b[31m\xca\x01 no newline"
	write(t, w, tasklog.Stdout, binary)
	write(t, w, tasklog.Stderr, "err")
	write(t, w, tasklog.Stdout, "more")
	write(t, w, tasklog.Stdout, "")

	recs, streams := read(t, path)
	if len(recs) != 3 {
		t.Fatalf("got %d records, want 3", len(recs))
	}
	if !recs[0].Time.Equal(noon) {
		t.Errorf("time = %v, want %v", recs[0].Time, noon)
	}
	if got, want := streams[tasklog.Stdout], binary+"more"; got != want {
		t.Errorf("stdout = %q, want %q", got, want)
	}
	if got := streams[tasklog.Stderr]; got != "err" {
		t.Errorf("stderr = %q, want err", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v, want 0600", info.Mode(), err)
	}
}

func TestLargeWriteIsSplit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := create(t, path, 0)
	data := strings.Repeat("0123456789abcdef", 3*tasklog.MaxData/16) + "tail"
	write(t, w, tasklog.Stdout, data)
	recs, streams := read(t, path)
	if len(recs) != 4 || streams[tasklog.Stdout] != data {
		t.Errorf("got %d records of %d bytes, want 4 of %d", len(recs), len(streams[tasklog.Stdout]), len(data))
	}
}

func TestOpenAtPos(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := create(t, path, 0)
	for _, s := range []string{"one", "two", "three"} {
		write(t, w, tasklog.Stdout, s)
	}
	recs, _ := read(t, path)
	for i, rec := range recs {
		r, err := tasklog.Open(path, rec.Pos)
		if err != nil {
			t.Fatal(err)
		}
		next, err := r.Next()
		r.Close()
		if i == len(recs)-1 {
			if err != io.EOF {
				t.Errorf("after the last: %v, want EOF", err)
			}
			continue
		}
		if err != nil || !bytes.Equal(next.Data, recs[i+1].Data) {
			t.Errorf("after %d: %q, %v, want %q", i, next.Data, err, recs[i+1].Data)
		}
	}
}

// A writer may die at any byte: what is whole stays, and the next writer goes
// on behind it with the right offsets.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole")
	w := create(t, whole, 0)
	write(t, w, tasklog.Stdout, "first")
	write(t, w, tasklog.Stderr, "second")
	bytes, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	recs, _ := read(t, whole)
	for cut := range bytes {
		path := filepath.Join(dir, "torn")
		if err := os.WriteFile(path, bytes[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		want := ""
		if int64(cut) >= recs[0].Pos {
			want = "first"
		}
		r, err := tasklog.Open(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		if rec, err := r.Next(); string(rec.Data) != want || (want == "") != (err == io.EOF) {
			t.Fatalf("cut at %d: Next = %q, %v, want %q", cut, rec.Data, err, want)
		}
		again, err := tasklog.Create(path, 0)
		if err != nil {
			t.Fatalf("cut at %d: Create: %v", cut, err)
		}
		write(t, again, tasklog.Stdout, "-after")
		again.Close()
		// The reader that was open all the time sees it too.
		if rec, err := r.Next(); err != nil || string(rec.Data) != "-after" {
			t.Fatalf("cut at %d: Next after repair = %q, %v", cut, rec.Data, err)
		}
		r.Close()
		if _, streams := read(t, path); streams[tasklog.Stdout] != want+"-after" {
			t.Fatalf("cut at %d: stdout = %q", cut, streams[tasklog.Stdout])
		}
	}
}

func TestZeroTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := create(t, path, 0)
	write(t, w, tasklog.Stdout, "kept")
	appendFile(t, path, make([]byte, 5000))
	if _, streams := read(t, path); streams[tasklog.Stdout] != "kept" {
		t.Errorf("stdout = %q, want kept", streams[tasklog.Stdout])
	}
	again := create(t, path, 0)
	write(t, again, tasklog.Stdout, " and more")
	if _, streams := read(t, path); streams[tasklog.Stdout] != "kept and more" {
		t.Errorf("stdout = %q, want %q", streams[tasklog.Stdout], "kept and more")
	}
}

func appendFile(t *testing.T, path string, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
}

func TestErrNotALog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if _, err := tasklog.Open(path, 0); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Open without a file: %v, want not found", err)
	}
	if err := os.WriteFile(path, []byte("something else, and long enough\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tasklog.Create(path, 0); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Create: %v, want invalid", err)
	}
	r, err := tasklog.Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Next(); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Next: %v, want invalid", err)
	}
}

func TestErrDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := create(t, path, 0)
	write(t, w, tasklog.Stdout, "first")
	write(t, w, tasklog.Stdout, "second")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[bytes.Index(data, []byte("first"))] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := tasklog.Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Next(); !errors.Is(err, caisson.ErrInternal) {
		t.Errorf("Next = %v, want internal", err)
	}
}

func TestLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := create(t, path, 10)
	write(t, w, tasklog.Stdout, "12345")
	write(t, w, tasklog.Stderr, "67890")
	if w.Full() {
		t.Error("Full before the limit was passed")
	}
	write(t, w, tasklog.Stdout, "dropped")
	write(t, w, tasklog.Stdout, "dropped")
	w.Close()
	// The limit, and that it was told, hold for the next writer as well.
	again := create(t, path, 10)
	write(t, again, tasklog.Stderr, "dropped")
	if !again.Full() {
		t.Error("Full = false after the limit")
	}
	_, streams := read(t, path)
	if streams[tasklog.Stdout] != "12345" || streams[tasklog.Stderr] != "67890" {
		t.Errorf("streams = %q", streams)
	}
	if got := streams[tasklog.System]; strings.Count(got, "log limit of 10 reached") != 1 {
		t.Errorf("system = %q, want the marker once", got)
	}
}

func TestLimitInsideOfAWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := create(t, path, 7)
	write(t, w, tasklog.Stdout, "0123456789")
	_, streams := read(t, path)
	if got := streams[tasklog.Stdout]; got != "0123456" {
		t.Errorf("stdout = %q, want 0123456", got)
	}
	if streams[tasklog.System] == "" {
		t.Error("no marker")
	}
}

func TestFollowWhileWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var want bytes.Buffer
	var ended atomic.Bool
	go func() {
		defer ended.Store(true)
		w, err := tasklog.Create(path, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer w.Close()
		rnd := rand.New(rand.NewPCG(1, 2))
		for range 2000 {
			data := make([]byte, rnd.IntN(300))
			for i := range data {
				data[i] = byte(rnd.Uint32())
			}
			want.Write(data)
			if err := w.Write(tasklog.Stdout, time.Now(), data); err != nil {
				t.Error(err)
			}
		}
	}()
	var got bytes.Buffer
	err := tasklog.Follow(t.Context(), path, 0, ended.Load, func(rec tasklog.Record) error {
		got.Write(rec.Data)
		return nil
	})
	if err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("Follow gave %d bytes, %v, want %d", got.Len(), err, want.Len())
	}
}

// A writer that dies in the middle of a record leaves a follower with what was
// whole.
func TestFollowToATornTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := create(t, path, 0)
	write(t, w, tasklog.Stdout, "whole")
	write(t, w, tasklog.Stdout, "torn")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-1); err != nil {
		t.Fatal(err)
	}
	var got string
	asked := 0
	ended := func() bool { asked++; return asked > 3 }
	err = tasklog.Follow(t.Context(), path, 0, ended, func(rec tasklog.Record) error {
		got += string(rec.Data)
		return nil
	})
	if err != nil || got != "whole" {
		t.Errorf("Follow gave %q, %v, want whole", got, err)
	}
}

func TestFollowEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	never := func() bool { return false }
	fail := errors.New("enough")

	t.Run("WithoutALog", func(t *testing.T) {
		over := func() bool { return true }
		if err := tasklog.Follow(t.Context(), path, 0, over, nil); err != nil {
			t.Errorf("Follow = %v, want nil", err)
		}
	})
	t.Run("ErrContext", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := tasklog.Follow(ctx, path, 0, never, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Follow = %v, want deadline exceeded", err)
		}
	})
	t.Run("ErrOfTheCaller", func(t *testing.T) {
		write(t, create(t, path, 0), tasklog.Stdout, "x")
		err := tasklog.Follow(t.Context(), path, 0, never, func(tasklog.Record) error { return fail })
		if !errors.Is(err, fail) {
			t.Errorf("Follow = %v, want %v", err, fail)
		}
	})
}

func FuzzReader(f *testing.F) {
	path := filepath.Join(f.TempDir(), "log")
	w, err := tasklog.Create(path, 0)
	if err != nil {
		f.Fatal(err)
	}
	w.Write(tasklog.Stdout, noon, []byte("hello"))
	w.Write(tasklog.Stderr, noon, []byte("world"))
	w.Close()
	seed, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)-3])
	f.Add([]byte(tasklog.Header + "\xca\x01\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := tasklog.Open(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for range len(data) + 1 {
			if _, err = r.Next(); err != nil {
				break
			}
		}
		if err == nil {
			t.Fatal("more records than bytes")
		}
		// Whatever it holds, a log can be taken up again or is refused.
		w, err := tasklog.Create(path, 0)
		if err != nil {
			if !errors.Is(err, caisson.ErrInvalid) {
				t.Fatalf("Create: %v", err)
			}
			return
		}
		defer w.Close()
		if err := w.Write(tasklog.Stdout, noon, []byte("next")); err != nil {
			t.Fatal(err)
		}
		last := ""
		r2, err := tasklog.Open(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer r2.Close()
		for {
			rec, err := r2.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			last = string(rec.Data)
		}
		if last != "next" {
			t.Fatalf("last record = %q, want next", last)
		}
	})
}
