package gateway_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/gateway"
)

func TestPolicyGateway(t *testing.T) {
	a, err := gateway.NewAuthority([]string{"api.example.com", "b.example.com:8443"})
	if err != nil {
		t.Fatal(err)
	}
	second := gateway.Brokered{Name: "B", Placeholder: gateway.NewPlaceholder(), Value: "value", Host: "b.example.com:8443"}
	third := token()
	third.Host = "api.example.com"
	proxies := map[string]http.Handler{"two": http.NotFoundHandler(), "one": http.NotFoundHandler()}
	tcp := func(addr string) engine.Socket { return engine.Socket{Network: "tcp", Address: addr} }
	for name, c := range map[string]struct {
		p    gateway.Policy
		want *engine.Gateway
	}{
		"Nothing": {gateway.Policy{}, nil},
		"AllowNothing": {gateway.Policy{Everything: true}, &engine.Gateway{
			Everything: true, Resolver: "127.64.0.1", Names: map[string]string{},
			Sockets: []engine.Socket{{Network: "udp", Address: "127.64.0.1:53"}, tcp("127.64.0.1:53"), tcp("[::]:80"), tcp("[::]:443")},
		}},
		"Allow": {gateway.Policy{Everything: true, Allow: rules(t, "a.example:443", "b.example:22", "c.example:22"), Proxies: proxies}, &engine.Gateway{
			Everything: true, Resolver: "127.64.0.1", Names: map[string]string{"one": "127.64.64.1", "two": "127.64.64.2"},
			Sockets: []engine.Socket{{Network: "udp", Address: "127.64.0.1:53"}, tcp("127.64.0.1:53"), tcp("[::]:22"), tcp("[::]:80"), tcp("[::]:443")},
		}},
		"AllowDNS": {gateway.Policy{Everything: true, Allow: rules(t, "1.1.1.1:53")}, &engine.Gateway{
			Everything: true, Resolver: "127.64.0.1", Names: map[string]string{},
			Sockets: []engine.Socket{{Network: "udp", Address: "127.64.0.1:53"}, tcp("[::]:53"), tcp("[::]:80"), tcp("[::]:443")},
		}},
		"Proxies": {gateway.Policy{Proxies: proxies}, &engine.Gateway{
			Names:   map[string]string{"one": "127.64.64.1", "two": "127.64.64.2"},
			Sockets: []engine.Socket{tcp("127.64.64.1:80"), tcp("127.64.64.2:80")},
		}},
		"Brokered": {gateway.Policy{Brokered: []gateway.Brokered{second, third}, Authority: a}, &engine.Gateway{
			Names:   map[string]string{"api.example.com": "127.64.128.1", "b.example.com": "127.64.128.2"},
			Sockets: []engine.Socket{tcp("127.64.128.1:443"), tcp("127.64.128.2:8443")},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.p.Check(); err != nil {
				t.Fatal(err)
			}
			if got := c.p.Gateway(); !reflect.DeepEqual(got, c.want) {
				t.Errorf("Gateway = %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestPolicyErr(t *testing.T) {
	a, err := gateway.NewAuthority([]string{"example.com"})
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(*gateway.Brokered)) gateway.Policy {
		s := token()
		f(&s)
		return gateway.Policy{Brokered: []gateway.Brokered{s}, Authority: a}
	}
	var ports []string
	for port := range 300 {
		ports = append(ports, fmt.Sprintf("a.example:%d", port+1))
	}
	for name, c := range map[string]struct {
		p    gateway.Policy
		want string
	}{
		"AllowBeside":      {gateway.Policy{Allow: rules(t, "a.example:1")}, "allow: is only for"},
		"Ports":            {gateway.Policy{Everything: true, Allow: rules(t, ports...)}, "at most 200"},
		"ProxyName":        {gateway.Policy{Proxies: map[string]http.Handler{"A": nil, "x y": nil, "localhost": nil}}, "3 to 22 letters"},
		"Host":             {change(func(b *gateway.Brokered) { b.Host = "ftp://x" }), "ftp://x"},
		"HostAddress":      {change(func(b *gateway.Brokered) { b.Host = "10.1.2.3" }), "only together with network allow"},
		"Header":           {change(func(b *gateway.Brokered) { b.Header = "hOst" }), "no header that a value can be sent in"},
		"HeaderMalformed":  {change(func(b *gateway.Brokered) { b.Header = "a b" }), "no header"},
		"ValueShort":       {change(func(b *gateway.Brokered) { b.Value = "abc\n" }), "has to have 4 to"},
		"ValueLines":       {change(func(b *gateway.Brokered) { b.Value = "abc\r\nX: y" }), "can't stand in a header"},
		"PlaceholderShort": {change(func(b *gateway.Brokered) { b.Placeholder = "x" }), "placeholder is not one of Caisson's"},
		"PlaceholderOdd":   {change(func(b *gateway.Brokered) { b.Placeholder += "/" }), "placeholder is not one of Caisson's"},
		"NoAuthority":      {gateway.Policy{Brokered: []gateway.Brokered{token()}}, "no authority for example.com:443"},
		"Twice":            {gateway.Policy{Brokered: []gateway.Brokered{token(), token()}, Authority: a}, "can't be told from TOKEN"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.p.Check()
			if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), value) {
				t.Errorf("Check = %v, want invalid with %q", err, c.want)
			}
			if _, err := gateway.New(&c.p, nil); err == nil {
				t.Error("New took it")
			}
		})
	}
}

// The authority speaks for its hosts alone, and goes on in another process.
func TestAuthority(t *testing.T) {
	a, err := gateway.NewAuthority([]string{"example.com", "https://api.example.org:8443", "http://plain.example"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := gateway.ParseAuthority(a.PEM())
	if err != nil || !bytes.Equal(again.PEM(), a.PEM()) {
		t.Fatalf("ParseAuthority: %v", err)
	}
	block, _ := pem.Decode(a.Certificate())
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !cert.PermittedDNSDomainsCritical || len(cert.PermittedDNSDomains) != 3 || len(cert.ExcludedIPRanges) != 2 || !cert.MaxPathLenZero {
		t.Errorf("certificate %+v", cert)
	}
	if bytes.Contains(a.Bundle([]byte("base\n\n")), []byte("PRIVATE")) || !bytes.HasPrefix(a.Bundle([]byte("base\n\n")), []byte("base\n-----BEGIN")) {
		t.Errorf("Bundle = %q", a.Bundle([]byte("base\n\n")))
	}
	for _, text := range []string{"", "x", string(a.Certificate())} {
		if _, err := gateway.ParseAuthority([]byte(text)); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("ParseAuthority(%.20q) = %v, want invalid", text, err)
		}
	}
	if _, err := gateway.NewAuthority([]string{"*.example.com"}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("for all names below: %v, want invalid", err)
	}
}

func TestHostRoots(t *testing.T) {
	text, err := gateway.HostRoots()
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 0 && !x509.NewCertPool().AppendCertsFromPEM(text) {
		t.Error("the host's bundle has no certificate")
	}
}

// Who is not trusted reaches nothing of this host's networks, by whatever rule.
func TestPolicyPublicOnly(t *testing.T) {
	s := token()
	s.Host = "http://127.0.0.1:80"
	p := gateway.Policy{Everything: true, PublicOnly: true, Allow: rules(t, "10.1.2.3:80", "1.1.1.1:443", "[64:ff9b::7f00:1]:80"), Brokered: []gateway.Brokered{s}}
	err := p.Check()
	if !errors.Is(err, caisson.ErrDenied) || strings.Count(err.Error(), "not a public address") != 3 || strings.Contains(err.Error(), "1.1.1.1") {
		t.Errorf("Check = %v, want three addresses denied", err)
	}

	server, roots := secureWeb(t, func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") })
	s = token()
	a, err := gateway.NewAuthority([]string{s.Host})
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, &gateway.Policy{Everything: true, PublicOnly: true, Brokered: []gateway.Brokered{s}, Authority: a}, func(o *gateway.Options) { o.Roots = roots })
	b.host("example.com", "10.1.2.3", 443, server)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(a.Bundle(nil))
	if status, body := get(t, b.client(trusted), "https://example.com/"); status != 403 || !strings.Contains(body, "not a public address") {
		t.Errorf("a host at a private address: %d %q, want 403", status, body)
	}
	b.noDials()
}
