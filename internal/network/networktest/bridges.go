// Package networktest has networks for tests of engines that attach sandboxes to
// some.
package networktest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// made counts calls of Bridges, so that each has names of its own.
var made atomic.Int32

// Bridges writes the configurations of the networks lan and store, whose subnets
// and bridges nobody else has, and returns their folder and the beginning of lan's
// subnet, as "10.1.2". They publish ports. Everything is gone after the test, which
// fails if addresses are left allocated.
//
// The plugins are those of Debian's containernetworking-plugins, see scripts/setup.
func Bridges(t testing.TB) (dir, subnet string) {
	t.Helper()
	dir = t.TempDir()
	leases := t.TempDir()
	n := int(made.Add(1)) - 1
	for i, name := range []string{"lan", "store"} {
		net := fmt.Sprintf("10.%d.%d", 231+os.Getpid()%20, (2*os.Getpid()+2*n+i)%250)
		bridge := fmt.Sprintf("cso%d%d", os.Getpid()%100000, 2*n+i)
		text := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [
			{"type": "bridge", "bridge": %q, "isGateway": true, "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "%s.0/24"}]]},
			 "dns": {"nameservers": ["%s.1"], "search": ["lan.example"]}},
			{"type": "portmap", "capabilities": {"portMappings": true}}]}`, name, bridge, leases, net, net)
		if err := os.WriteFile(filepath.Join(dir, name+".conflist"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			subnet = net
		}
		t.Cleanup(func() { exec.Command("ip", "link", "del", bridge).Run() })
	}
	t.Cleanup(func() {
		if left, _ := filepath.Glob(filepath.Join(leases, "*", "10.*")); len(left) > 0 {
			t.Errorf("addresses are left allocated: %q", left)
		}
	})
	return dir, subnet
}
