package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"

	"github.com/caissonrun/caisson"
)

// A Rule allows connections to one port of a name, of all names below a domain,
// or of an address. Values are comparable.
type Rule struct {
	name string     // lower case, in ASCII, without a dot at the end; empty: addr
	wild bool       // all names below name, and not name itself
	addr netip.Addr // never an IPv4 address in IPv6's form
	port uint16
}

// ParseRule reads "host:port", where host is a name, "*." and a name, an IPv4
// address or an IPv6 address in brackets.
//
// Errors: ErrInvalid, with what would be right.
func ParseRule(s string) (Rule, error) {
	host, port, err := splitPort(s)
	if err != nil {
		return Rule{}, invalid(s, err)
	}
	if port == 0 {
		return Rule{}, invalid(s, errors.New("has no port; want a host and port such as example.com:443"))
	}
	r := Rule{port: port}
	below, wild := strings.CutPrefix(host, "*.")
	r.wild = wild
	if r.name, r.addr, err = parseHost(below); err != nil {
		return Rule{}, invalid(s, err)
	}
	switch {
	case wild && r.addr.IsValid():
		return Rule{}, invalid(s, errors.New("there are no names below an address"))
	case r.addr.IsUnspecified() || r.addr.IsMulticast():
		return Rule{}, invalid(s, errors.New("not the address of one host"))
	}
	return r, nil
}

// ParseRules reads a list and tells all that is wrong in it. Rules that stand
// there twice are there once.
func ParseRules(list []string) ([]Rule, error) {
	var rules []Rule
	var errs []error
	seen := map[Rule]bool{}
	for _, s := range list {
		r, err := ParseRule(s)
		errs = append(errs, err)
		if err == nil && !seen[r] {
			seen[r] = true
			rules = append(rules, r)
		}
	}
	return rules, errors.Join(errs...)
}

// String returns the rule as ParseRule reads it.
func (r Rule) String() string {
	switch {
	case r.addr.IsValid():
		return netip.AddrPortFrom(r.addr, r.port).String()
	case r.wild:
		return "*." + r.name + ":" + strconv.Itoa(int(r.port))
	}
	return r.name + ":" + strconv.Itoa(int(r.port))
}

// names reports whether the rule is about a name, at any port.
func (r Rule) names(name string) bool {
	if r.name == "" {
		return false
	}
	if !r.wild {
		return name == r.name
	}
	below, ok := strings.CutSuffix(name, "."+r.name)
	return ok && below != ""
}

func invalid(item string, err error) error {
	return &caisson.Error{Op: caisson.OpValidate, Item: fmt.Sprintf("%q", clip(item)), Kind: caisson.ErrInvalid, Err: err}
}

// splitPort splits "host:port"; the port is 0 where there is none. Brackets are
// taken off only by parseHost.
func splitPort(s string) (host string, port uint16, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || i < strings.LastIndexByte(s, ']') {
		return s, 0, nil
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil || n == 0 || s[i+1] == '+' {
		return "", 0, errors.New("the port is not 1 to 65535")
	}
	return s[:i], uint16(n), nil
}

// Longest name and longest part of one that DNS can carry.
const (
	maxName  = 253
	maxLabel = 63
)

// parseHost reads a name or an address as it stands in rules. There is one
// spelling of an address only, so that nobody means something else by another.
func parseHost(s string) (name string, addr netip.Addr, err error) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		addr, err = netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		switch {
		case err != nil || !strings.HasSuffix(s, "]") || addr.Is4():
			return "", netip.Addr{}, errors.New("what is in brackets is not an IP address of version 6")
		case addr.Is4In6():
			return "", netip.Addr{}, fmt.Errorf("write the address as %s", addr.Unmap())
		case addr.Zone() != "":
			return "", netip.Addr{}, errors.New("an address with a zone is one of this host's links, which are not reached")
		}
		return "", addr, nil
	}
	if addr, err = netip.ParseAddr(s); err == nil && addr.Is4() {
		return "", addr, nil
	}
	if strings.Contains(s, ":") {
		return "", netip.Addr{}, errors.New("write an IP address of version 6 in brackets, such as [2001:db8::1]:443")
	}
	name, err = canonical(s)
	return name, netip.Addr{}, err
}

// canonical returns a name in the one form in which names are compared: lower
// case, in ASCII, without a dot at the end.
func canonical(s string) (string, error) {
	s = strings.TrimSuffix(s, ".")
	if !ascii(s) {
		converted, err := idna.Lookup.ToASCII(s)
		if err != nil {
			return "", errors.New("not a host name in any script")
		}
		s = converted
	}
	s = strings.ToLower(s)
	if len(s) == 0 || len(s) > maxName {
		return "", fmt.Errorf("a host name has 1 to %d characters", maxName)
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return "", errors.New("not a host name: its parts have 1 to 63 letters, digits, - and _")
		}
		last = label
	}
	if isNumber(last) {
		return "", errors.New("not a host name, and as an address it would be four numbers of 0 to 255")
	}
	return s, nil
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func isLabel(s string) bool {
	if len(s) == 0 || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// isNumber reports whether some programs would take a name with this last part
// for an address: 127.1, 2130706433, 0x7f.1.
func isNumber(label string) bool {
	if rest, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(rest, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// maxShown bounds what is shown of outside text.
const maxShown = 253

// clip makes outside text fit to be shown: short, and without anything that a
// terminal would act on.
func clip(s string) string {
	if len(s) > maxShown {
		s = s[:maxShown] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
