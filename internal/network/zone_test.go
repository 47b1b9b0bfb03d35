package network

import (
	"errors"
	"testing"

	"github.com/caissonrun/caisson"
)

// An address's zone may be any text: it must not become part of a path or a
// line of a file.
func TestHostileZones(t *testing.T) {
	for _, address := range []string{"fe80::1%/../../../x", "::1%x", "fe80::1%a\nb"} {
		if p, err := fill(caisson.Port{Port: 80, HostIP: address}); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("host_ip %q becomes %q, %v, want ErrInvalid", address, p.HostIP, err)
		}
	}
	if err := CheckDNS(&caisson.DNS{Servers: []string{"fe80::1%a\nnameserver 192.0.2.1"}}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("a server whose zone has two lines: %v, want ErrInvalid", err)
	}
	if err := CheckDNS(&caisson.DNS{Servers: []string{"fe80::1%eth0"}}); err != nil {
		t.Errorf("a server with a zone: %v", err)
	}
}
