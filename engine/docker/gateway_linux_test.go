package docker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/docker"
	"github.com/caissonrun/caisson/internal/thread"
)

// asking connects, whenever a file with an address appears, prints what it is
// told there, and ends with the file stop.
const asking = `echo ready
while [ ! -e /work/stop ]; do
	if [ -e /work/ask ]; then mv /work/ask /tmp/ask; nc $(cat /tmp/ask) </dev/null || echo refused; fi
	sleep 0.01
done`

// askingImage has what asking needs.
func askingImage(t testing.TB) string {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("busybox-static is needed: %v", err)
	}
	more := map[string]string{}
	for _, name := range []string{"nc", "cat", "mv"} {
		more["bin/"+name] = string(busybox)
	}
	return imageOf(t, withShell(t, more))
}

// ask has a program that asks connect to an address.
func ask(t testing.TB, s *engine.Spec, address string) {
	t.Helper()
	path := filepath.Join(s.Work, "ask")
	if err := os.WriteFile(path+".new", []byte(address), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// serve answers every connection to the sockets of a sandbox's gateway with a
// word and the address that it was meant for, until what it returns is called.
func serve(t testing.TB, sb engine.Sandbox, word string) (stop func()) {
	t.Helper()
	open, err := sb.(engine.Gatekeeper).Sockets(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	stop = func() {
		for i := range open {
			open[i].Close()
		}
	}
	t.Cleanup(stop)
	for _, s := range open {
		go func() {
			for {
				c, err := s.Listener.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s %s\n", word, c.LocalAddr())
				c.Close()
			}
		}()
	}
	return stop
}

// everything has all connections to a port served.
func everything(s *engine.Spec, port int) *engine.Spec {
	s.Network.Mode = caisson.NetworkAllow
	s.Gateway = &engine.Gateway{
		Sockets: []engine.Socket{{Network: "tcp", Address: fmt.Sprintf("[::]:%d", port)}}, Everything: true,
	}
	return s
}

// Sockets of a gateway are open as long as the container: who connects while
// there is no keeper is answered by whoever comes next.
func TestGatewayKeeperKilled(t *testing.T) {
	opts := options(t)
	e := newEngine(t, opts)
	s := everything(newSpec(t, askingImage(t), "/bin/sh", "-c", asking), 8100)
	sb, p := start(t, e, s)
	says(t, s, "ready\n")
	shut := serve(t, sb, "first")
	ask(t, s, "192.0.2.7 8100")
	says(t, s, "first 192.0.2.7:8100\n")
	shut()

	killKeeper(t, s)
	ask(t, s, "198.51.100.9 8100")
	other := newEngine(t, opts)
	again, err := other.Recover(soon(t), s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, again, "second")
	says(t, s, "second 198.51.100.9:8100\n")
	ask(t, s, "198.51.100.9 8101")
	says(t, s, "refused\n")

	killKeeper(t, s)
	// One that knows nothing of it asks for them as well.
	if open, err := sb.(engine.Gatekeeper).Sockets(soon(t)); err != nil || len(open) != 1 {
		t.Errorf("Sockets = %v, %v, want one", open, err)
	} else {
		open[0].Close()
	}
	stop(t, s)
	if exit := wait(t, p); exit.Code != 0 || exit.Reason != caisson.ReasonExited {
		t.Errorf("exit = %+v, want code 0", exit)
	}
	if open, err := sb.(engine.Gatekeeper).Sockets(soon(t)); caisson.KindOf(err) != caisson.ErrEnded {
		t.Errorf("Sockets after the end = %v, %v, want ErrEnded", open, err)
	}
}

// A gateway does not need the daemon once the container is there.
func TestGatewayDaemonKilled(t *testing.T) {
	d := startDaemon(t)
	t.Setenv(hostVariable, d.host)
	image := askingImage(t)
	e := newEngine(t, options(t))
	s := everything(newSpec(t, image, "/bin/sh", "-c", asking), 8100)
	sb, p := start(t, e, s)
	says(t, s, "ready\n")
	serve(t, sb, "here")
	d.signal(t, syscall.SIGKILL)
	ask(t, s, "192.0.2.7 8100")
	d.await(t)
	says(t, s, "here 192.0.2.7:8100\n")
	ask(t, s, "192.0.2.8 8100")
	says(t, s, "here 192.0.2.8:8100\n")
	stop(t, s)
	if exit := wait(t, p); exit.Code != 0 {
		t.Errorf("exit = %+v, want code 0", exit)
	}
}

// With networks of the daemon's, a gateway's names and sockets are there as
// well, and nobody on these networks reaches them.
func TestGatewayNetworks(t *testing.T) {
	opts := options(t)
	c := daemon(t)
	name := makeNetwork(t, c, opts.Installation+"g")
	opts.Network = name
	e := newEngine(t, opts)
	image := askingImage(t)
	for mode, network := range map[string]caisson.Network{
		"None": {Mode: caisson.NetworkNone}, "Default": {Mode: caisson.NetworkDefault}, "Named": {Mode: name},
		"Aliased": {Attach: []caisson.NetworkAttach{{Name: name, Aliases: []string{"me"}}}},
	} {
		t.Run(mode, func(t *testing.T) {
			s := newSpec(t, image, "/bin/sh", "-c", asking)
			s.Network = network
			s.Gateway = &engine.Gateway{
				Sockets: []engine.Socket{{Network: "tcp", Address: "127.64.0.1:80"}, {Network: "tcp", Address: "[::]:8100"}},
				Names:   map[string]string{"upstream": "127.64.0.1"},
			}
			sb, _ := start(t, e, s)
			says(t, s, "ready\n")
			serve(t, sb, mode)
			ask(t, s, "upstream 80")
			says(t, s, mode+" 127.64.0.1:80\n")
			ask(t, s, "127.0.0.1 8100")
			says(t, s, mode+" 127.0.0.1:8100\n")
			for _, address := range addressesOf(t, e, s) {
				conn, err := net.DialTimeout("tcp", net.JoinHostPort(address, "8100"), patience)
				if err == nil {
					conn.Close()
					t.Errorf("the host reaches the gateway at %s", address)
				}
				other := newSpec(t, image, "/bin/sh", "-c", "nc "+address+" 8100 </dev/null && echo reached")
				other.Network = network
				if out, _ := run1(t, e, other); out != "" {
					t.Errorf("another container reaches the gateway at %s: %q", address, out)
				}
			}
		})
	}
}

// addressesOf returns those that the daemon has given to a sandbox.
func addressesOf(t testing.TB, e *docker.Engine, s *engine.Spec) []string {
	t.Helper()
	networks, err := e.Networks(soon(t), s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, n := range networks {
		for _, a := range n.Addresses {
			ip, _, _ := strings.Cut(a, "/")
			list = append(list, ip)
		}
	}
	if len(list) == 0 && s.Network.Mode != caisson.NetworkNone {
		t.Error("the container has no address")
	}
	return list
}

// On a shared network with an allow-list there are the neighbours, by their
// names, and nothing else: not even the host.
func TestGatewayNeighbours(t *testing.T) {
	opts := options(t)
	e := newEngine(t, opts)
	image := askingImage(t)
	n := &engine.NetworkSpec{
		ID: newSpec(t, image).ID, Dir: t.TempDir(), Task: "task", Attempt: 1, Names: []string{"db", "other"},
		Network: caisson.Network{Mode: caisson.NetworkAllow, Allow: []string{"example.com:8100"}},
	}
	if err := e.MakeNetwork(soon(t), n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.RemoveNetwork(context.Background(), n.Dir); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(n.Dir); len(left) > 0 {
			t.Errorf("the network's folder still has %v", left)
		}
	})
	on := func(script string, names ...string) *engine.Spec {
		s := everything(newSpec(t, image, "/bin/sh", "-c", script), 8100)
		s.SharedNetwork, s.Names = n.Dir, names
		s.Gateway.Names = map[string]string{"upstream": "127.64.0.1"}
		s.Gateway.Sockets = append(s.Gateway.Sockets, engine.Socket{Network: "tcp", Address: "127.64.0.1:80"})
		return s
	}
	db := on(`echo ready; while echo a row | nc -l -p 5432 >/dev/null; do :; done`, "db")
	start(t, e, db)
	says(t, db, "ready\n")
	s := on(asking, "main")
	sb, _ := start(t, e, s)
	says(t, s, "ready\n")
	serve(t, sb, "gateway")

	ask(t, s, "db 5432")
	says(t, s, "a row\n")
	ask(t, s, "192.0.2.7 8100")
	says(t, s, "gateway 192.0.2.7:8100\n")
	ask(t, s, "upstream 80")
	says(t, s, "gateway 127.64.0.1:80\n")
	// The host's address on the network is nobody's.
	address := addressesOf(t, e, s)[0]
	host := address[:strings.LastIndexByte(address, '.')] + ".1"
	ask(t, s, host+" 8100")
	says(t, s, "gateway "+host+":8100\n")

	// Nor who insists on the device, although packets leave by it.
	port := listenAnywhere(t)
	ns, err := sb.(engine.NetworkLocator).NetworkNamespace(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := connectBy(ns, "eth0", host, port); err == nil {
		t.Error("a program reaches the host by the network's device")
	}
	// A probe reaches a neighbour all the same.
	conn, err := e.Dial(soon(t), db.Dir, 5432)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	// One that comes again has a new address, under the old name.
	again := on(`echo ready; while echo another row | nc -l -p 5433 >/dev/null; do :; done`, "db")
	start(t, e, again)
	says(t, again, "ready\n")
	ask(t, s, "db 5433")
	says(t, s, "another row\n")
}

// listenAnywhere returns a port at which this host listens on every address.
func listenAnywhere(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// connectBy connects in a network namespace to an address of IPv4 by one device,
// whatever its routes say.
func connectBy(ns, device, address string, port int) error {
	return thread.Spend(func() error {
		name, err := unix.Open(ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(name)
		if err := unix.Setns(name, unix.CLONE_NEWNET); err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		patience := unix.NsecToTimeval(int64(2 * time.Second))
		err = errors.Join(unix.BindToDevice(fd, device), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience))
		if err != nil {
			return err
		}
		return unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: netip.MustParseAddr(address).As4()})
	})
}
