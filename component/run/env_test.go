//go:build unix

package run_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/run"
	"github.com/caissonrun/caisson/component/seal"
	"github.com/caissonrun/caisson/engine/mem"
)

// TestSecretVariables holds that a token and injected secrets are in the step's
// environment and its config.json, and in no document, no log and no folder on
// disk.
func TestSecretVariables(t *testing.T) {
	const token, password = "token-of-the-project", "correct horse battery"
	r := newRig(t)
	keys := seal.Open(filepath.Join(r.dir, "key"))
	r.options.Keys = func(comp, configuration string) (run.Keys, error) {
		return keys.Box(seal.Scope{Project: "7", Component: comp, Configuration: configuration}, seal.Component)
	}
	r.options.Project.Token, r.options.Project.URL = func() (string, error) { return token, nil }, "https://localhost"
	box, err := r.options.Keys("main", "12")
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := box.Seal(password)
	if err != nil {
		t.Fatal(err)
	}
	where := ""
	r.define("main", `{"forward_token": true, "inject_environment": true}`, func(p *mem.Proc) int {
		where = find(t, filepath.Join(r.dir, "state"), token) + find(t, filepath.Join(r.dir, "state"), password)
		fmt.Fprintf(p.Stdout(), "%s %s %s\n", p.Getenv("KBC_TOKEN"), p.Getenv("KBC_PARAMETER__PASSWORD"), p.Getenv("KBC_PARAMETER_PLAIN"))
		if p.Getenv("KBC_TOKEN") != token || p.Getenv("KBC_PARAMETER__PASSWORD") != password || p.Getenv("KBC_PARAMETER__PIN") != "123" {
			return 9
		}
		return 0
	})
	pin, err := box.Seal("123") // too short for a secret that could be found
	if err != nil {
		t.Fatal(err)
	}
	r.config("main", fmt.Sprintf(`"parameters": {"#password": %q, "#pin": %q, "plain": "seen"}`, sealed, pin))
	got := r.run(nil)
	if !got.Success || got.out != "[redacted] [redacted] seen\n" {
		t.Errorf("%+v, log %q", got.doc.Error, got.out)
	}
	if where != "" {
		t.Errorf("while it ran a secret was in %s", where)
	}
	for _, text := range []string{token, password} {
		if where := find(t, filepath.Join(r.dir, "state"), text); where != "" || strings.Contains(string(got.Component), text) {
			t.Errorf("%q is in %s or in the result", text, where)
		}
	}
	r.clean()
}

// TestVaultVariables holds that a value of the vault that stands in the middle of
// a parameter is in no document on disk either, where that is injected.
func TestVaultVariables(t *testing.T) {
	const password = "correct-horse-battery"
	r := newRig(t)
	r.options.Vault = func(component.Unsealer) (map[string]string, []string, error) {
		return map[string]string{"password": password}, []string{password}, nil
	}
	where := ""
	r.define("main", `{"inject_environment": true}`, func(p *mem.Proc) int {
		where = find(t, filepath.Join(r.dir, "state"), password)
		fmt.Fprintln(p.Stdout(), p.Getenv("KBC_PARAMETER_URL"))
		if p.Getenv("KBC_PARAMETER_URL") != "https://me:"+password+"@host" {
			return 9
		}
		return 0
	})
	r.config("main", `"parameters": {"url": "https://me:{{ vault.password }}@host"}`)
	got := r.run(nil)
	if !got.Success || strings.Contains(got.out, password) {
		t.Errorf("%+v, log %q", got.doc.Error, got.out)
	}
	if where += find(t, filepath.Join(r.dir, "state"), password); where != "" {
		t.Errorf("the password is in %s", where)
	}
}
