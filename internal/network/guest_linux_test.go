package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const routeTable = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0100D50A	0003	0	0	0	00000000	0	0	0
eth0	0000D50A	00000000	0001	0	0	0	0000FFFF	0	0	0
eth1	0002A8C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
`

func TestReadRoutes(t *testing.T) {
	got, err := readRoutes(strings.NewReader(routeTable), "eth0")
	if err != nil {
		t.Fatal(err)
	}
	want := []Route{
		{To: netip.MustParsePrefix("10.213.0.0/16")},
		{To: netip.MustParsePrefix("0.0.0.0/0"), By: netip.MustParseAddr("10.213.0.1")},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("readRoutes(), -want +got:\n%s", diff)
	}
	if got, err := readRoutes(strings.NewReader("eth0 00000000 xyz 0003 0 0 0 00000000 0 0 0\n"), "eth0"); err == nil {
		t.Errorf("readRoutes(nonsense) = %v, want an error", got)
	}
}

func TestReadGateways(t *testing.T) {
	const none = "00000000000000000000000000000000"
	table := strings.Join([]string{
		none + " 00 " + none + " 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth0",
		none + " 00 " + none + " 00 " + none + " ffffffff 00000001 00000000 00200200       lo",
		"fd000000000000000000000000000000 40 " + none + " 00 " + none + " 00000100 00000001 00000000 00000001     eth0",
	}, "\n")
	if got := readGateways(strings.NewReader(table), "eth0"); !cmp.Equal(got, []string{"fd00::1"}) {
		t.Errorf("readGateways() = %q, want fd00::1", got)
	}
}

// TestForwarding holds that a guest speaks by its own addresses only.
func TestForwarding(t *testing.T) {
	l := &Link{Tap: "tap0", MAC: "0a:58:0a:01:02:03", Addresses: []string{"10.1.2.3/24", "fd00::3/64"}}
	got := l.forwarding("eth0")
	const want = `table netdev caisson_tap0 {
 chain arrives {
  type filter hook ingress device "eth0" priority 0;
  fwd to "tap0"
 }
 chain leaves {
  type filter hook ingress device "tap0" priority 0;
  ether saddr != 0a:58:0a:01:02:03 drop
  ip saddr { 10.1.2.3 } fwd to "eth0"
  arp saddr ether 0a:58:0a:01:02:03 arp saddr ip { 10.1.2.3 } fwd to "eth0"
  icmpv6 type { nd-router-advert, nd-redirect } drop
  ip6 saddr { ::, fe80::/10, fd00::3 } fwd to "eth0"
  drop
 }
}
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("forwarding(), -want +got:\n%s", diff)
	}
}
