//go:build unix

package run_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/run"
	"github.com/caissonrun/caisson/component/seal"
)

// TestBuilderSecrets holds that the password of a repository is in memory only
// while an image is built, and that nobody is told of it where that fails.
func TestBuilderSecrets(t *testing.T) {
	const password = "correct-horse-battery"
	r := newRig(t)
	keys := seal.Open(filepath.Join(r.dir, "key"))
	r.options.Keys = func(comp, configuration string) (run.Keys, error) {
		return keys.Box(seal.Scope{Project: "7", Component: comp, Configuration: configuration}, seal.Component)
	}
	box, err := r.options.Keys("main", "12")
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := box.Seal(password)
	if err != nil {
		t.Fatal(err)
	}
	built := ""
	r.options.Build = func(_ context.Context, b *component.Build, dir string, output io.Writer) (string, error) {
		built = dir
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) > 0 {
			t.Errorf("the build's folder has %v, %v, want an empty one", entries, err)
		}
		if len(b.Files) != 2 {
			t.Errorf("the build has %d files, want the Dockerfile and git's credentials", len(b.Files))
		}
		for name, data := range b.Files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Error(err)
			}
		}
		fmt.Fprintf(output, "KBC::USER_ERR:git can't log in with %s KBC::USER_ERR", password)
		return "", errors.New("exit status 1")
	}
	r.define("main", fmt.Sprintf(`{"definition": {"type": "builder", "uri": "parent", "build_options": {
		"parent_type": "dockerhub", "repository": {"uri": "https://example.com/a.git", "username": "me", "#password": %q},
		"commands": ["git clone {{repository}}"], "entry_point": "true"}}}`, sealed), nil)
	r.config("main", "")
	got := r.run(nil)
	if got.Status != 1 || got.doc.Error == nil || !strings.Contains(got.doc.Error.Message, "can't log in with [redacted]") {
		t.Errorf("status %d, %+v, want what the build says, without the password", got.Status, got.doc.Error)
	}
	if rel, err := filepath.Rel(filepath.Join(r.dir, "runtime"), built); err != nil || !filepath.IsLocal(rel) {
		t.Errorf("it was built in %s, want a folder in the runtime folder", built)
	}
	for _, dir := range []string{"state", "runtime", "conf"} {
		if where := find(t, filepath.Join(r.dir, dir), password); where != "" {
			t.Errorf("the password is in %s", where)
		}
	}
	r.clean()
}
