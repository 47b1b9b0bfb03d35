package run_test

import (
	"strings"
	"testing"

	"github.com/caissonrun/caisson/component/run"
)

func TestStripURL(t *testing.T) {
	for text, want := range map[string]struct{ plain, passwords string }{
		"storage":                                {"storage", ""},
		"file:/data/storage":                     {"file:/data/storage", ""},
		"sqlite:data.db":                         {"sqlite:data.db", ""},
		"postgres://me@host/db":                  {"postgres://me@host/db", ""},
		"postgres://me:s3cret@host/db?a=b":       {"postgres://me@host/db?a=b", "s3cret"},
		"postgres://host/db?password=s3cret&a=b": {"postgres://host/db?a=b", "s3cret"},
		"postgres://host/db?sslpassword=s3cret":  {"postgres://host/db", "s3cret"},
		"postgres://a:x@host/db?sslpassword=y":   {"postgres://a@host/db", "x y"},
		"s3://bucket/a?endpoint=http://k:s@host": {"s3://bucket/a?endpoint=http%3A%2F%2Fk%40host", "s"},
		"s3://bucket/a?endpoint=http://host":     {"s3://bucket/a?endpoint=http://host", ""},
	} {
		plain, passwords := run.StripURL(text)
		if got := strings.Join(passwords, " "); plain != want.plain || got != want.passwords {
			t.Errorf("StripURL(%q) = %q, %q, want %q, %q", text, plain, got, want.plain, want.passwords)
		}
	}
}
