//go:build unix

package executor

import (
	"errors"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/internal/state"
	"github.com/caissonrun/caisson/stage"
	web "github.com/caissonrun/caisson/stage/http"
)

// TestParseModule holds what a module's name means.
func TestParseModule(t *testing.T) {
	sum := strings.Repeat("a", 64)
	for text, want := range map[string]moduleRef{
		"a.wasm":                     {path: "a.wasm"},
		"./a:b.wasm":                 {path: "./a:b.wasm"},
		"/srv/a:b.wasm":              {path: "/srv/a:b.wasm"},
		"file:a.wasm":                {path: "a.wasm"},
		"oci://example.com/a":        {artifact: "example.com/a"},
		"example.com/a:1":            {artifact: "example.com/a:1"},
		"oci:layout:v1":              {artifact: "oci:layout:v1"},
		"https://h/a#sha256=" + sum:  {input: &caisson.Input{From: "https://h/a", SHA256: sum}, plain: true},
		"http://u:$P@h/a?b":          {input: &caisson.Input{From: "http://u:$P@h/a?b"}},
		"https://h/a.wasm?version=1": {input: &caisson.Input{From: "https://h/a.wasm?version=1"}, plain: true},
	} {
		got, err := parseModule(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got.path != want.path || got.artifact != want.artifact || (got.input == nil) != (want.input == nil) || got.plain != want.plain {
			t.Errorf("%s = %+v, want %+v", text, got, want)
		}
		if in := got.input; in != nil && (in.From != want.input.From || in.SHA256 != want.input.SHA256 || in.MaxSize != image.MaxModule) {
			t.Errorf("%s = %+v, want %+v", text, in, want.input)
		}
	}
	for _, text := range []string{"https://h/a#md5=1", "https://h/a#", "http://u:hunter2@h:x y/"} {
		if _, err := parseModule(text); !errors.Is(err, caisson.ErrInvalid) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want invalid", text, err)
		}
	}
}

// TestModulePath holds where an engine finds a module.
func TestModulePath(t *testing.T) {
	att := state.Attempt{Dir: "/state/attempt-1"}
	for text, want := range map[string]string{
		"":                 "",
		"a.wasm":           "/base/a.wasm",
		"file:/srv/a.wasm": "/srv/a.wasm",
		"oci://h/a:1":      att.Files() + "/module.wasm",
		"https://h/a":      att.Files() + "/module.wasm",
	} {
		b := &blueprint{record: &record{Task: &caisson.Task{Module: text}, BaseDir: "/base"}, attempt: att}
		if got := b.module(); got != want {
			t.Errorf("%q lies at %q, want %q", text, got, want)
		}
	}
}

// TestCheckModule holds what is refused before the task is accepted.
func TestCheckModule(t *testing.T) {
	s, err := web.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	x := &Executor{stagers: map[string]stage.Stager{"http": s, "https": s}}
	for text, want := range map[string]caisson.Kind{
		"a.wasm": 0, "https://example.com/a": 0,
		"http://127.0.0.1/a":                   caisson.ErrDenied,
		"http://[::1]/a":                       caisson.ErrDenied,
		"http://169.254.169.254/a":             caisson.ErrDenied,
		"https://example.com/a#sha256=short":   caisson.ErrInvalid,
		"oci://Not A Name":                     caisson.ErrInvalid,
		"s3://bucket/a":                        caisson.ErrUnsupported,
		"oci://example.com/a:1":                caisson.ErrUnsupported, // there is no store
		"https://u:$ABSENT@example.com/a.wasm": caisson.ErrInvalid,
	} {
		err := x.checkModule(&record{Task: &caisson.Task{Module: text}}, nil)
		if caisson.KindOf(err) != want {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}
}
