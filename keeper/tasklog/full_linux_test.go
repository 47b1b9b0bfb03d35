package tasklog_test

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/keeper/tasklog"
)

// A file size limit stands for a full disk: a write is cut short, then refused.
// It is the whole process's, so this test runs alone.
func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := create(t, path, 0)
	write(t, w, tasklog.Stdout, "before ")

	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	small := unix.Rlimit{Cur: 4096, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &small); err != nil {
		t.Fatal(err)
	}
	lost := strings.Repeat("x", 5000)
	for range 2 {
		if err := w.Write(tasklog.Stdout, noon, []byte(lost)); !errors.Is(err, syscall.EFBIG) {
			t.Errorf("Write = %v, want file too large", err)
		}
	}
	if n, _ := w.Lost(); n != 10000 {
		t.Errorf("Lost = %d, want 10000", n)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	write(t, w, tasklog.Stdout, "after")

	r, err := tasklog.Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := []struct {
		stream tasklog.Stream
		offset int64
		data   string
	}{
		{tasklog.Stdout, 0, "before "},
		{tasklog.System, 0, "10000 bytes of output were lost: file too large\n"},
		{tasklog.Stdout, 10007, "after"},
	}
	for _, want := range want {
		rec, err := r.Next()
		if err != nil || rec.Stream != want.stream || rec.Offset != want.offset || string(rec.Data) != want.data {
			t.Errorf("Next = %v %d %q, %v, want %v", rec.Stream, rec.Offset, rec.Data, err, want)
		}
	}
}
