package network_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/network"
)

// A world is a host with an outside: a namespace that is reached by a device of
// the host's, with a public, a private, and a link-local address.
type world struct {
	*rig
	path   string // of the outside
	device string
}

// The addresses of the outside: of the documentation's networks, of a private
// one and of the metadata services of clouds.
const (
	hostAddress = "203.0.113.1"
	public      = "203.0.113.2"
	metadata    = "169.254.169.254"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{rig: newRig(t), device: fmt.Sprintf("csw%d", os.Getpid()%100000)}
	w.opts.Subnet = subnet(0) + ".0/24"
	name := fmt.Sprintf("caisson-outside-%d", os.Getpid())
	w.path = "/run/netns/" + name
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %q: %v: %s", args, err, out)
		}
	}
	run("netns", "add", name)
	t.Cleanup(func() { run("netns", "del", name) })
	run("link", "add", w.device, "type", "veth", "peer", "name", "out0", "netns", name)
	t.Cleanup(func() { exec.Command("ip", "link", "del", w.device).Run() })
	run("addr", "add", hostAddress+"/24", "dev", w.device)
	run("link", "set", w.device, "up")
	run("-n", name, "link", "set", "lo", "up")
	run("-n", name, "link", "set", "out0", "up")
	for _, a := range []string{public + "/24", w.privateAddress() + "/32", metadata + "/32"} {
		run("-n", name, "addr", "add", a, "dev", "out0")
	}
	for _, a := range []string{w.privateAddress(), metadata} {
		run("route", "add", a, "via", public, "dev", w.device)
	}
	serve(t, w.path, "0.0.0.0:7", "outside")
	return w
}

// privateAddress is one of the outside's that nobody else has.
func (w *world) privateAddress() string { return subnet(7) + ".99" }

// try connects from a namespace and returns what is answered.
func (w *world) try(rec *network.Record, address string) (answer string, err error) {
	inside(w.t, rec.Path(), func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", address, 700*time.Millisecond); err != nil {
			return
		}
		defer c.Close()
		var text []byte
		text, err = io.ReadAll(c)
		answer = string(text)
	})
	return answer, err
}

func TestDefault(t *testing.T) {
	w := newWorld(t)
	if err := w.opts.DefaultUsable(t.Context(), true); err != nil {
		t.Fatalf("DefaultUsable = %v", err)
	}
	first := &network.Spec{ID: w.id, Network: caisson.Network{Mode: caisson.NetworkDefault}, Ports: []caisson.Port{{Port: 7}}}
	rec, other := w.create(first), w.create(&network.Spec{ID: w.id + "-2", Network: first.Network})
	kept, err := rec.Load()
	if err != nil {
		t.Fatal(err)
	}
	neighbour, err := other.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*network.Record{rec, other} {
		serve(t, r.Path(), "0.0.0.0:7", "sandbox")
		serve(t, r.Path(), "0.0.0.0:8", "sandbox")
	}

	// The outside is reached, by the host's address.
	if got, err := w.try(rec, public+":7"); got != "outside" || err != nil {
		t.Errorf("the outside answers %q, %v", got, err)
	}
	peer := make(chan string, 1)
	inside(t, w.path, func() {
		l, err := net.Listen("tcp", public+":9")
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			if c, err := l.Accept(); err == nil {
				peer <- c.RemoteAddr().String()
				c.Close()
			}
		}()
	})
	if _, err := w.try(rec, public+":9"); err != nil {
		t.Errorf("the outside: %v", err)
	} else if got := <-peer; !strings.HasPrefix(got, hostAddress+":") {
		t.Errorf("the outside sees %s, want the host", got)
	}

	// Nothing near is. The listeners are of the host, on all its addresses.
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	published := kept.Attachments[0].Ports[0].HostPort
	gateway := subnet(0) + ".1"
	var tries sync.WaitGroup
	for what, address := range map[string]string{
		"the host's address":          net.JoinHostPort(hostAddress, fmt.Sprint(port)),
		"the host's other address":    net.JoinHostPort(anyHostAddress(t), fmt.Sprint(port)),
		"the gateway":                 net.JoinHostPort(gateway, fmt.Sprint(port)),
		"the host's loopback":         net.JoinHostPort("127.0.0.1", fmt.Sprint(port)),
		"a private address":           w.privateAddress() + ":7",
		"the metadata service":        metadata + ":7",
		"another sandbox":             neighbour.Addresses()[0].String() + ":7",
		"another one's other port":    neighbour.Addresses()[0].String() + ":8",
		"a port published on a host":  net.JoinHostPort(hostAddress, fmt.Sprint(published)),
		"the gateway's published one": net.JoinHostPort(gateway, fmt.Sprint(published)),
		"IPv6":                        net.JoinHostPort("fe80::1%eth0", fmt.Sprint(port)),
	} {
		tries.Go(func() {
			if got, err := w.try(rec, address); err == nil {
				t.Errorf("%s is reached at %s: %q", what, address, got)
			}
		})
	}
	tries.Wait()

	// That does not hang on the host's own filter, which a firewall that is loaded
	// anew may have removed.
	host := network.TableName(other)
	if out, err := exec.Command("nft", "delete", "table", "inet", host).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, address := range []string{hostAddress, anyHostAddress(t), gateway} {
		if _, err := w.try(other, net.JoinHostPort(address, fmt.Sprint(port))); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("without the host's filter, connecting to %s = %v, want a refusal", address, err)
		}
	}

	// An address that the host gets later is not reached either.
	late := "198.51.100.77"
	if out, err := exec.Command("ip", "addr", "add", late+"/32", "dev", w.device).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := w.try(rec, net.JoinHostPort(late, fmt.Sprint(port))); err == nil {
		t.Errorf("the host is reached at an address that it got later")
	}

	// From outside only what is published is reached, and only where.
	if got := read(t, fmt.Sprintf("127.0.0.1:%d", published)); got != "sandbox" {
		t.Errorf("the published port answers %q", got)
	}
	if c, err := net.DialTimeout("tcp", kept.Addresses()[0].String()+":8", 700*time.Millisecond); err == nil {
		c.Close()
		t.Errorf("a port that is not published is reached from the host")
	}

	// Removing leaves no filter.
	for _, r := range []*network.Record{rec, other} {
		for range 2 {
			if err := r.Remove(t.Context()); err != nil {
				t.Errorf("Remove = %v", err)
			}
		}
	}
	out, err := exec.Command("nft", "list", "tables").CombinedOutput()
	for _, r := range []*network.Record{rec, other} {
		if err != nil || strings.Contains(string(out), network.TableName(r)) {
			t.Errorf("a filter is left: %s, %v", out, err)
		}
	}
	leases, _ := filepath.Glob("/var/lib/cni/networks/caisson-default/" + subnet(0) + ".*")
	if len(leases) > 0 {
		t.Errorf("addresses are left allocated: %q", leases)
	}
}

// anyHostAddress returns an address of the host's that is none of the test's.
func anyHostAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() && ip.IP.String() != hostAddress && !strings.HasPrefix(ip.IP.String(), "10.") {
			return ip.IP.String()
		}
	}
	return hostAddress
}

func TestDefaultRefused(t *testing.T) {
	w := newWorld(t)
	w.opts.Subnet = "203.0.113.0/24"
	s := &network.Spec{ID: w.id, Network: caisson.Network{Mode: caisson.NetworkDefault}}
	if _, err := w.opts.Plan(s); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Plan with a subnet that is not private = %v, want ErrUnsupported", err)
	}
	w.opts.Subnet = subnet(0) + ".0/24"
	if out, err := exec.Command("ip", "addr", "add", subnet(0)+".5/24", "dev", w.device).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := w.opts.Plan(s); !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), "this host is in") {
		t.Errorf("Plan with a subnet of the host's = %v, want ErrUnsupported", err)
	}
	w.opts.Subnet, w.opts.PluginDirs = "", []string{t.TempDir()}
	if _, err := w.opts.Plan(s); !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), `"ptp" is not installed`) {
		t.Errorf("Plan without plugins = %v, want ErrUnsupported", err)
	}
}
