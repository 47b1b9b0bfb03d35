//go:build unix

package run_test

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/component/run"
	"github.com/caissonrun/caisson/component/seal"
	"github.com/caissonrun/caisson/engine/mem"
)

// TestHostile holds what becomes of a run whose component leaves what is no
// data: the user's error, and nothing of the host in the storage.
func TestHostile(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "host-secret")
	if err := os.WriteFile(secret, []byte("\"a\"\n\"of the host\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		make   func(p *mem.Proc) error
		status int
		want   string
	}{
		"Link":     {func(p *mem.Proc) error { return p.Symlink(secret, "/data/out/tables/out.c-main.t") }, 1, "out.c-main.t"},
		"FIFO":     {func(p *mem.Proc) error { return p.Mkfifo("/data/out/tables/out.c-main.t") }, 1, "out.c-main.t"},
		"Manifest": {func(p *mem.Proc) error { return p.Symlink(secret, "/data/out/tables/out.c-main.t.manifest") }, 1, "manifest"},
		"Orphan":   {func(p *mem.Proc) error { return p.WriteFile("/data/out/tables/x.manifest", []byte("{}"), 0o644) }, 1, "x.manifest"},
		"State":    {func(p *mem.Proc) error { return p.Symlink(secret, "/data/out/state.json") }, 2, "state.json"},
		"Usage":    {func(p *mem.Proc) error { return p.Symlink(secret, "/data/out/usage.json") }, 2, "usage"},
		"NoFolder": {func(p *mem.Proc) error { return p.Rename("/data/out/tables", "/data/out/elsewhere") }, 0, ""},
		"LinkedFolder": {func(p *mem.Proc) error {
			if err := p.Rename("/data/out/tables", "/data/out/elsewhere"); err != nil {
				return err
			}
			return p.Symlink(filepath.Dir(secret), "/data/out/tables")
		}, 1, "tables"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.define("main", "", func(p *mem.Proc) int {
				if err := c.make(p); err != nil {
					fmt.Fprintln(p.Stderr(), err)
					return 77
				}
				return 0
			})
			r.config("main", "")
			got := r.run(nil)
			if got.Status != c.status {
				t.Errorf("status %d, want %d: %+v", got.Status, c.status, got.doc.Error)
			}
			if c.want != "" && (got.doc.Error == nil || !strings.Contains(got.doc.Error.Message, c.want)) {
				t.Errorf("error %+v, want one with %q", got.doc.Error, c.want)
			}
			if where := find(t, filepath.Join(r.dir, "conf", "storage"), "of the host"); where != "" {
				t.Errorf("%s has a file of the host", where)
			}
			r.clean()
		})
	}
}

// find returns a file below dir that holds text, or "".
func find(t *testing.T, dir, text string) (found string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), text) {
			found = path
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return found
}

// TestSecrets holds that a secret is plain inside of the component only.
func TestSecrets(t *testing.T) {
	const password, token, image = "correct horse battery", "token-of-the-state", "secret-of-the-image"
	r := newRig(t)
	keys := seal.Open(filepath.Join(r.dir, "key"))
	r.options.Keys = func(comp, configuration string) (run.Keys, error) {
		return keys.Box(seal.Scope{Project: "7", Component: comp, Configuration: configuration}, seal.Component)
	}
	sealed := func(plain string) string {
		box, err := r.options.Keys("main", "12")
		if err != nil {
			t.Fatal(err)
		}
		text, err := box.Seal(plain)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	r.define("main", fmt.Sprintf(`{"image_parameters": {"#own": %q}}`, sealed(image)), func(p *mem.Proc) int {
		config := read(p, "/data/config.json")
		if !strings.Contains(config, password) || !strings.Contains(config, image) {
			return 9
		}
		fmt.Fprintf(p.Stdout(), "plain %s\n", password)
		fmt.Fprintf(p.Stdout(), "base64 %s\n", base64.StdEncoding.EncodeToString([]byte(password)))
		fmt.Fprint(p.Stdout(), "cut "+password[:7])
		fmt.Fprint(p.Stdout(), password[7:]+"\n")
		fmt.Fprintf(p.Stderr(), "image %s, state %s\n", image, read(p, "/data/in/state.json"))
		put(p, "/data/out/state.json", `{"#token": "`+token+`", "#pin": 123456}`)
		put(p, "/data/out/usage.json", `[{"metric": "calls with `+token+`", "value": 123456}]`)
		put(p, "/data/out/result.json", `{"variables": {"token": "`+token+`", "`+token+`": "x"}}`)
		if strings.Contains(read(p, "/data/in/state.json"), token) {
			fmt.Fprintf(p.Stderr(), "failed with %s\n", password)
			return 1
		}
		return 0
	})
	r.config("main", fmt.Sprintf(`"parameters": {"#password": %q}`, sealed(password)))
	first := r.run(nil)
	if !first.Success {
		t.Fatalf("%+v, log %q", first.doc.Error, first.errs)
	}
	second := r.run(nil)
	if second.Status != 1 || !strings.Contains(second.doc.Error.Message, "failed with") {
		t.Errorf("status %d, %+v, want that the second run sees the first one's state", second.Status, second.doc.Error)
	}
	if !strings.Contains(first.out, "plain [redacted]") || !strings.Contains(first.out, "cut [redacted]") {
		t.Errorf("log = %q, want the place of the password", first.out)
	}
	for _, text := range []string{password, token, image} {
		for _, dir := range []string{"state", "conf", "runtime"} {
			if where := find(t, filepath.Join(r.dir, dir), text); where != "" {
				t.Errorf("%q is in %s", text, where)
			}
		}
		for _, log := range []string{first.out, first.errs, second.out, second.errs, string(second.Component)} {
			if strings.Contains(log, text) || strings.Contains(log, base64.StdEncoding.EncodeToString([]byte(text))) {
				t.Errorf("%q is in %q", text, log)
			}
		}
	}
	r.clean()
}
