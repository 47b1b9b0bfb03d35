package app_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/app"
	"github.com/caissonrun/caisson/internal/machine/machinetest"
)

// TestGatewaysAlike holds that proxies, allow-lists and brokered secrets are the
// same for images, in every engine and runtime that declares them, also where
// steps share a network. It runs what busybox has.
func TestGatewaysAlike(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an ordinary user's engines for images have no networks")
	}
	const name = "caisson-test/gateways:1"
	archive := busyboxArchive(t, name)
	for _, c := range []struct{ name, engine, runtime, image string }{
		{"builtin", "oci", "builtin", "docker-archive:" + archive},
		{"crun", "oci", "crun", "docker-archive:" + archive},
		{"runc", "oci", "runc", "docker-archive:" + archive},
		{"docker", "docker", "", name},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := gatewayApp(t, func(cfg *app.Config) {
				cfg.Executor.Prefer = []string{c.engine}
				cfg.Engine.OCI.Runtime = c.runtime
				if c.engine == "docker" {
					cfg.Engine.Docker.Host = daemon(t, archive)
				}
			})
			proxyAndBroker(t, a, c.image, true)
			allowAlone(t, a, c.image)
		})
	}
}

// TestGatewaysOfMachines holds the same of virtual machines, for root and for
// ordinary users. Their steps share no network.
func TestGatewaysOfMachines(t *testing.T) {
	if testing.Short() {
		t.Skip("it boots guests")
	}
	machinetest.QEMU(t)
	k := machinetest.Kernel(t, machinetest.Whole)
	archive := busyboxArchive(t, "caisson-test/gateways:1")
	a := gatewayApp(t, func(cfg *app.Config) {
		cfg.Executor.Prefer = []string{"qemu"}
		q := &cfg.Engine.Qemu
		q.KernelRoot, q.Kernel, q.Modules, q.Accel, q.Type, q.BootTime = "", k.Image, k.Modules, []string{"tcg"}, []string{"q35"}, caisson.Duration(4*time.Minute)
	})
	if os.Geteuid() == 0 {
		proxyAndBroker(t, a, "docker-archive:"+archive, false)
	}
	// One guest is what there is time for where all tests are to be quick.
	allowAlone(t, a, "docker-archive:"+archive)
}

// gatewayApp returns an app whose upstream tells its path, and whose broker's
// host is api.example.
func gatewayApp(t *testing.T, change func(*app.Config)) *app.App {
	t.Helper()
	api := listen(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "right value: %v, you said %s\n", r.Header.Get("X-Key") == token, r.Header.Get("X-Key"))
	})
	api.Start()
	o := newOutside()
	o.add("api.example", "93.184.215.40:80", api.Listener)
	o.add("good.example", "93.184.215.41:80", api.Listener)
	return gatedConfig(t, &app.Options{
		Lookup:  func(ctx context.Context, name string) ([]netip.Addr, error) { return o.lookup(ctx, name) },
		Dial:    o.dial,
		Proxies: map[string]http.Handler{"mine": says("mine")},
	}, change)
}

// proxyAndBroker runs a program without any network, and with it steps beside each
// other where their engine has sidecars.
func proxyAndBroker(t *testing.T, a *app.App, image string, sidecars bool) {
	t.Helper()
	get := func(path string) []caisson.Step {
		return []caisson.Step{{Program: caisson.Program{Run: "wget -qO- http://app/" + path}}}
	}
	task := &caisson.Task{
		Program: caisson.Program{Image: image, Run: `
wget -qO- http://app/main
wget -qO- --header "X-Key: $TOKEN" http://api.example/
timeout 5 wget -qO- http://93.184.215.40/ 2>/dev/null && echo "there is another way"
env | grep -q ` + token + ` && echo "the value is inside"
while [ ! -e seen ]; do sleep 0.1; done`},
		Pre: get("pre"), Post: get("post"),
		Proxies: map[string]caisson.Proxy{"app": {Upstream: "mine"}},
		Secrets: map[string]caisson.Secret{"TOKEN": {From: "env:X", Broker: &caisson.Broker{Host: "http://api.example", Header: "X-Key"}}},
	}
	wanted := []string{"mine app /pre\n", "mine app /main\n", "mine app /post\n", "right value: true, you said CAISSON_PLACEHOLDER_"}
	if sidecars {
		task.Sidecars = []caisson.Step{{Program: caisson.Program{Run: "wget -qO- http://app/sidecar && touch seen; sleep 100"}}}
		wanted = append(wanted, "mine app /sidecar\n")
	} else {
		task.Pre[0].Run += " && touch seen"
	}
	out, result := runGated(t, a, task)
	if !result.Success {
		t.Errorf("result %+v", result)
	}
	wantLines(t, out, wanted...)
	for _, wrong := range []string{"another way", "is inside", token} {
		if strings.Contains(out, wrong) {
			t.Errorf("it said\n%s", out)
		}
	}
}

// allowAlone reaches one name and nothing else.
func allowAlone(t *testing.T, a *app.App, image string) {
	t.Helper()
	out, result := runGated(t, a, &caisson.Task{
		Program: caisson.Program{Image: image, Run: `
wget -qO- http://good.example/
for url in http://api.example/ http://93.184.215.41/ http://[2001:db8::1]/; do
  timeout 5 wget -qO- $url 2>/dev/null && echo "$url is reached"
done; true`},
		Network: caisson.Network{Mode: caisson.NetworkAllow, Allow: []string{"good.example:80"}},
	})
	if !result.Success || strings.Contains(out, "is reached") {
		t.Errorf("it said\n%s\nresult %+v", out, result)
	}
	wantLines(t, out, "right value: false, you said \n")
	const why = ": not in network.allow"
	wantBlocked(t, result, "api.example:80"+why, "93.184.215.41:80"+why, "[2001:db8::1]:80"+why)
}
