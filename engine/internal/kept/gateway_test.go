package kept

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/isolate"
)

func TestSockets(t *testing.T) {
	got := Sockets(&engine.Gateway{Sockets: []engine.Socket{
		{Network: "udp", Address: "127.64.0.1:53"},
		{Network: "tcp", Address: "[::1]:80"},
		{Network: "tcp", Address: "[::]:443"},
		{Network: "tcp", Address: "[::ffff:127.0.0.1]:81"},
	}})
	want := []isolate.Socket{
		{UDP: true, IP: []byte{127, 64, 0, 1}, Port: 53},
		{IP: append(make([]byte, 15), 1), Port: 80},
		{Port: 443},
		{IP: []byte{127, 0, 0, 1}, Port: 81},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestServedBy(t *testing.T) {
	const web = "0: 0100407F:0050 00000000:0000 0A 00000000:00000000 00:00000000\n"
	const all = "0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000\n"
	const routes = "|-- 0.0.0.0\n/0 host LOCAL\n"
	if err := servedBy(web + all + routes); err != nil {
		t.Error(err)
	}
	// A kernel without IPv6.
	if err := servedBy(web + strings.ReplaceAll(all, strings.Repeat("0", 32), "00000000") + routes); err != nil {
		t.Error(err)
	}
	for missing, said := range map[string]string{"port 80": all + routes, "port 443": web + routes, "other addresses": web + all} {
		if err := servedBy(said); err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("without %s: %v", missing, err)
		}
	}
}
