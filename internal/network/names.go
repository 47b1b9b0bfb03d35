package network

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
)

// What DNS.Servers may be besides addresses, each alone.
const (
	DNSHost = "host" // the host's own file, as it is
	DNSNone = "none" // whatever the root file system has
)

// CheckDNS refuses what can't stand in a resolv.conf. Nil is fine.
//
// Errors: ErrInvalid.
func CheckDNS(dns *caisson.DNS) error {
	if dns == nil {
		return nil
	}
	for _, server := range dns.Servers {
		item := fmt.Sprintf("dns: server %q", server)
		if server == DNSHost || server == DNSNone {
			if len(dns.Servers)+len(dns.Search)+len(dns.Options) > 1 {
				return failure(caisson.ErrInvalid, item, errors.New("it excludes all others, searches and options too"))
			}
			continue
		}
		// A zone may be any text, newlines too.
		if addr, err := netip.ParseAddr(server); err != nil || addr.Zone() != "" && strings.ContainsFunc(addr.Zone(), notInWord) {
			return failure(caisson.ErrInvalid, item, errors.New("not an ip address; there are also host and none"))
		}
	}
	for _, list := range []struct {
		what  string
		words []string
	}{{"search", dns.Search}, {"option", dns.Options}} {
		for _, word := range list.words {
			if word == "" || len(word) > 255 || strings.ContainsFunc(word, notInWord) {
				return failure(caisson.ErrInvalid, fmt.Sprintf("dns: %s %q", list.what, word), errors.New("want one word"))
			}
		}
	}
	return nil
}

// notInWord reports what ends a word of a resolv.conf, or its line.
func notInWord(r rune) bool { return r <= ' ' || r == '#' || r == ';' || r > '~' }

// nameOK reports whether a host can have the name.
func nameOK(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return name != "" && len(name) <= 253 && strings.Trim(name, letters+".-_") == "" && strings.ContainsAny(name[:1], letters)
}

// HostName returns the name by which a step that is called title is reached:
// in lower case, with "-" for what names of hosts can't have. It may be empty.
func HostName(title string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(title) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	const most = 63
	name := b.String()
	return strings.Trim(name[:min(len(name), most)], "-_")
}

// Resolv returns the contents of a sandbox's resolv.conf: what the task says
// (dns), else what its networks say (found), else the host's own file with the
// servers left out that only the host itself can reach. It has no servers where
// there is nothing that could be reached: outside is false.
//
// Keep says that the file of the root file system is to stay as it is.
func Resolv(dns, found *caisson.DNS, host []byte, outside bool) (contents []byte, keep bool) {
	switch {
	case dns != nil && slices.Equal(dns.Servers, []string{DNSNone}):
		return nil, true
	case dns != nil && slices.Equal(dns.Servers, []string{DNSHost}):
		return host, false
	}
	var out caisson.DNS
	if outside {
		out = *readResolv(host)
		out.Servers = slices.DeleteFunc(out.Servers, loopback)
	}
	override(&out, found)
	override(&out, dns)
	var b bytes.Buffer
	for _, s := range out.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(out.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(out.Search, " "))
	}
	if len(out.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(out.Options, " "))
	}
	return b.Bytes(), false
}

// override replaces what d has. Who names servers wants none of another's
// searches.
func override(out, d *caisson.DNS) {
	if d == nil {
		return
	}
	if len(d.Servers) > 0 {
		*out = caisson.DNS{Servers: d.Servers}
	}
	if len(d.Search) > 0 {
		out.Search = d.Search
	}
	if len(d.Options) > 0 {
		out.Options = d.Options
	}
}

func loopback(server string) bool {
	addr, err := netip.ParseAddr(server)
	return err != nil || addr.IsLoopback()
}

// readResolv reads a resolv.conf; the last search line counts, as for the
// resolver.
func readResolv(text []byte) *caisson.DNS {
	d := new(caisson.DNS)
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 || strings.ContainsAny(words[0], "#;") {
			continue
		}
		switch words[0] {
		case "nameserver":
			d.Servers = append(d.Servers, words[1])
		case "search", "domain":
			d.Search = words[1:]
		case "options":
			d.Options = append(d.Options, words[1:]...)
		}
	}
	return d
}

// FoundDNS returns what the networks say about names: the first that names
// servers.
func (r *Record) FoundDNS() *caisson.DNS {
	for _, a := range r.Attachments {
		if a.DNS != nil && len(a.DNS.Servers) > 0 {
			return a.DNS
		}
	}
	return nil
}

// Hosts returns the contents of a sandbox's /etc/hosts: the loopback's names,
// its own name, and the names that it has on its networks. A nil r is a sandbox
// with a loopback device alone.
func Hosts(hostname string, r *Record) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	if r != nil && len(r.Names) > 0 {
		fmt.Fprintf(&b, "127.0.0.1 %s\n", strings.Join(r.Names, " "))
	}
	own := "127.0.1.1"
	if r != nil {
		if list := r.Addresses(); len(list) > 0 {
			own = list[0].String()
		}
	}
	if hostname != "" && (r == nil || !slices.Contains(r.Names, hostname)) {
		fmt.Fprintf(&b, "%s %s\n", own, hostname)
	}
	if r == nil {
		return b.Bytes()
	}
	for _, a := range r.Attachments {
		for _, addr := range a.addresses() {
			if len(a.Aliases) > 0 {
				fmt.Fprintf(&b, "%s %s\n", addr, strings.Join(a.Aliases, " "))
			}
		}
	}
	return b.Bytes()
}
