package seccomp

import (
	"slices"
	"testing"
)

// TestOutline compares the profile with what the filter is made of: nothing may
// be allowed that the filter refuses, but for single values of an argument.
func TestOutline(t *testing.T) {
	p := Outline()
	seen := map[string]int{}
	for _, list := range [][]string{p.Allowed, p.Missing} {
		for _, name := range list {
			seen[name]++
		}
	}
	for _, list := range [][]Argument{p.Masked, p.Only} {
		for _, a := range list {
			seen[a.Name]++
			if a.Mask == 0 && len(a.Values) == 0 {
				t.Errorf("%s is allowed whatever its argument", a.Name)
			}
		}
	}
	for name, n := range seen {
		listed := slices.Contains(allowed, name) || slices.Contains(absent, name) ||
			slices.ContainsFunc(conditions, func(c condition) bool { return c.name == name })
		if n != 1 || !listed {
			t.Errorf("%s is listed %d times, by the filter: %v", name, n, listed)
		}
	}
	if want := len(allowed) + len(absent) + len(conditions); len(seen) != want {
		t.Errorf("%d system calls, want %d", len(seen), want)
	}
	for _, name := range []string{"mount", "unshare", "setns", "bpf", "keyctl", "ptrace_attach", "io_uring_setup"} {
		if seen[name] > 0 {
			t.Errorf("%s is allowed", name)
		}
	}
}
