package gateway_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/gateway"
)

func TestParseRule(t *testing.T) {
	for text, want := range map[string]string{
		"example.com:443":            "example.com:443",
		"EXAMPLE.com.:443":           "example.com:443",
		"*.example.com:80":           "*.example.com:80",
		"*.Example.COM.:80":          "*.example.com:80",
		"db:5432":                    "db:5432",
		"_srv.example.com:1":         "_srv.example.com:1",
		"bücher.example:443":         "xn--bcher-kva.example:443",
		"BÜCHER.example:443":         "xn--bcher-kva.example:443",
		"10.1.2.3:65535":             "10.1.2.3:65535",
		"[fd00::1]:80":               "[fd00::1]:80",
		"[FD00:0:0::1]:80":           "[fd00::1]:80",
		"[64:ff9b::a00:1]:80":        "[64:ff9b::a00:1]:80",
		"1password.com:443":          "1password.com:443",
		"127.0.0.1.nip.example:8080": "127.0.0.1.nip.example:8080",
	} {
		r, err := gateway.ParseRule(text)
		if err != nil || r.String() != want {
			t.Errorf("ParseRule(%q) = %v, %v; want %s", text, r, err, want)
		}
		if again, err := gateway.ParseRule(r.String()); err != nil || again != r {
			t.Errorf("ParseRule(%q) = %v, %v; want the same again", r, again, err)
		}
	}
	for text, want := range map[string]string{
		"example.com":                         "has no port",
		"example.com:":                        "port is not 1 to 65535",
		"example.com:0":                       "port is not 1 to 65535",
		"example.com:65536":                   "port is not 1 to 65535",
		"example.com:+80":                     "port is not 1 to 65535",
		":80":                                 "a host name has 1 to 253 characters",
		"*:80":                                "not a host name",
		"*.:80":                               "a host name has",
		"a.*.com:80":                          "not a host name",
		"**.example.com:80":                   "not a host name",
		"exa mple.com:80":                     "not a host name",
		"example..com:80":                     "not a host name",
		"-a.com:80":                           "not a host name",
		"http://example.com:80":               "in brackets",
		"2130706433:80":                       "four numbers",
		"0x7f000001:80":                       "four numbers",
		"0X7F.1:80":                           "four numbers",
		"127.1:80":                            "four numbers",
		"0177.0.0.1:80":                       "four numbers",
		"127.0.0.1.:80":                       "four numbers",
		"*.10.1.2.3:80":                       "names below an address",
		"*.1.2:80":                            "four numbers",
		"[::ffff:10.0.0.1]:80":                "write the address as 10.0.0.1",
		"[fe80::1%eth0]:80":                   "zone",
		"[10.0.0.1]:80":                       "not an IP address of version 6",
		"[::1:80":                             "not an IP",
		"::1:80":                              "in brackets",
		"0.0.0.0:80":                          "not the address of one host",
		"[ff02::1]:80":                        "not the address of one host",
		"[::1]":                               "has no port",
		"a\u202eb.example:80":                 "not a host name",
		strings.Repeat("a", 64) + ".com:80":   "not a host name",
		strings.Repeat("a.", 130) + "com:443": "1 to 253",
		"a\nb:80":                             "not a host name",
	} {
		_, err := gateway.ParseRule(text)
		if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("ParseRule(%q) = %v, want invalid with %q", text, err, want)
		}
	}
}

func TestParseRulesTellsAll(t *testing.T) {
	list, err := gateway.ParseRules([]string{"a.example:1", "b", "a.example:1", "*:2"})
	if len(list) != 1 || err == nil || !strings.Contains(err.Error(), `"b"`) || !strings.Contains(err.Error(), `"*:2"`) {
		t.Errorf("ParseRules = %v, %v", list, err)
	}
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"example.com:443", "*.a:1", "[::1]:2", "1.2.3.4:5", "ü.example:1", "0x1:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := gateway.ParseRule(text)
		if err != nil {
			return
		}
		if again, err := gateway.ParseRule(r.String()); err != nil || again != r {
			t.Errorf("ParseRule(%q) is %v, which reads as %v, %v", text, r, again, err)
		}
	})
}
