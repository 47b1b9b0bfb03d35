package oci

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func TestApply(t *testing.T) {
	const options = `{"command": "/bin/serve", "args": ["-v"], "group": "www", "net": ["front:IP=10.1.0.7;MAC=x", "back"],
		"dns_servers": ["192.0.2.1"], "dns_search_domains": ["example.org"], "port_map": {"dns": "53-udp"}}`
	c, err := readOptions(json.RawMessage(options))
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.apply(&engine.Spec{})
	want := &engine.Spec{
		Args: []string{"/bin/serve", "-v"}, Group: "www",
		Network: caisson.Network{Attach: []caisson.NetworkAttach{
			{Name: "front", Args: map[string]string{"IP": "10.1.0.7", "MAC": "x"}}, {Name: "back"},
		}},
		DNS:   &caisson.DNS{Servers: []string{"192.0.2.1"}, Search: []string{"example.org"}},
		Ports: []caisson.Port{{Port: 53, Protocol: "udp"}},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("apply: %v (-want +got)\n%s", err, diff)
	}
}

func TestApplyErrors(t *testing.T) {
	tests := []struct{ name, options, item string }{
		{"Unknown", `{"comand": "x"}`, "comand"},
		{"Twice", `{} {}`, "more than one"},
		{"Port", `{"port_map": {"a": "80-sctp"}}`, "80-sctp"},
		{"PortNumber", `{"port_map": {"a": 65536}}`, "65536"},
		{"HostAndMore", `{"net": ["host", "front"]}`, "alone"},
		{"NoName", `{"net": [":IP=1"]}`, "want NAME"},
		{"Argument", `{"net": ["front:IP"]}`, "ARG=VALUE"},
		{"Ulimit", `{"ulimits": {"nofile": {"soft": 2, "hard": 1}}}`, "beyond hard"},
		{"Size", `{"shm_size": "many"}`, "many"},
		{"NetTwice", `{"net": ["front"]}`, "network is set"},
		{"DNSTwice", `{"dns_servers": ["192.0.2.1"]}`, "dns is set"},
		{"GroupTwice", `{"group": "b"}`, "group is set"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := readOptions(json.RawMessage(test.options))
			if err == nil {
				s := &engine.Spec{Group: "a", DNS: &caisson.DNS{}}
				if test.name == "NetTwice" {
					s.Network.Mode = "other"
				}
				_, err = c.apply(s)
			}
			if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), test.item) {
				t.Errorf("%v, want ErrInvalid that says %q", err, test.item)
			}
		})
	}
}

func TestWeakened(t *testing.T) {
	open, closed := &Options{AllowInsecure: true}, &Options{}
	for name, want := range map[string]int{"none": 0, "image": 0, "tls": 0, "all-fetch": 0, "seccomp": 1, "paths": 1, "all-run": 3, "all": 3} {
		c := &choice{InsecureOptions: []string{name}}
		if off, err := c.weakened(open); err != nil || len(off) != want {
			t.Errorf("%s = %v, %v, want %d", name, off, err, want)
		}
		if _, err := c.weakened(closed); (err != nil) != (want > 0) || err != nil && !errors.Is(err, caisson.ErrDenied) {
			t.Errorf("%s without the operator's permission = %v", name, err)
		}
	}
	if _, err := (&choice{InsecureOptions: []string{"everything"}}).weakened(open); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("an unknown one = %v", err)
	}
}

func TestCapsFor(t *testing.T) {
	o := &Options{AllowCaps: []string{"net_admin"}}
	has := func(c *choice, uid int, name string) bool {
		list, err := capsFor(o, c, uid, false)
		if err != nil {
			t.Fatal(err)
		}
		n, _ := capability(name)
		return slices.Contains(list, n)
	}
	if list, err := capsFor(o, &choice{}, 1000, true); err != nil || len(list) != 0 {
		t.Errorf("somebody who is not root has %v, %v", list, err)
	}
	switch {
	case !has(&choice{}, 0, "CAP_CHOWN"), has(&choice{}, 0, "NET_ADMIN"), has(&choice{}, 0, "SYS_ADMIN"):
		t.Error("root has not what it has with Docker")
	case !has(&choice{CapAdd: []string{"CAP_NET_ADMIN"}}, 0, "net_admin"):
		t.Error("a capability that the operator permits was not added")
	case has(&choice{CapDrop: []string{"chown"}}, 0, "CHOWN"), has(&choice{CapDrop: []string{"ALL"}}, 0, "KILL"):
		t.Error("a capability was not dropped")
	}
	for _, test := range []struct {
		c    choice
		uid  int
		kind caisson.Kind
	}{
		{choice{CapAdd: []string{"SYS_ADMIN"}}, 0, caisson.ErrDenied},
		{choice{CapAdd: []string{"ALL"}}, 0, caisson.ErrInvalid},
		{choice{CapAdd: []string{"NET_ADMIN"}}, 1000, caisson.ErrUnsupported},
		{choice{CapDrop: []string{"nosuch"}}, 0, caisson.ErrInvalid},
	} {
		if list, err := capsFor(o, &test.c, test.uid, false); !errors.Is(err, test.kind) {
			t.Errorf("%+v = %v, %v, want %v", test.c, list, err, test.kind)
		}
	}
	raw, _ := capability("NET_RAW")
	if list, err := guestCaps(&choice{}, []int{0, raw}); err != nil || !slices.Equal(list, []int{0}) {
		t.Errorf("root has %v, %v with gVisor", list, err)
	}
	if _, err := guestCaps(&choice{CapAdd: []string{"cap_net_raw"}}, nil); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("raw sockets with gVisor = %v, want ErrUnsupported", err)
	}
	// The numbers are the kernel's.
	if n, _ := capability("SYS_ADMIN"); n != 21 {
		t.Errorf("SYS_ADMIN is %d", n)
	}
	if n, _ := capability("CHECKPOINT_RESTORE"); n != 40 {
		t.Errorf("CHECKPOINT_RESTORE is %d", n)
	}
}

func TestVolumes(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	work, data := filepath.Join(base, "work"), filepath.Join(base, "data")
	for _, dir := range []string{work, data, filepath.Join(work, "sub")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("/etc", filepath.Join(work, "link")), os.Symlink(data, filepath.Join(base, "way"))); err != nil {
		t.Fatal(err)
	}
	closed, open := &Options{}, &Options{Volumes: true}
	tests := []struct {
		name, text string
		o          *Options
		want       engine.Mount
		kind       caisson.Kind
	}{
		{"Relative", "sub:/in", closed, engine.Mount{Type: "bind", Source: work + "/sub", Target: "/in", Owned: true}, 0},
		{"RelativeDot", "./sub/:/in:ro", closed, engine.Mount{Type: "bind", Source: work + "/sub", Target: "/in", Owned: true, ReadOnly: true}, 0},
		{"Absolute", data + ":/in:readOnly", open, engine.Mount{Type: "bind", Source: data, Target: "/in", ReadOnly: true}, 0},
		{"AbsoluteLink", base + "/way:/in", open, engine.Mount{Type: "bind", Source: data, Target: "/in"}, 0},
		{"ErrAbsolute", data + ":/in", closed, engine.Mount{}, caisson.ErrDenied},
		{"ErrUp", "../data:/in", open, engine.Mount{}, caisson.ErrDenied},
		{"ErrUpLater", "sub/../../data:/in", closed, engine.Mount{}, caisson.ErrDenied},
		{"ErrLink", "link:/in", closed, engine.Mount{}, caisson.ErrDenied},
		{"ErrBelowLink", "link/ssl:/in", closed, engine.Mount{}, caisson.ErrUnknown},
		{"ErrAbsent", "nosuch:/in", closed, engine.Mount{}, caisson.ErrNotFound},
		{"ErrOption", "sub:/in:rw,shared", closed, engine.Mount{}, caisson.ErrInvalid},
		{"ErrParts", "sub", closed, engine.Mount{}, caisson.ErrInvalid},
		{"ErrEmpty", ":/in", closed, engine.Mount{}, caisson.ErrInvalid},
		{"ErrTarget", "sub:/proc/x", closed, engine.Mount{}, caisson.ErrInvalid},
		{"ErrRelativeTarget", "sub:in", closed, engine.Mount{}, caisson.ErrInvalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &engine.Spec{ID: "x", Dir: "/d", Log: "/l", Work: work, Args: []string{"true"}}
			list, err := test.o.volumes(&choice{Volumes: []string{test.text}}, s)
			if test.want.Type == "" {
				if err == nil || test.kind != caisson.ErrUnknown && !errors.Is(err, test.kind) {
					t.Errorf("volumes = %+v, %v, want %v", list, err, test.kind)
				}
				return
			}
			if diff := cmp.Diff([]engine.Mount{test.want}, list); err != nil || diff != "" {
				t.Errorf("volumes: %v (-want +got)\n%s", err, diff)
			}
		})
	}
}

func TestDevices(t *testing.T) {
	o := &Options{AllowDevices: []string{"/dev/fuse", "/dev/dri"}}
	for source, permitted := range map[string]bool{
		"/dev/fuse": true, "/dev/dri/card0": true, "/dev/dri/../mem": false, "/dev/mem": false, "/dev/fuse2": false, "/etc/passwd": false,
	} {
		list, err := o.devices([]caisson.Device{{Source: source, Permissions: "r"}})
		if permitted && (err != nil || len(list) != 1 || list[0].Target != source || !list[0].ReadOnly) || !permitted && !errors.Is(err, caisson.ErrDenied) {
			t.Errorf("devices(%q) = %+v, %v", source, list, err)
		}
	}
	if _, err := o.devices([]caisson.Device{{Source: "/dev/fuse", Permissions: "rwm"}}); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("a device that can be made = %v", err)
	}
}
