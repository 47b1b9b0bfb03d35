package cgroup_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/cgroup"
)

// TestDevices has programs of root, whom no permission of a file keeps out.
func TestDevices(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may bound devices")
	}
	g := create(t, cgroup.Limits{Devices: []cgroup.Device{
		{Major: 1, Minor: 3},                 // null
		{Major: 1, Minor: 5, ReadOnly: true}, // zero
		{Major: 5, AnyMinor: true},           // tty and ptmx
	}})
	_, wait := start(t, g, `
		try() { if (eval "$2") 2>/dev/null; then echo "$1 yes"; else echo "$1 no"; fi; }
		try null ': >>/dev/null'
		try 'null, reading' ': </dev/null'
		try 'zero, writing' ': >>/dev/zero'
		try 'zero, both' ': <>/dev/zero'
		try 'zero, reading' ': </dev/zero'
		try full ': </dev/full'
		try urandom ': </dev/urandom'
		try ptmx ': </dev/ptmx'
	`)
	_, out := wait()
	const want = "null yes, null, reading yes, zero, writing no, zero, both no, zero, reading yes, full no, urandom no, ptmx yes"
	if got := strings.ReplaceAll(strings.TrimSpace(out), "\n", ", "); got != want {
		t.Errorf("devices: %s\nwant     %s", got, want)
	}
}

// TestNoDevices has none at all: that is not the same as no rules.
func TestNoDevices(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may bound devices")
	}
	_, wait := start(t, create(t, cgroup.Limits{Devices: []cgroup.Device{}}), `(: </dev/full) && echo opened; (: </dev/null) && echo opened; :`)
	if _, out := wait(); strings.Contains(out, "opened") {
		t.Errorf("with no device allowed: %s", out)
	}
}

func TestBadDevices(t *testing.T) {
	needGroups(t)
	for _, d := range []cgroup.Device{{Major: 1 << 12}, {Minor: 1 << 20}} {
		if g, err := cgroup.Create(name(t), cgroup.Limits{Devices: []cgroup.Device{d}}); !errors.Is(err, caisson.ErrUnsupported) {
			t.Errorf("Create with %+v = %v, %v, want ErrUnsupported", d, g, err)
		}
		if _, err := cgroup.Open(name(t)); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("a group is left: %v", err)
		}
	}
}
