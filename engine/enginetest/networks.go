package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func networkCases() []Case {
	return []Case{
		{
			Name: "network/none", Rules: []int{94}, Attacks: []int{35, 37}, Needs: []string{"networks.none"},
			Rule: "without a network nothing of the host is reached: not its loopback, not its addresses, not names",
			body: networkNone,
		},
		{
			Name: "network/loopback-only", Rules: []int{94}, Attacks: []int{35}, Needs: []string{"networks.none", isolation(engine.IsolatedNetwork)},
			Rule: "without a network there is a loopback device that works, and no other",
			body: networkLoopback,
		},
		{
			Name: "network/abstract-sockets", Rules: []int{126}, Attacks: []int{10, 35},
			Needs: []string{"networks.none", isolation(engine.IsolatedNetwork)},
			Rule:  "the host's abstract unix sockets can't be reached",
			body:  attacked("network/abstract-sockets"),
		},
		{
			Name: "network/host", Rules: []int{94}, Needs: []string{"networks.host"},
			Rule: "with the host's network its loopback is reached",
			body: networkHost,
		},
		{
			Name: "network/default", Rules: []int{94}, Attacks: []int{35, 37}, Needs: []string{"networks.default"},
			Rule: "the default network reaches neither the host, nor private and link-local addresses, nor other sandboxes",
			body: networkOutside,
		},
		{
			Name: "network/named", Rules: []int{94}, Needs: []string{"networks.named"}, wants: []facility{named},
			Rule: "sandboxes on a network of a name reach each other on it, those on none do not, and what each is attached to is listed",
			body: networkNamed,
		},
		{
			Name: "network/named-unknown", Rules: []int{4, 94}, Needs: []string{"networks.named"},
			Rule: "a network that does not exist is named in the refusal, and nothing is left",
			body: networkUnknown,
		},
		{
			Name: "network/ports", Rules: []int{94, 95}, Needs: []string{"networks.named", "ports"}, wants: []facility{named},
			Rule: "a port is reached on the host at its own address, is refused to others while it is in use, and is free again after that",
			body: networkPorts,
		},
		{
			Name: "network/port-taken", Rules: []int{95}, Needs: []string{"networks.named", "ports"}, wants: []facility{named},
			Rule: "a port that a program of the host has is refused by its number, tcp and udp alike, and nothing is left",
			body: networkPortTaken,
		},
		{
			Name: "network/dns", Rules: []int{96}, Needs: []string{"dns"}, wants: []facility{rooted},
			Rule: "resolv.conf has the servers, searches and options that were asked for, and no others",
			body: networkDNS,
		},
		{
			Name: "network/shared", Rules: []int{94, 96}, Needs: []string{"networks.shared"},
			Rule: "sandboxes on a shared network reach each other by name, their owner reaches them, and nobody else does",
			body: networkShared,
		},
		{
			Name: "network/shared-apart", Rules: []int{94}, Attacks: []int{37}, Needs: []string{"networks.shared"},
			Rule: "two shared networks, and a sandbox on neither, do not reach each other",
			body: networkApart,
		},
		{
			Name: "network/shared-life", Rules: []int{1, 3, 116, 117}, Needs: []string{"networks.shared"},
			Rule: "a shared network outlives its sandboxes, is removed again and again, and can't be joined after that",
			body: networkLife,
		},
		{
			Name: "network/shared-swept", Rules: []int{119}, Needs: []string{"networks.shared"},
			Rule: "a shared network that nobody owns is swept, one that is owned stays, also for the next process",
			body: networkSwept,
		},
		{
			Name: "network/shared-refused", Rules: []int{4}, wants: []facility{undeclared("networks.shared")},
			Rule: "an engine that can't share networks says so, and leaves nothing",
			body: networkNotShared,
		},
		{
			Name: "network/inside", Rules: []int{94}, Needs: []string{"networks.inside"},
			Rule: "the network namespace that a sandbox names before its program starts is the program's, and not the host's",
			body: networkInside,
		},
		{
			Name: "network/not-inside", Rules: []int{4}, wants: []facility{undeclared("networks.inside")},
			Rule: "an engine whose sandboxes nobody can serve from outside says so",
			body: networkNotInside,
		},
	}
}

// listen opens a listener of the host for a case.
func (t *T) listen(network, address string) net.Listener {
	l, err := net.Listen(network, address)
	t.ok(err, "Listen")
	t.after(func() { l.Close() })
	return l
}

func networkNone(t *T) {
	port := t.listen("tcp", "127.0.0.1:0").Addr().(*net.TCPAddr).Port
	var args []string
	for _, address := range append(hostAddresses(), "127.0.0.1", "169.254.169.254", "::1", "192.0.2.1") {
		args = append(args, "try", "connect", "tcp", net.JoinHostPort(address, fmt.Sprint(port)), ";")
	}
	args = append(args, "try", "connect", "udp", "192.0.2.1:53", ";", "try", "connect", "tcp", "example.com:80")
	for _, mode := range []string{"", caisson.NetworkNone} {
		spec := t.spec(args...)
		spec.Network.Mode = mode
		b := t.start(spec)
		b.success()
		for i, line := range lines(b.stdout()) {
			if strings.HasSuffix(line, " ok") {
				t.Errorf("network %q: connection %d worked", mode, i)
			}
		}
	}
}

// hostAddresses returns addresses of the host itself.
func hostAddresses() []string {
	var all []string
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
			all = append(all, ip.IP.String())
		}
	}
	return all
}

func networkLoopback(t *T) {
	if got := t.launch("report").facts().Interfaces; !slices.Equal(got, []string{"lo"}) {
		t.Errorf("the sandbox has the devices %v, want lo", got)
	}
	b, _ := t.run("loopback")
	b.success()
}

func networkHost(t *T) {
	port := t.listen("tcp", "127.0.0.1:0").Addr().(*net.TCPAddr).Port
	spec := t.spec("connect", "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	spec.Network.Mode = caisson.NetworkHost
	t.start(spec).success()
}

// attachments returns what a sandbox is attached to.
func (b *box) attachments() []engine.Network {
	lister, ok := b.t.engine.(engine.NetworkLister)
	if !ok {
		b.t.Fatalf("named networks are declared, and the engine does not list them")
	}
	list, err := lister.Networks(b.t.ctx, b.spec.Dir)
	b.t.ok(err, "Networks")
	return list
}

// attached returns a spec of a sandbox on named networks.
func (t *T) attached(names []string, args ...string) *engine.Spec {
	spec := t.spec(args...)
	for _, name := range names {
		spec.Network.Attach = append(spec.Network.Attach, caisson.NetworkAttach{Name: name})
	}
	return spec
}

func networkNamed(t *T) {
	server := t.start(t.attached(t.h.Networks[:2], "serve", "8080", "page", ";", "say", "ready", ";", "hold"))
	server.says("ready")
	list := server.attachments()
	if len(list) != 2 || list[0].Name != t.h.Networks[0] || list[1].Name != t.h.Networks[1] {
		t.Fatalf("Networks = %+v, want %q in order", list, t.h.Networks[:2])
	}
	for i, n := range list {
		if len(n.Addresses) == 0 {
			t.Fatalf("network %s has no address: %+v", n.Name, n)
		}
		address, _, _ := strings.Cut(n.Addresses[0], "/")
		at := net.JoinHostPort(address, "8080")
		t.start(t.attached(t.h.Networks[i:i+1], "connect", "tcp", at)).success()
		alone := t.launch("try", "connect", "tcp", at)
		alone.success()
		if strings.HasSuffix(lines(alone.stdout())[0], " ok") {
			t.Errorf("a sandbox on no network reaches %s", at)
		}
	}
	single := t.spec("exit 0")
	single.Network.Mode = t.h.Networks[1]
	t.start(single).success()
}

func networkOutside(t *T) {
	spec := t.spec("serve", "8080", "page", ";", "say", "ready", ";", "hold")
	spec.Network.Mode = caisson.NetworkDefault
	other := t.start(spec)
	other.says("ready")
	port := fmt.Sprint(t.listen("tcp", ":0").Addr().(*net.TCPAddr).Port)
	near := map[string]string{"169.254.169.254": "80", "10.0.0.1": "80", "172.16.0.1": "80", "192.168.0.1": "80", "100.64.0.1": "80"}
	for _, address := range append(hostAddresses(), "127.0.0.1", "::1") {
		near[address] = port
	}
	for _, n := range other.attachments() {
		for _, address := range n.Addresses {
			address, _, _ = strings.Cut(address, "/")
			near[address] = "8080"
		}
	}
	if len(near) == 5+len(hostAddresses())+2 {
		t.Errorf("what the sandbox is attached to has no address: %+v", other.attachments())
	}
	devices := t.spec("report")
	devices.Network.Mode = caisson.NetworkDefault
	if got := t.start(devices).facts().Interfaces; len(got) < 2 {
		t.Errorf("the sandbox has the devices %v, want more than a loopback", got)
	}
	var tries []string
	for address, port := range near {
		tries = append(tries, "say", net.JoinHostPort(address, port), ";", "try", "connect", "tcp", net.JoinHostPort(address, port), ";")
	}
	spec = t.spec(append(tries, "exit", "0")...)
	spec.Network.Mode = caisson.NetworkDefault
	b := t.start(spec)
	b.success()
	for i, line := range lines(b.stdout()) {
		if strings.HasSuffix(line, " ok") {
			t.Errorf("it reaches %s", lines(b.stdout())[i-1])
		}
	}
}

func networkUnknown(t *T) {
	for _, n := range []caisson.Network{
		{Mode: "no-such-net"}, {Attach: []caisson.NetworkAttach{{Name: "no-such-net"}}},
	} {
		spec := t.spec("exit 0")
		spec.Network = n
		err := t.refused(spec, caisson.ErrNotFound)
		if err != nil && (!strings.Contains(err.Error(), "no-such-net") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("Create = %v, want one line that names the network", err)
		}
	}
}

func networkPorts(t *T) {
	spec := t.attached(t.h.Networks[:1], "serve", "8080", "page", ";", "say", "ready", ";", "hold")
	spec.Ports = []caisson.Port{{Port: 8080}}
	server := t.start(spec)
	server.says("ready")
	var port caisson.Port
	for _, n := range server.attachments() {
		for _, p := range n.Ports {
			port = p
		}
	}
	if port.HostPort == 0 || port.HostIP != "127.0.0.1" {
		t.Fatalf("the port is published as %+v", port)
	}
	at := net.JoinHostPort(port.HostIP, fmt.Sprint(port.HostPort))
	conn, err := net.DialTimeout("tcp", at, dialTimeout)
	t.ok(err, "Dial")
	text, err := io.ReadAll(conn)
	conn.Close()
	if string(text) != "page" || err != nil {
		t.Errorf("the port answers %q, %v", text, err)
	}
	again := t.attached(t.h.Networks[:1], "exit 0")
	again.Ports = []caisson.Port{{Port: 80, HostPort: port.HostPort}}
	if err := t.refused(again, caisson.ErrExists); err != nil && !strings.Contains(err.Error(), fmt.Sprint(port.HostPort)) {
		t.Errorf("Create = %v, want an error that names the port", err)
	}
	t.destroy(server)
	t.start(again).success()
}

// dialTimeout is how long a connection to a published port may take.
const dialTimeout = 10 * time.Second

func networkPortTaken(t *T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	t.ok(err, "ListenPacket")
	t.after(func() { udp.Close() })
	for protocol, port := range map[string]int{
		"tcp": t.listen("tcp", "127.0.0.1:0").Addr().(*net.TCPAddr).Port, "udp": udp.LocalAddr().(*net.UDPAddr).Port,
	} {
		spec := t.attached(t.h.Networks[:1], "exit 0")
		spec.Ports = []caisson.Port{{Port: 80, HostPort: port, Protocol: protocol}}
		if err := t.refused(spec, caisson.ErrExists); err != nil && !strings.Contains(err.Error(), fmt.Sprint(port)) {
			t.Errorf("Create = %v, want an error that names the port", err)
		}
	}
}

func networkDNS(t *T) {
	spec := t.spec("read /etc/resolv.conf")
	spec.DNS = &caisson.DNS{Servers: []string{"192.0.2.1", "192.0.2.2"}, Search: []string{"a.example"}, Options: []string{"ndots:3"}}
	b := t.start(spec)
	b.success()
	for _, line := range lines(b.stdout()) {
		if line != "" && !slices.Contains([]string{"nameserver 192.0.2.1", "nameserver 192.0.2.2", "search a.example", "options ndots:3"}, line) {
			t.Errorf("resolv.conf has %q", line)
		}
	}
	for _, want := range []string{"nameserver 192.0.2.1\n", "nameserver 192.0.2.2\n", "search a.example\n", "ndots:3"} {
		if !strings.Contains(b.stdout(), want) {
			t.Errorf("resolv.conf is %q, want %q in it", b.stdout(), want)
		}
	}
	for _, d := range []caisson.DNS{{Servers: []string{"dns.example"}}, {Search: []string{"a\nnameserver 192.0.2.66"}}, {Options: []string{"two words"}}} {
		spec := t.spec("exit 0")
		spec.DNS = &d
		t.refused(spec, caisson.ErrInvalid)
	}
}

// A shared is a network that a case has made.
type shared struct {
	t    *T
	spec *engine.NetworkSpec
}

// networker returns the case's engine as one that makes networks.
func (t *T) networker() engine.Networker {
	n, ok := t.engine.(engine.Networker)
	if !ok {
		t.Fatalf("shared networks are declared, and the engine is no Networker")
	}
	return n
}

// network makes a network that is removed after the case.
func (t *T) network(names ...string) *shared {
	n := &shared{t, &engine.NetworkSpec{ID: t.newID(), Task: "enginetest", Attempt: 1, Names: names}}
	n.spec.Dir = filepath.Join(t.dir, "net-"+n.spec.ID)
	t.ok(os.Mkdir(n.spec.Dir, 0o700), "Mkdir")
	t.ok(t.networker().MakeNetwork(t.ctx, n.spec), "MakeNetwork")
	t.after(n.remove)
	return n
}

// remove removes the network, also where the case's time is up, by another
// engine where the one that made it is closed.
func (n *shared) remove() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.t.ctx), n.t.suite.cleanup)
	defer cancel()
	err := n.t.networker().RemoveNetwork(ctx, n.spec.Dir)
	if errors.Is(err, caisson.ErrUnavailable) {
		e := n.t.h.New(n.t.tb)
		defer e.Close()
		err = e.(engine.Networker).RemoveNetwork(ctx, n.spec.Dir)
	}
	if err != nil {
		n.t.Errorf("RemoveNetwork = %v, want no error", err)
	}
}

// join returns a spec of a sandbox on the network.
func (n *shared) join(name string, args ...string) *engine.Spec {
	spec := n.t.spec(args...)
	spec.SharedNetwork = n.spec.Dir
	if name != "" {
		spec.Names = []string{name}
	}
	return spec
}

// dial returns what a port of a sandbox answers its owner.
func (b *box) dial(port int) (string, error) {
	conn, err := b.t.networker().Dial(b.t.ctx, b.spec.Dir, port)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	return string(text), err
}

func networkShared(t *T) {
	n := t.network("db", "web")
	db := t.start(n.join("db", "serve", "5432", "data", ";", "say", "ready", ";", "hold"))
	web := t.start(n.join("web", "serve", "8080", "page", ";", "say", "ready", ";", "hold"))
	db.says("ready")
	web.says("ready")
	t.start(n.join("", "connect", "tcp", "db:5432", ";", "connect", "tcp", "web:8080")).success()
	for _, at := range []struct {
		box  *box
		port int
		want string
	}{{db, 5432, "data"}, {web, 8080, "page"}} {
		if got, err := at.box.dial(at.port); got != at.want || err != nil {
			t.Errorf("its owner reads %q, %v, want %q", got, err, at.want)
		}
	}
	_, err := db.dial(1)
	t.kind(err, "Dial where nobody listens", caisson.ErrUnavailable)
	if conn, err := net.Dial("tcp", "127.0.0.1:5432"); err == nil {
		conn.Close()
		t.Errorf("the sandbox is reached at the host's loopback address")
	}
	t.destroy(db)
	_, err = db.dial(5432)
	t.kind(err, "Dial of a sandbox that is gone", caisson.ErrAborted)
}

func networkApart(t *T) {
	one, two := t.network("db"), t.network("db")
	db := t.start(one.join("db", "serve", "5432", "data", ";", "say", "ready", ";", "hold"))
	db.says("ready")
	try := []string{"try", "connect", "tcp", "db:5432", ";", "try", "connect", "tcp", "127.0.0.1:5432"}
	for name, b := range map[string]*box{"another network": t.start(two.join("", try...)), "no network": t.launch(try...)} {
		b.success()
		for _, line := range lines(b.stdout()) {
			if strings.HasSuffix(line, " ok") {
				t.Errorf("from %s: %s", name, b.stdout())
			}
		}
	}
}

func networkLife(t *T) {
	n := t.network("db")
	for range 2 {
		b := t.start(n.join("db", "serve", "5432", "x"))
		b.success()
		t.destroy(b)
	}
	n.remove()
	n.remove()
	if entries, _ := os.ReadDir(n.spec.Dir); len(entries) > 0 {
		t.Errorf("RemoveNetwork left %s in its folder", entries[0].Name())
	}
	t.refused(n.join("db", "exit 0"), caisson.ErrNotFound)
}

func networkSwept(t *T) {
	t.alone()
	owned, orphan := t.network("db"), t.network("db")
	t.restart()
	removed, err := t.engine.Sweep(t.ctx, []string{owned.spec.ID})
	t.ok(err, "Sweep")
	swept := func(n *shared) bool {
		return slices.ContainsFunc(removed, func(name string) bool { return strings.Contains(name, n.spec.ID) })
	}
	if !swept(orphan) || swept(owned) {
		t.Errorf("Sweep removed %q, want %s and not %s", removed, orphan.spec.ID, owned.spec.ID)
	}
	t.start(owned.join("db", "exit 0")).success()
	t.refused(orphan.join("db", "exit 0"), caisson.ErrNotFound)
}

func networkNotShared(t *T) {
	n, ok := t.engine.(engine.Networker)
	if !ok {
		return
	}
	dir := t.folder("network")
	err := n.MakeNetwork(t.ctx, &engine.NetworkSpec{ID: t.newID(), Dir: dir, Task: "enginetest", Attempt: 1})
	t.kind(err, "MakeNetwork", caisson.ErrUnsupported)
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("a MakeNetwork that was refused left %s", entries[0].Name())
	}
}
