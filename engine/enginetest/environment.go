package enginetest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func environmentCases() []Case {
	return []Case{
		{
			Name: "environment/values", Rules: []int{17, 20}, Needs: []string{"command"},
			Rule: "every variable of Spec.Env reaches the program byte for byte",
			body: environmentValues,
		},
		{
			Name: "environment/bad-names", Rules: []int{19, 21}, Needs: []string{"command"},
			Rule: "a name that is empty or has =, and what has NUL or is not UTF-8, are ErrInvalid; other names arrive",
			body: environmentNames,
		},
		{
			Name: "environment/nothing-of-the-host", Rules: []int{22}, Attacks: []int{40},
			Rule: "no variable of Caisson's own process reaches the program",
			body: environmentOfHost,
		},
		{
			Name: "environment/defaults", Rules: []int{22}, Needs: []string{"command"},
			Rule: "PATH, HOME, USER and TMPDIR are set and sane, and are the spec's where it sets them",
			body: environmentDefaults,
		},
		{
			Name: "environment/descriptors", Rules: []int{126}, Attacks: []int{2}, Needs: []string{isolation(engine.CleanDescriptors)},
			Rule: "the program has no descriptor but 0, 1 and 2, and stdin is empty",
			body: attacked("environment/descriptors"),
		},
		{
			Name: "environment/input", Rules: []int{64}, Needs: []string{"input"},
			Rule: "the program reads Spec.Input, all of it, and then its end; it need not read it",
			body: environmentInput,
		},
	}
}

func environmentInput(t *T) {
	for _, size := range []int{1, 5 << 10, 3 << 20} {
		spec := t.spec("hash")
		spec.Input = bytes.Repeat([]byte{'x', 0, '\n', 0xff}, size)[:size]
		b := t.start(spec)
		b.success()
		if got, want := b.stdout(), fmt.Sprintf("%d %x\n", size, sha256.Sum256(spec.Input)); got != want {
			t.Errorf("of %d bytes the program read %q, want %q", size, got, want)
		}
	}
	spec := t.spec("exit 0")
	spec.Input = make([]byte, 1<<20)
	t.start(spec).success()
}

func environmentValues(t *T) {
	values := map[string]string{
		"PLAIN": "Hello World", "EMPTY": "", "SPACES": "  a  ", "NEWLINE": "a\nb\n", "QUOTES": `'a' "b"`,
		"DOLLAR": "$HOME ${HOME} $(id) `id`", "EQUALS": "a=b=c", "PERCENT": "%s%n", "BACKSLASH": `\n\\`,
		"UTF8": "grüße 世界", "CONTROL": "\x01\x1b[31m\x7f", "LONG": strings.Repeat("0123456789abcdef", 4096-1),
	}
	spec := t.spec("report")
	spec.Env = values
	f := t.start(spec).facts()
	for name, want := range values {
		if got, ok := variable(f, name); got != want || !ok {
			t.Errorf("%s = %.80q, want %.80q", name, got, want)
		}
	}
}

func environmentNames(t *T) {
	for _, name := range []string{"", "=", "A=B", "=A", "A\x00", "\x00", "\xff"} {
		spec := t.spec("exit 0")
		spec.Env = map[string]string{name: "value"}
		err := t.refused(spec, caisson.ErrInvalid)
		if err != nil && strings.Contains(err.Error(), "value\"") {
			t.Errorf("the error has the variable's value: %v", err)
		}
	}
	for _, value := range []string{"a\x00b", "\xff\xfe"} {
		spec := t.spec("exit 0")
		spec.Env = map[string]string{"A": value}
		t.refused(spec, caisson.ErrInvalid)
	}

	names := []string{"1LEADING", "with-dash", "with.dot", "ünï", "lower", "LOWER", "a b"}
	spec := t.spec("report")
	spec.Env = make(map[string]string)
	for _, name := range names {
		spec.Env[name] = "value of " + name
	}
	f := t.start(spec).facts()
	for _, name := range names {
		if got, ok := variable(f, name); !ok || got != "value of "+name {
			t.Errorf("the variable %q is %q", name, got)
		}
	}
}

func environmentOfHost(t *T) {
	for _, name := range []string{"CAISSON_ENGINETEST", "AWS_SECRET_ACCESS_KEY", "LD_ENGINETEST"} {
		old, was := os.LookupEnv(name)
		os.Setenv(name, "of the host")
		t.after(func() {
			if os.Unsetenv(name); was {
				os.Setenv(name, old)
			}
		})
	}
	// What engines may add, besides what the spec has.
	known := []string{"PATH", "HOME", "USER", "TMPDIR", "LOGNAME", "SHELL", "PWD", "HOSTNAME", "LANG", "TERM"}
	f := t.launch("report").facts()
	for _, kv := range f.Env {
		name, value, _ := strings.Cut(kv, "=")
		if !slices.Contains(known, name) && !strings.HasPrefix(name, "CAISSON_") || value == "of the host" {
			t.Errorf("the program has %s", kv)
		}
	}
}

func environmentDefaults(t *T) {
	f := t.launch("report").facts()
	for _, name := range []string{"PATH", "HOME", "USER", "TMPDIR"} {
		value, ok := variable(f, name)
		if !ok || value == "" {
			t.Errorf("%s is not set", name)
		}
		for dir := range strings.SplitSeq(value, ":") {
			if name != "USER" && !path.IsAbs(dir) {
				t.Errorf("%s = %q has a relative folder", name, value)
			}
		}
	}
	home, _ := variable(f, "HOME")
	tmp, _ := variable(f, "TMPDIR")
	// The folder may be the host's own, with files of others.
	mine := fmt.Sprintf("%s/enginetest-%d", tmp, os.Getpid())
	t.launch("write", mine, "x", ";", "remove", mine, ";", "list", home).success()

	spec := t.spec("report")
	spec.Env = map[string]string{"PATH": "/mine", "HOME": "/tmp", "USER": "me", "TMPDIR": "/work"}
	f = t.start(spec).facts()
	for name, want := range spec.Env {
		if got, _ := variable(f, name); got != want {
			t.Errorf("%s = %q, want %q as the spec says", name, got, want)
		}
	}
}
