package gateway

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/netguard"
	"github.com/caissonrun/caisson/keeper/redact"
)

// A Policy is what one attempt's programs may reach, beside their network. It is
// plain data: another process that makes it anew, and serves the same sockets,
// goes on where the first one was.
type Policy struct {
	// Everything says that nothing but this policy leads out: network allow.
	// Otherwise Allow is empty.
	Everything bool
	Allow      []Rule
	// PublicOnly says that nothing but the public Internet is reached, even where
	// the policy names an address that is not of it: the task is somebody's whom
	// this host's own networks are no business of. Proxies are the operator's.
	PublicOnly bool
	// Proxies are by name, [a-z]{3,22}: http://NAME/ inside. Handlers see NAME as
	// the request's host.
	Proxies map[string]http.Handler
	// Brokered are the secrets that the programs have placeholders of. Their hosts
	// can be reached at the ports that they name.
	Brokered []Brokered
	// Authority is for hosts of Brokered that have TLS.
	Authority *Authority
}

// A Brokered is a secret that is put into requests on their way to one host.
type Brokered struct {
	Name        string // of the secret, for messages
	Placeholder string // what the programs have: of NewPlaceholder
	Value       string // line ends behind it do not count
	// Host is as in caisson.Broker: "api.example.com", "api.example.com:8443",
	// or with "http://" before it, where there is no TLS. Without a port it is
	// 443, and 80 after "http://".
	Host   string
	Header string // empty: Authorization
}

// NewPlaceholder returns what a program has instead of a secret. It can't be
// guessed, and it reads the same in URLs, JSON and shells.
func NewPlaceholder() string { return placeholderPrefix + rand.Text() }

const placeholderPrefix = "CAISSON_PLACEHOLDER_"

// minPlaceholder is how long a placeholder has to be: shorter ones could be
// something else.
const minPlaceholder = 16

// Check tells all that is wrong with a policy, each with its kind.
func (p *Policy) Check() error {
	_, err := compile(p)
	return err
}

// Gateway returns what an engine has to make for the policy, which must be one
// that Check finds nothing wrong with; nil if that is nothing. It depends on
// nothing but what the policy says.
func (p *Policy) Gateway() *engine.Gateway {
	plan, err := compile(p)
	if err != nil || !p.Everything && len(plan.targets) == 0 {
		return nil
	}
	return plan.gateway()
}

// Addresses inside of the sandbox, all of the loopback network.
var (
	resolverAddr = netip.AddrFrom4([4]byte{127, 64, 0, 1})
	proxyAddrs   = netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 64, 64, 0}), 18)
	brokerAddrs  = netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 64, 128, 0}), 18)
	// nameAddrs are those that the resolver gives to names.
	nameAddrs = netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 65, 0, 0}), 16)
)

// nth returns the n-th address of a network.
func nth(network netip.Prefix, n int) netip.Addr {
	bytes := network.Addr().As4()
	bytes[2] |= byte(n >> 8)
	bytes[3] |= byte(n)
	return netip.AddrFrom4(bytes)
}

// maxSockets is how many an engine makes.
const maxSockets = 200

const (
	httpPort  = 80
	httpsPort = 443
	dnsPort   = 53
)

// An endpoint is a port of a name or of an address.
type endpoint struct {
	name string
	addr netip.Addr
	port uint16
}

func (e endpoint) host() string {
	if e.addr.IsValid() {
		return e.addr.String()
	}
	return e.name
}

func (e endpoint) String() string { return joinHostPort(e.host(), e.port) }

// A brokerHost is where secrets go, with what the requests to it get.
type brokerHost struct {
	endpoint
	plain   bool
	secrets []secret
}

// A secret is a Brokered that was checked.
type secret struct {
	Brokered
	header string // canonical
	at     endpoint
	swaps  swaps // what is taken out of answers
}

// A plan is a policy that was checked, with the addresses inside.
type plan struct {
	everything bool
	publicOnly bool
	rules      []Rule
	proxies    map[netip.Addr]proxyTarget
	brokers    map[endpoint]*brokerHost
	secrets    []secret              // all of them
	hosts      map[string]netip.Addr // names of /etc/hosts
	inside     map[netip.Addr]string // those of brokers, by their address
	targets    []netip.AddrPort      // where proxies and brokers are
}

type proxyTarget struct {
	name    string
	handler http.Handler
}

// compile checks a policy and lays out its addresses.
func compile(p *Policy) (*plan, error) {
	c := &plan{
		everything: p.Everything, publicOnly: p.PublicOnly, rules: p.Allow,
		proxies: map[netip.Addr]proxyTarget{}, brokers: map[endpoint]*brokerHost{}, hosts: map[string]netip.Addr{},
		inside: map[netip.Addr]string{},
	}
	var errs []error
	if len(p.Allow) > 0 && !p.Everything {
		errs = append(errs, wrong("allow", "is only for a network that has nothing else"))
	}
	errs = append(errs, c.addProxies(p.Proxies), c.addBrokers(p), c.checkPublic())
	if n := len(c.gateway().Sockets); n > maxSockets {
		errs = append(errs, wrong("network", "needs %d sockets, at most %d can be: fewer ports or proxies", n, maxSockets))
	}
	return c, errors.Join(errs...)
}

// checkPublic refuses addresses that the policy may not name.
func (c *plan) checkPublic() error {
	if !c.publicOnly {
		return nil
	}
	var errs []error
	check := func(item, text string, addr netip.Addr) {
		if addr.IsValid() && !netguard.Public(addr) {
			errs = append(errs, &caisson.Error{
				Op: caisson.OpValidate, Item: item, Kind: caisson.ErrDenied,
				Err: fmt.Errorf("%s: %w", text, netguard.ErrPrivate),
			})
		}
	}
	for _, r := range c.rules {
		check("network.allow", r.String(), r.addr)
	}
	for _, s := range c.secrets {
		check("secrets."+clip(s.Name)+".broker", s.at.String(), s.at.addr)
	}
	return errors.Join(errs...)
}

func wrong(item, format string, args ...any) error {
	return &caisson.Error{Op: caisson.OpValidate, Item: item, Kind: caisson.ErrInvalid, Err: fmt.Errorf(format, args...)}
}

func (c *plan) addProxies(proxies map[string]http.Handler) error {
	var errs []error
	for i, name := range slices.Sorted(maps.Keys(proxies)) {
		if len(name) < 3 || len(name) > 22 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz") != "" || name == "localhost" {
			errs = append(errs, wrong("proxies."+clip(name), "a name has 3 to 22 letters a to z, and is not localhost"))
			continue
		}
		addr := nth(proxyAddrs, i+1)
		c.proxies[addr] = proxyTarget{name: name, handler: proxies[name]}
		c.hosts[name] = addr
		c.targets = append(c.targets, netip.AddrPortFrom(addr, httpPort))
	}
	return errors.Join(errs...)
}

func (c *plan) addBrokers(p *Policy) error {
	var errs []error
	for _, b := range p.Brokered {
		errs = append(errs, c.addSecret(b, p.Authority))
	}
	if err := errors.Join(errs...); err != nil || p.Everything {
		return err
	}
	for _, e := range slices.SortedFunc(maps.Keys(c.brokers), compareEndpoints) {
		addr, err := c.insideAddr(e)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.targets = append(c.targets, netip.AddrPortFrom(addr, e.port))
	}
	return errors.Join(errs...)
}

func compareEndpoints(a, b endpoint) int {
	if n := strings.Compare(a.host(), b.host()); n != 0 {
		return n
	}
	return int(a.port) - int(b.port)
}

// insideAddr returns the address that a broker's host has inside: one of its
// own for a name, and for an address of the loopback network itself.
func (c *plan) insideAddr(e endpoint) (netip.Addr, error) {
	switch {
	case e.addr.IsLoopback():
		return e.addr, nil
	case e.addr.IsValid():
		return netip.Addr{}, &caisson.Error{
			Op: caisson.OpValidate, Item: e.String(), Kind: caisson.ErrInvalid,
			Err: errors.New("a secret's host can be given by its address only together with network allow"),
		}
	}
	addr, ok := c.hosts[e.name]
	if !ok {
		addr = nth(brokerAddrs, len(c.hosts)+1)
		c.hosts[e.name], c.inside[addr] = addr, e.name
	}
	return addr, nil
}

// addSecret checks one secret and adds it to its host's.
func (c *plan) addSecret(b Brokered, authority *Authority) error {
	item := "secrets." + clip(b.Name) + ".broker"
	host, err := parseBrokered(b.Host)
	if err != nil {
		return err
	}
	if b.Header == "" {
		b.Header = "Authorization"
	}
	b.Value = strings.TrimRight(b.Value, "\r\n")
	switch {
	case !httpguts.ValidHeaderFieldName(b.Header) || notForValues(b.Header):
		return wrong(item+".header", "%q is no header that a value can be sent in", clip(b.Header))
	case len(b.Value) < redact.MinSecret || len(b.Value) > redact.MaxSecret:
		return wrong(item, "the value has to have %d to %d bytes", redact.MinSecret, redact.MaxSecret)
	case !httpguts.ValidHeaderFieldValue(b.Value):
		return wrong(item, "the value has characters that can't stand in a header")
	case len(b.Placeholder) < minPlaceholder || strings.Trim(b.Placeholder, letters) != "":
		return wrong(item, "the placeholder is not one of Caisson's")
	case !host.plain && authority == nil:
		return wrong(item, "there is no authority for %s", host)
	}
	for _, other := range c.secrets {
		if strings.Contains(other.Placeholder, b.Placeholder) || strings.Contains(b.Placeholder, other.Placeholder) {
			return wrong(item, "can't be told from %s by its placeholder", clip(other.Name))
		}
	}
	s := secret{
		Brokered: b, header: textproto.CanonicalMIMEHeaderKey(b.Header), at: host.endpoint,
		swaps: append(swaps{{[]byte(b.Value), []byte(b.Placeholder)}}, masks(b.Value)...),
	}
	c.secrets = append(c.secrets, s)
	known := c.brokers[host.endpoint]
	if known == nil {
		known = &brokerHost{endpoint: host.endpoint, plain: host.plain}
		c.brokers[host.endpoint] = known
	}
	if known.plain != host.plain {
		return wrong(item+".host", "%s is there with and without http://", host)
	}
	known.secrets = append(known.secrets, s)
	return nil
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"

// notForValues reports whether a header belongs to the connection: a value in it
// would be read by somebody else, or by nobody.
func notForValues(header string) bool {
	switch textproto.CanonicalMIMEHeaderKey(header) {
	case "Host", "Connection", "Content-Length", "Transfer-Encoding", "Te", "Trailer", "Upgrade", "Expect",
		"Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Accept-Encoding":
		return true
	}
	return false
}

// parseBrokered reads Brokered.Host.
func parseBrokered(s string) (*brokerHost, error) {
	rest, plain := strings.CutPrefix(s, "http://")
	if !plain {
		rest = strings.TrimPrefix(s, "https://")
	}
	host, port, err := splitPort(rest)
	if err != nil {
		return nil, invalid(s, err)
	}
	b := &brokerHost{plain: plain, endpoint: endpoint{port: port}}
	if b.name, b.addr, err = parseHost(host); err != nil {
		return nil, invalid(s, err)
	}
	switch {
	case port != 0:
	case plain:
		b.port = httpPort
	default:
		b.port = httpsPort
	}
	return b, nil
}

// gateway lists the sockets. Where everything arrives, one socket serves all
// addresses at its port.
func (c *plan) gateway() *engine.Gateway {
	g := &engine.Gateway{Everything: c.everything, Names: map[string]string{}}
	for name, addr := range c.hosts {
		g.Names[name] = addr.String()
	}
	if !c.everything {
		for _, at := range c.targets {
			g.Sockets = append(g.Sockets, engine.Socket{Network: "tcp", Address: at.String()})
		}
		return g
	}
	g.Resolver = resolverAddr.String()
	dns := netip.AddrPortFrom(resolverAddr, dnsPort).String()
	g.Sockets = append(g.Sockets, engine.Socket{Network: "udp", Address: dns})
	ports := c.ports()
	if !slices.Contains(ports, dnsPort) {
		g.Sockets = append(g.Sockets, engine.Socket{Network: "tcp", Address: dns})
	}
	for _, port := range ports {
		at := netip.AddrPortFrom(netip.IPv6Unspecified(), port)
		g.Sockets = append(g.Sockets, engine.Socket{Network: "tcp", Address: at.String()})
	}
	return g
}

// ports returns the ports that anything is allowed at, and those of the web, at
// which programs are told why they may not.
func (c *plan) ports() []uint16 {
	ports := []uint16{httpPort, httpsPort}
	for _, r := range c.rules {
		ports = append(ports, r.port)
	}
	for e := range c.brokers {
		ports = append(ports, e.port)
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}
