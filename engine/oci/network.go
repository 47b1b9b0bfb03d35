package oci

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
)

// joined is what networks give a sandbox; nil: it has none but loopback, or
// the host's.
type joined struct {
	netNS string
}

// apply has the sandbox made in the network namespace.
func (j *joined) apply(box *isolate.Spec) {
	if j != nil {
		box.NetNS = j.netNS
	}
}

// remove detaches a sandbox from its networks. It can be called again.
func (e *Engine) remove(ctx context.Context, sandbox string, rec *kept.Record) error { return nil }

// hosts is /etc/hosts.
func (set *setting) hosts(_ *engine.Spec, hostname string) []byte {
	return []byte("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 " + hostname + "\n")
}

// resolvConf is /etc/resolv.conf, unless the image's own stays.
func (set *setting) resolvConf(s *engine.Spec) ([]byte, bool) {
	if s.DNS == nil {
		if s.Network.Mode == caisson.NetworkHost {
			return set.resolv, true
		}
		return []byte{}, true
	}
	if len(s.DNS.Servers) == 1 {
		switch s.DNS.Servers[0] {
		case "host":
			return set.resolv, true
		case "none":
			return nil, false
		}
	}
	var b bytes.Buffer
	for _, server := range s.DNS.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	if len(s.DNS.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(s.DNS.Search, " "))
	}
	if len(s.DNS.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(s.DNS.Options, " "))
	}
	return b.Bytes(), true
}
