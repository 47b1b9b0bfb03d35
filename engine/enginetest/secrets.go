package enginetest

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func secretCases() []Case {
	needs := []string{"secrets"}
	return []Case{
		{
			Name: "secrets/env", Rules: []int{24}, Needs: needs,
			Rule: "a secret reaches the program as a variable, and its value is not in the log",
			body: secretInEnv,
		},
		{
			Name: "secrets/file", Rules: []int{24}, Needs: needs, wants: []facility{rooted},
			Rule: "a secret reaches the program as a file",
			body: secretInFile,
		},
		{
			Name: "secrets/once", Rules: []int{24}, Needs: needs, wants: []facility{rooted},
			Rule: "a secret that may be read once is gone after its first read, or the spec is refused",
			body: secretOnce,
		},
		{
			Name: "secrets/not-on-disk", Rules: []int{24}, Attacks: []int{40}, Needs: needs,
			Rule: "a secret's value is in no file of the engine's, in no argument list and in no error",
			body: secretNowhere,
		},
		{
			Name: "secrets/redacted", Rules: []int{24}, Attacks: []int{41}, Needs: needs,
			Rule: "a secret's value, and its base64, URL and JSON forms, are not in the log, however they are cut into writes; all else is",
			body: secretRedacted,
		},
	}
}

// secretValue is nothing that anything else prints.
const secretValue = "Zq8+w/\"x41&~s3cr3t"

func secretInEnv(t *T) {
	spec := t.spec("report")
	spec.Secrets = []engine.Secret{{Name: "TOKEN", Value: []byte("0123456789"), As: caisson.SecretEnv}}
	b := t.start(spec)
	if value, ok := variable(b.facts(), "TOKEN"); !ok || strings.Contains(b.stdout(), "0123456789") || value == "" {
		t.Errorf("the variable is %q (%v), or its value is in the log: %q", value, ok, b.stdout())
	}
}

func secretInFile(t *T) {
	// Redaction hides the values in the log, so the program tells lengths.
	spec := t.spec("lengths TOKEN /run/secrets/KEY")
	spec.Secrets = []engine.Secret{
		{Name: "TOKEN", Value: []byte("0123456789"), As: caisson.SecretEnv},
		{Name: "KEY", Value: []byte("abcdef\nghijkl"), As: caisson.SecretFile},
	}
	b := t.start(spec)
	b.success()
	if out := b.stdout(); out != "10 13\n" {
		t.Errorf("the secrets have lengths %q, want 10 and 13", out)
	}
}

func secretOnce(t *T) {
	const file = "/run/secrets/KEY"
	spec := t.spec("lengths", "PATH", file, ";", "try", "read", file)
	spec.Secrets = []engine.Secret{{Name: "KEY", Value: []byte("abcdef"), As: caisson.SecretFile, Once: true}}
	b := t.startUnless(spec, caisson.ErrUnsupported)
	if b == nil {
		return
	}
	b.success()
	out := lines(b.stdout())
	if !strings.HasSuffix(out[0], " 6") {
		t.Errorf("the first read has %q, want 6 bytes", out[0])
	}
	if len(out) != 2 || !strings.HasPrefix(out[1], "read E") {
		t.Errorf("the second read gives %q", out[1:])
	}
}

func secretNowhere(t *T) {
	spec := t.spec("say ready ; hold")
	spec.Secrets = []engine.Secret{
		{Name: "TOKEN", Value: []byte(secretValue), As: caisson.SecretEnv},
		{Name: "HIDDEN", Value: []byte(secretValue)},
	}
	if !t.h.HostPaths {
		spec.Secrets = append(spec.Secrets, engine.Secret{Name: "KEY", Value: []byte(secretValue), As: caisson.SecretFile})
	}
	b := t.start(spec)
	b.says("ready")
	for _, dir := range append([]string{spec.Dir, t.tmp}, filepath.Dir(spec.Log)) {
		t.absent(dir, secretValue)
	}
	for _, arguments := range commandLines() {
		if bytes.Contains(arguments, []byte(secretValue)) {
			t.Errorf("an argument list has the secret: %q", arguments)
		}
	}
	bad := t.spec("hold")
	bad.Secrets = []engine.Secret{{Name: "A=B", Value: []byte(secretValue), As: caisson.SecretEnv}}
	if err := t.refused(bad, caisson.ErrInvalid); err != nil && strings.Contains(err.Error(), secretValue) {
		t.Errorf("the error has the secret: %v", err)
	}
}

// absent checks that no regular file below dir has a text in it.
func (t *T) absent(dir, text string) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if found, err := inFile(path, text); err == nil && found {
			t.Errorf("%s has the secret", path)
		}
		return nil
	})
	t.ok(err, "WalkDir")
}

// inFile reports whether a file, which may be a disk with large holes, has a text in
// it.
func inFile(path, text string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	const piece = 1 << 20
	overlap := int64(len(text))
	buffer := make([]byte, piece+overlap)
	for at := int64(0); ; {
		if at, err = nextData(f, at); err != nil {
			return false, err
		}
		n, err := f.ReadAt(buffer, max(at-overlap, 0))
		if bytes.Contains(buffer[:n], []byte(text)) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		at = max(at-overlap, 0) + int64(n)
	}
}

// commandLines returns the arguments of all processes of the host.
func commandLines() [][]byte {
	var all [][]byte
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil {
			all = append(all, data)
		}
	}
	return all
}

func secretRedacted(t *T) {
	forms := []string{
		secretValue, base64.StdEncoding.EncodeToString([]byte(secretValue)),
		url.QueryEscape(secretValue), strings.ReplaceAll(secretValue, `"`, `\"`),
	}
	args := []string{"say", "before", ";"}
	for _, form := range forms {
		args = append(args, "say", form, ";", "warn", form, ";", "split", form, ";")
	}
	spec := t.spec(append(args, "say", "after")...)
	spec.Secrets = []engine.Secret{{Name: "HIDDEN", Value: []byte(secretValue)}}
	b := t.start(spec)
	b.success()
	for _, form := range forms {
		if strings.Contains(b.stdout()+b.stderr(), form) {
			t.Errorf("the log has the secret as %q", form)
		}
	}
	out := lines(b.stdout())
	if out[0] != "before" || out[len(out)-1] != "after" {
		t.Errorf("the log lost what is not secret: %q", out)
	}
}
