package network_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/network"
)

// vpnServer starts a real server, and returns the address that it has in the VPN and
// the configuration of a client. Both are in Debian's package openvpn, see
// scripts/setup.
func (r *rig) vpnServer() (address, config string) {
	t := r.t
	t.Helper()
	if err := network.VPNUsable(); err != nil {
		t.Fatal(err)
	}
	needTaps(t)
	dir := t.TempDir()
	certificates(t, dir)
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := udp.LocalAddr().(*net.UDPAddr).Port
	udp.Close()
	server := exec.Command("openvpn", "--dev", fmt.Sprintf("cts%d", os.Getpid()%100000), "--dev-type", "tun", "--proto", "udp4",
		"--local", "127.0.0.1", "--port", strconv.Itoa(port), "--server", subnet(5)+".0", "255.255.255.0", "--topology", "subnet",
		"--ca", filepath.Join(dir, "ca.pem"), "--cert", filepath.Join(dir, "server.pem"), "--key", filepath.Join(dir, "server.key"), "--dh", "none",
		"--push", "dhcp-option DNS 192.0.2.53", "--push", "redirect-gateway def1", "--keepalive", "1", "5")
	var said bytes.Buffer
	server.Stdout, server.Stderr = &said, &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if t.Failed() {
			t.Logf("the server has said: %s", said.String())
		}
	})
	config = filepath.Join(dir, "client.conf")
	text := fmt.Sprintf("client\nremote 127.0.0.1 %d udp4\nnobind\nca ca.pem\ncert client.pem\nkey client.key\nremote-cert-tls server\n", port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return subnet(5) + ".1", config
}

// certificates writes those of an authority, a server and a client.
func certificates(t *testing.T, dir string) {
	t.Helper()
	write := func(name, kind string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var ca *x509.Certificate
	var caKey *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature,
		}
		switch name {
		case "ca":
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
			ca, caKey = c, key
		case "server":
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		default:
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}
		der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(name+".pem", "CERTIFICATE", der)
		write(name+".key", "PRIVATE KEY", private)
	}
}

// tries connects from within the namespace, and returns what is answered.
func tries(t *testing.T, path, address string) (said string, err error) {
	t.Helper()
	inside(t, path, func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp4", address, 5*time.Second); err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		var data []byte
		data, err = io.ReadAll(c)
		said = string(data)
	})
	return said, err
}

// TestVPN holds that a namespace reaches what is behind a VPN and nothing else, that
// the client comes back, and that nothing is left of it.
func TestVPN(t *testing.T) {
	r := newRig(t)
	address, config := r.vpnServer()
	r.opts.VPNs = map[string]string{"office": config}
	if names, broken := r.opts.Networks(); !slices.Contains(names, "office") {
		t.Errorf("Networks = %q, %v, want office", names, broken)
	}
	rec := r.create(&network.Spec{ID: r.id, Network: caisson.Network{Mode: "office"}})
	got, err := rec.Load()
	if err != nil {
		t.Fatal(err)
	}
	a := got.Attachments[0]
	if len(a.Addresses) != 1 || !strings.HasPrefix(a.Addresses[0], subnet(5)+".") || !strings.HasSuffix(a.Addresses[0], "/24") {
		t.Errorf("the addresses are %q", a.Addresses)
	}
	if dns := got.FoundDNS(); dns == nil || !slices.Equal(dns.Servers, []string{"192.0.2.53"}) {
		t.Errorf("the servers of names are %+v", dns)
	}
	l, err := net.Listen("tcp4", ":0")
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
			io.WriteString(c, "page")
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	at := net.JoinHostPort(address, port)
	if said, err := tries(t, rec.Path(), at); said != "page" {
		t.Errorf("behind the VPN %q is said, %v", said, err)
	}
	if said, err := tries(t, rec.Path(), net.JoinHostPort("127.0.0.1", port)); err == nil {
		t.Errorf("the host's loopback is reached, it says %q", said)
	}
	if err := rec.Check(t.Context()); err != nil {
		t.Errorf("Check = %v", err)
	}
	t.Run("Killed", func(t *testing.T) {
		pid := clientOf(t, rec.Folder)
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(time.Minute)
		for {
			said, err := tries(t, rec.Path(), at)
			if said == "page" && clientOf(t, rec.Folder) != pid {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the client does not come back: %q, %v; Check = %v", said, err, rec.Check(t.Context()))
			}
		}
	})
	if err := rec.Remove(t.Context()); err != nil {
		t.Fatalf("Remove = %v", err)
	}
	if pid := clientOf(t, rec.Folder); pid != 0 {
		t.Errorf("process %d is left", pid)
	}
}

// clientOf is the OpenVPN of a namespace, or 0.
func clientOf(t *testing.T, folder string) int {
	t.Helper()
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		data, _ := os.ReadFile(line)
		if bytes.HasPrefix(data, []byte("openvpn\x00")) && bytes.Contains(data, []byte(folder)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(line)))
			return pid
		}
	}
	return 0
}

func TestVPNRefused(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	r.opts.VPNs = map[string]string{
		"gone": filepath.Join(dir, "gone"), "daemon": file("daemon", "client\ndaemon vpn\n"), "nonsense": file("nonsense", "no-such-option\n"),
	}
	for name, c := range map[string]struct {
		network caisson.Network
		ports   []caisson.Port
		want    caisson.Kind
		says    string
	}{
		"Gone":    {caisson.Network{Mode: "gone"}, nil, caisson.ErrNotFound, "gone"},
		"Daemon":  {caisson.Network{Mode: "daemon"}, nil, caisson.ErrInvalid, "daemon"},
		"Several": {caisson.Network{Attach: []caisson.NetworkAttach{{Name: "nonsense"}, {Name: "gone"}}}, nil, caisson.ErrInvalid, "several"},
		"Args":    {caisson.Network{Attach: []caisson.NetworkAttach{{Name: "nonsense", Args: map[string]string{"IP": "1"}}}}, nil, caisson.ErrUnsupported, "args"},
		"Ports":   {caisson.Network{Mode: "nonsense"}, []caisson.Port{{Port: 80}}, caisson.ErrUnsupported, "port"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.opts.Plan(&network.Spec{ID: r.id, Network: c.network, Ports: c.ports})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Plan = %v, want %v that says %q", err, c.want, c.says)
			}
		})
	}
	rec := r.plan(&network.Spec{ID: r.id, Network: caisson.Network{Mode: "nonsense"}})
	err := rec.Create(t.Context())
	if !errors.Is(err, caisson.ErrUnavailable) || !strings.Contains(err.Error(), "openvpn has ended") || strings.Contains(err.Error(), "\n") {
		t.Errorf("Create = %v, want one line that says that openvpn has ended", err)
	}
	if pid := clientOf(t, rec.Folder); pid != 0 {
		t.Errorf("process %d is left", pid)
	}
}
