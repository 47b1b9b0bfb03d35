package network_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/network"
)

func TestCheckDNS(t *testing.T) {
	for name, test := range map[string]struct {
		dns *caisson.DNS
		bad string // what the error names; empty: none
	}{
		"Nil":          {nil, ""},
		"OK":           {&caisson.DNS{Servers: []string{"192.0.2.1", "2001:db8::1"}, Search: []string{"a.example"}, Options: []string{"ndots:2"}}, ""},
		"Host":         {&caisson.DNS{Servers: []string{"host"}}, ""},
		"None":         {&caisson.DNS{Servers: []string{"none"}}, ""},
		"HostAndMore":  {&caisson.DNS{Servers: []string{"host", "192.0.2.1"}}, `"host"`},
		"NoneSearch":   {&caisson.DNS{Servers: []string{"none"}, Search: []string{"a"}}, `"none"`},
		"NoAddress":    {&caisson.DNS{Servers: []string{"dns.example"}}, `"dns.example"`},
		"Newline":      {&caisson.DNS{Search: []string{"a\nnameserver 192.0.2.66"}}, "search"},
		"OptionSpaces": {&caisson.DNS{Options: []string{"ndots:2 debug"}}, "option"},
	} {
		t.Run(name, func(t *testing.T) {
			err := network.CheckDNS(test.dns)
			if test.bad == "" {
				if err != nil {
					t.Errorf("CheckDNS = %v, want no error", err)
				}
				return
			}
			if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), test.bad) {
				t.Errorf("CheckDNS = %v, want ErrInvalid that names %s", err, test.bad)
			}
		})
	}
}

func TestResolv(t *testing.T) {
	const host = "# ours\nsearch old.example\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nsearch host.example\noptions edns0\n"
	for name, test := range map[string]struct {
		dns, found *caisson.DNS
		outside    bool
		want       string
		keep       bool
	}{
		"Inside":   {want: ""},
		"Outside":  {outside: true, want: "nameserver 192.0.2.53\nsearch host.example\noptions edns0\n"},
		"Networks": {outside: true, found: &caisson.DNS{Servers: []string{"10.1.0.1"}}, want: "nameserver 10.1.0.1\n"},
		"Task": {
			outside: true, found: &caisson.DNS{Servers: []string{"10.1.0.1"}},
			dns:  &caisson.DNS{Servers: []string{"192.0.2.7"}, Search: []string{"a", "b"}, Options: []string{"ndots:1"}},
			want: "nameserver 192.0.2.7\nsearch a b\noptions ndots:1\n",
		},
		"SearchAlone": {outside: true, dns: &caisson.DNS{Search: []string{"a"}}, want: "nameserver 192.0.2.53\nsearch a\noptions edns0\n"},
		"Host":        {dns: &caisson.DNS{Servers: []string{"host"}}, want: host},
		"None":        {dns: &caisson.DNS{Servers: []string{"none"}}, keep: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, keep := network.Resolv(test.dns, test.found, []byte(host), test.outside)
			if string(got) != test.want || keep != test.keep {
				t.Errorf("Resolv = %q, %v, want %q, %v", got, keep, test.want, test.keep)
			}
		})
	}
}

func TestHosts(t *testing.T) {
	const local = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	attached := &network.Record{
		Names: []string{"db", "cache"},
		Attachments: []network.Attachment{
			{Addresses: []string{"10.1.0.5/24", "fd00::5/64"}, Aliases: []string{"web", "www"}},
			{Addresses: []string{"10.2.0.9/24"}},
		},
	}
	for name, test := range map[string]struct {
		hostname string
		record   *network.Record
		want     string
	}{
		"Alone":    {"box", nil, local + "127.0.1.1 box\n"},
		"Shared":   {"db", &network.Record{Names: []string{"db"}}, local + "127.0.0.1 db\n"},
		"Attached": {"box", attached, local + "127.0.0.1 db cache\n10.1.0.5 box\n10.1.0.5 web www\nfd00::5 web www\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(network.Hosts(test.hostname, test.record)); got != test.want {
				t.Errorf("Hosts = %q, want %q", got, test.want)
			}
		})
	}
}

func TestHostName(t *testing.T) {
	for title, want := range map[string]string{
		"db": "db", "My Data Base!": "my-data-base", "--x--": "x", "ÄÖ": "", "a_b": "a_b", strings.Repeat("x", 80): strings.Repeat("x", 63),
	} {
		if got := network.HostName(title); got != want {
			t.Errorf("HostName(%q) = %q, want %q", title, got, want)
		}
	}
}

func TestParseAttach(t *testing.T) {
	for text, want := range map[string]string{
		"lan": "", "lan:IP=10.1.0.9": "IP=10.1.0.9", "lan:IP=10.1.0.9;MAC=02:00:00:00:00:01": "IP=10.1.0.9",
	} {
		a, err := network.ParseAttach(text)
		if err != nil || a.Name != "lan" {
			t.Errorf("ParseAttach(%q) = %+v, %v", text, a, err)
		}
		if key, value, ok := strings.Cut(want, "="); ok && a.Args[key] != value {
			t.Errorf("ParseAttach(%q): %s = %q, want %q", text, key, a.Args[key], value)
		}
	}
	for _, text := range []string{"", ":IP=1", "lan:", "lan:IP", "lan:=1", "lan:A=1;A=2"} {
		if _, err := network.ParseAttach(text); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("ParseAttach(%q) = %v, want ErrInvalid", text, err)
		}
	}
}

func TestParsePort(t *testing.T) {
	for text, want := range map[string]struct {
		port     int
		protocol string
	}{"80": {80, "tcp"}, "80-tcp": {80, "tcp"}, "53-udp": {53, "udp"}, "53/udp": {53, "udp"}} {
		port, protocol, err := network.ParsePort(text)
		if err != nil || port != want.port || protocol != want.protocol {
			t.Errorf("ParsePort(%q) = %d, %q, %v", text, port, protocol, err)
		}
	}
	for _, text := range []string{"", "http", "0", "65536", "80-sctp", "80-tcp-x", "-1"} {
		if _, _, err := network.ParsePort(text); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("ParsePort(%q) = %v, want ErrInvalid", text, err)
		}
	}
}
