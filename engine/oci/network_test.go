//go:build unix

package oci_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/oci"
	"github.com/caissonrun/caisson/internal/network/networktest"
)

// networks is a folder with the configurations of two bridges that nobody else
// has, "lan" and "store", and options for an engine that finds them. Its plugins
// are those of Debian's containernetworking-plugins, see scripts/setup.
func networks(t *testing.T) (opts oci.Options, subnet string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make network namespaces that sandboxes have no rights over")
	}
	opts = oci.Options{Runtime: filepath.Join(t.TempDir(), "run"), Installation: fmt.Sprintf("net%d", os.Getpid())}
	t.Cleanup(func() {
		if left, _ := os.ReadDir(opts.Runtime); len(left) > 0 {
			t.Errorf("the runtime folder has %s", left[0].Name())
		}
	})
	opts.CNIConfigDir, subnet = networktest.Bridges(t)
	return opts, subnet
}

// waitFor waits until a program has printed a line.
func waitFor(t *testing.T, s *engine.Spec, line string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(output(t, s), line); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not say %q: %q", line, output(t, s))
		}
	}
}

func TestNamedNetworks(t *testing.T) {
	opts, subnet := networks(t)
	root, e := newRoot(t), newEngine(t, opts)
	f, err := e.Probe(t.Context())
	if err != nil || !f.Networks.Named || !f.Networks.Shared || !f.Ports || !f.Networks.Default {
		t.Fatalf("Probe: networks %+v, ports %v, %+v, %v", f.Networks, f.Ports, f.Missing, err)
	}

	// A server on two networks, with a port on the host.
	server := newSpec(t, root, `echo hello >/work/page; cat /etc/hosts /etc/resolv.conf; ls /sys/class/net
		busybox ip link set eth0 down || busybox ip addr add 192.0.2.77/32 dev lo || echo powerless; busybox httpd -p 8080 -h /work && sleep 1000`)
	server.Network.Attach = []caisson.NetworkAttach{
		{Name: "lan", Args: map[string]string{"IP": subnet + ".9"}, Aliases: []string{"web"}}, {Name: "store"},
	}
	server.Ports = []caisson.Port{{Port: 8080}}
	server.Hostname = "server"
	box := create(t, e, server)
	if _, err := box.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, err := e.Networks(t.Context(), server.Dir)
	if err != nil || len(list) != 2 {
		t.Fatalf("Networks = %+v, %v", list, err)
	}
	lan, store := list[0], list[1]
	if lan.Name != "lan" || lan.Interface != "eth0" || len(lan.Addresses) != 1 || lan.Addresses[0] != subnet+".9/24" ||
		lan.Config != filepath.Join(opts.CNIConfigDir, "lan.conflist") || filepath.Base(lan.Plugin) != "bridge" ||
		lan.Args["IP"] != subnet+".9" || len(lan.Ports) != 1 || lan.MAC == "" {
		t.Errorf("the first network: %+v", lan)
	}
	if store.Name != "store" || store.Interface != "eth1" || len(store.Addresses) != 1 || len(store.Ports) != 0 {
		t.Errorf("the second network: %+v", store)
	}
	waitFor(t, server, "powerless")
	for _, want := range []string{subnet + ".9 server\n", subnet + ".9 web\n", "nameserver " + subnet + ".1\n", "search lan.example\n", "eth0", "eth1"} {
		if !strings.Contains(output(t, server), want) {
			t.Errorf("inside there is no %q: %s", want, output(t, server))
		}
	}

	// From the host by its port, from a neighbour by its address, and not by
	// one that is on no network.
	var page string
	for end := time.Now().Add(time.Minute); page != "hello\n" && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/page", lan.Ports[0].HostPort)); err == nil {
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			page = string(text)
		}
	}
	if page != "hello\n" {
		t.Errorf("the port answers %q", page)
	}
	get := fmt.Sprintf(`printf "GET /page HTTP/1.0\r\n\r\n" | busybox nc -w 5 %s.9 8080 | busybox tail -n 1`, subnet)
	near := newSpec(t, root, get)
	near.Network.Mode = "lan"
	if exit, out := run(t, e, near); exit.Status() != 0 || out != "hello\n" {
		t.Errorf("a neighbour reads %q: %+v", out, exit)
	}
	if exit, out := run(t, e, newSpec(t, root, get)); strings.Contains(out, "hello") {
		t.Errorf("from no network it reads %q, %+v", out, exit)
	}

	// The port is taken; nothing of who asks for it is left.
	again := newSpec(t, root, "true")
	again.Network.Mode, again.Ports = "lan", []caisson.Port{{Port: 80, HostPort: lan.Ports[0].HostPort}}
	if _, err := e.Create(t.Context(), again); !errors.Is(err, caisson.ErrExists) || !strings.Contains(err.Error(), fmt.Sprint(lan.Ports[0].HostPort)) {
		t.Errorf("Create = %v, want ErrExists that names the port", err)
	}
	if entries, _ := os.ReadDir(again.Dir); len(entries) > 0 {
		t.Errorf("it left %s", entries[0].Name())
	}

	// Another process finds it and destroys it.
	next := newEngine(t, opts)
	found, err := next.Recover(t.Context(), server.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := found.Destroy(t.Context()); err != nil {
		t.Errorf("Destroy = %v", err)
	}
	if _, err := next.Networks(t.Context(), server.Dir); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Networks of a sandbox that is gone = %v, want ErrNotFound", err)
	}
}

func TestNetworkRefused(t *testing.T) {
	opts, _ := networks(t)
	root, e := newRoot(t), newEngine(t, opts)
	for name, test := range map[string]struct {
		change func(s *engine.Spec)
		kind   caisson.Kind
		says   string
	}{
		"Unknown":    {func(s *engine.Spec) { s.Network.Mode = "wan" }, caisson.ErrNotFound, "there are: lan, store"},
		"PortsAlone": {func(s *engine.Spec) { s.Ports = []caisson.Port{{Port: 80}} }, caisson.ErrUnsupported, "ports"},
		"NoAddress": {func(s *engine.Spec) {
			s.Network.Attach = []caisson.NetworkAttach{{Name: "lan", Args: map[string]string{"IP": "192.0.2.1"}}}
		}, 0, "lan"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpec(t, root, "true")
			test.change(s)
			box, err := e.Create(t.Context(), s)
			if err == nil {
				box.Destroy(context.Background())
			}
			if err == nil || test.kind != 0 && !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Create = %v, want one line of kind %v with %q", err, test.kind, test.says)
			}
			if entries, _ := os.ReadDir(s.Dir); len(entries) > 0 {
				t.Errorf("it left %s", entries[0].Name())
			}
		})
	}
}

// TestNetworkLost sweeps a sandbox on a network whose folder and keeper are gone.
func TestNetworkLost(t *testing.T) {
	opts, _ := networks(t)
	root, e := newRoot(t), newEngine(t, opts)
	s := newSpec(t, root, "sleep 1000")
	s.Network.Mode, s.Ports = "lan", []caisson.Port{{Port: 8080}}
	box, err := e.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := box.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	lose(t, s)
	if err := os.RemoveAll(s.Dir); err != nil {
		t.Fatal(err)
	}
	next := newEngine(t, opts)
	if _, err := next.Sweep(t.Context(), nil); err != nil {
		t.Errorf("Sweep = %v", err)
	}
}
