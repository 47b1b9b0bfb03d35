package enginetest

import (
	"fmt"
	"net"
	"slices"
	"strings"

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
