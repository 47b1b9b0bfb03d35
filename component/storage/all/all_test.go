package all_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage/all"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"storage":                 "file:" + filepath.Join(dir, "storage"),
		"./storage":               "file:" + filepath.Join(dir, "storage"),
		"a/b:c":                   "file:" + filepath.Join(dir, "a/b:c"),
		"./a:b":                   "file:" + filepath.Join(dir, "a:b"),
		"/abs/storage":            "file:/abs/storage",
		"file:storage":            "file:" + filepath.Join(dir, "storage"),
		"file:/abs/storage":       "file:/abs/storage",
		"file:///abs/my%20store":  "file:/abs/my store",
		"file://localhost/abs":    "file:/abs",
		"s3://bucket":             "s3://bucket",
		"s3://bucket/some/prefix": "s3://bucket/some/prefix",
		"s3://bucket/p/?endpoint=http%3A%2F%2F127.0.0.1%3A9000&region=eu-west-1": "s3://bucket/p",
		"sqlite:my.db":                         "sqlite:" + filepath.Join(dir, "my.db"),
		"postgres://user:secret@host:5433/db":  "postgres://",
		"postgresql://user@host/db?sslmode=on": "",
	} {
		s, err := all.Open(text, &all.Options{Dir: dir, Getenv: func(string) string { return "" }})
		if want == "" {
			if !errors.Is(err, caisson.ErrInvalid) {
				t.Errorf("Open(%q) = %v, want ErrInvalid", text, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("Open(%q): %v", text, err)
			continue
		}
		if got := s.Name(); !strings.HasPrefix(got, want) || strings.Contains(got, "secret") {
			t.Errorf("Open(%q) is %q, want %q", text, got, want)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "a folder is missing",
		"file:":                       "a folder is missing",
		"file://host/folder":          "file:FOLDER",
		"sqlite:":                     "a file is missing",
		"ftp://host":                  `"postgres://USER@HOST/DATABASE"`,
		"mysql://user:secret@host/db": `no storage has URLs of "mysql:"`,
		"s3://bucket?unknown=1":       "endpoint",
	} {
		_, err := all.Open(text, nil)
		if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q) = %v, want ErrInvalid with %q", text, err, want)
		}
	}
}
