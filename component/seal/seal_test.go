package seal_test

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/seal"
)

func box(t testing.TB, k *seal.Keys, s seal.Scope, level seal.Level) *seal.Box {
	t.Helper()
	b, err := k.Box(s, level)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSeal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sub", "component.key")
	keys := seal.Open(file)
	home := seal.Scope{Project: "p", Component: "c", Configuration: "1"}
	for _, level := range []seal.Level{seal.Project, seal.Component, seal.Configuration} {
		for _, plain := range []string{"secret", "", "é\n\x00\"<>", strings.Repeat("x", 100_000)} {
			b := box(t, keys, home, level)
			sealed, err := b.Seal(plain)
			if err != nil {
				t.Fatal(err)
			}
			if plain != "" && strings.Contains(sealed, plain) || !component.IsSealed(sealed) {
				t.Errorf("Seal(%.10q) = %.40q", plain, sealed)
			}
			if again, _ := b.Seal(sealed); again != sealed {
				t.Error("a sealed value was sealed again")
			}
			got, err := box(t, seal.Open(file), home, seal.Project).Unseal("x", sealed)
			if err != nil || got != plain {
				t.Errorf("Unseal = %.10q, %v, want %.10q", got, err, plain)
			}
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file %v, %v, want mode 0600", info, err)
	}
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the key file: %v, %v", entries, err)
	}
}

// TestScopes checks that a value that is sealed for one scope does not open in
// another.
func TestScopes(t *testing.T) {
	keys := seal.Open(filepath.Join(t.TempDir(), "key"))
	home := seal.Scope{Project: "p", Component: "c", Configuration: "1"}
	scopes := map[string]seal.Scope{
		"home": home, "other configuration": {Project: "p", Component: "c", Configuration: "2"}, "no configuration": {Project: "p", Component: "c"},
		"other component": {Project: "p", Component: "d", Configuration: "1"}, "no component": {Project: "p"},
		"other project": {Project: "q", Component: "c", Configuration: "1"},
	}
	opens := map[seal.Level][]string{
		seal.Project:       {"home", "other configuration", "no configuration", "other component", "no component"},
		seal.Component:     {"home", "other configuration", "no configuration"},
		seal.Configuration: {"home"},
	}
	for level, names := range opens {
		sealed, err := box(t, keys, home, level).Seal("hunter2x")
		if err != nil {
			t.Fatal(err)
		}
		for name, scope := range scopes {
			want := false
			for _, n := range names {
				want = want || n == name
			}
			// The name of the scope outside means nothing.
			for _, claimed := range []seal.Level{seal.Project, seal.Component, seal.Configuration} {
				text := component.SealedPrefix + string(claimed) + sealed[strings.LastIndexByte(sealed, ':'):]
				got, err := box(t, keys, scope, seal.Project).Unseal("x", text)
				switch {
				case want && (err != nil || got != "hunter2x"):
					t.Errorf("%s in %s: %v, want it open", level, name, err)
				case !want && (!errors.Is(err, caisson.ErrInvalid) || got != "" || !strings.Contains(err.Error(), "another")):
					t.Errorf("%s in %s: %q, %v, want ErrInvalid", level, name, got, err)
				}
			}
		}
	}
}

func TestUnsealErr(t *testing.T) {
	dir := t.TempDir()
	keys := seal.Open(filepath.Join(dir, "key"))
	home := seal.Scope{Project: "p", Component: "c"}
	b := box(t, keys, home, seal.Component)
	sealed, err := b.Seal("hunter2x")
	if err != nil {
		t.Fatal(err)
	}
	data, err := base64.RawURLEncoding.DecodeString(sealed[strings.LastIndexByte(sealed, ':')+1:])
	if err != nil {
		t.Fatal(err)
	}
	prefix := component.SealedPrefix + "component:"
	for i := range data { // a bit anywhere
		damaged := append([]byte{}, data...)
		damaged[i] ^= 1
		if got, err := b.Unseal("x", prefix+base64.RawURLEncoding.EncodeToString(damaged)); !errors.Is(err, caisson.ErrInvalid) || got != "" {
			t.Fatalf("byte %d changed: %q, %v", i, got, err)
		}
	}
	for _, text := range []string{"", "plain", component.SealedPrefix, prefix, prefix + "!!", sealed[:len(sealed)-4], prefix + "AAAA"} {
		if got, err := b.Unseal("x", text); !errors.Is(err, caisson.ErrInvalid) || got != "" {
			t.Errorf("Unseal(%.30q) = %q, %v", text, got, err)
		}
	}
	t.Run("OtherKey", func(t *testing.T) {
		other := seal.Open(filepath.Join(dir, "other"))
		if _, err := box(t, other, home, seal.Component).Unseal("x", sealed); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("no key file: %v, want ErrNotFound", err)
		}
		if _, err := box(t, other, home, seal.Component).Seal("x"); err != nil {
			t.Fatal(err)
		}
		if _, err := box(t, other, home, seal.Component).Unseal("x", sealed); !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), "another key") {
			t.Errorf("another key: %v, want ErrInvalid", err)
		}
	})
}

func TestKeyFile(t *testing.T) {
	home := seal.Scope{Project: "p"}
	t.Run("Rotation", func(t *testing.T) {
		dir := t.TempDir()
		old, young := filepath.Join(dir, "old"), filepath.Join(dir, "young")
		sealed, err := box(t, seal.Open(old), home, seal.Project).Seal("x1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := box(t, seal.Open(young), home, seal.Project).Seal("x"); err != nil {
			t.Fatal(err)
		}
		a, _ := os.ReadFile(young)
		b, _ := os.ReadFile(old)
		if err := os.WriteFile(young, append(a, b...), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := box(t, seal.Open(young), home, seal.Project).Unseal("x", sealed); err != nil || got != "x1" {
			t.Errorf("Unseal with an older key = %q, %v", got, err)
		}
		newer, err := box(t, seal.Open(young), home, seal.Project).Seal("y1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := box(t, seal.Open(old), home, seal.Project).Unseal("x", newer); err == nil {
			t.Error("the older key still seals")
		}
	})
	t.Run("ErrMode", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "key")
		if _, err := box(t, seal.Open(file), home, seal.Project).Seal("x"); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := box(t, seal.Open(file), home, seal.Project).Seal("x"); !errors.Is(err, caisson.ErrDenied) {
			t.Errorf("Seal with a key that others read = %v, want ErrDenied", err)
		}
	})
	t.Run("ErrContents", func(t *testing.T) {
		for _, text := range []string{"", "# nothing\n", "AGE-SECRET-KEY-1HUNTER2X\n", strings.Repeat("#\n", 1<<16)} {
			file := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := box(t, seal.Open(file), home, seal.Project).Seal("x")
			if !errors.Is(err, caisson.ErrInvalid) || strings.Contains(err.Error(), "HUNTER2X") {
				t.Errorf("key file %.20q: %v, want ErrInvalid", text, err)
			}
			if after, _ := os.ReadFile(file); string(after) != text {
				t.Errorf("key file %.20q was changed", text)
			}
		}
	})
	t.Run("MadeAtOnce", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "key")
		var wg sync.WaitGroup
		sealed := make([]string, 8)
		for i := range sealed {
			wg.Go(func() {
				b, err := seal.Open(file).Box(home, seal.Project)
				if err == nil {
					sealed[i], err = b.Seal("x")
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, s := range sealed {
			if got, err := box(t, seal.Open(file), home, seal.Project).Unseal("x", s); err != nil || got != "x" {
				t.Errorf("Unseal = %q, %v", got, err)
			}
		}
	})
}

func TestBoxErr(t *testing.T) {
	keys := seal.Open("x")
	for _, test := range []struct {
		scope seal.Scope
		level seal.Level
	}{
		{seal.Scope{}, seal.Project},
		{seal.Scope{Project: "p"}, seal.Component},
		{seal.Scope{Project: "p", Component: "c"}, seal.Configuration},
		{seal.Scope{Project: "p", Configuration: "1"}, seal.Configuration},
		{seal.Scope{Project: "p"}, "stack"},
	} {
		if _, err := keys.Box(test.scope, test.level); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Box(%+v, %s) = %v, want ErrInvalid", test.scope, test.level, err)
		}
	}
}
