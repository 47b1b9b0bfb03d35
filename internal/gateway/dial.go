package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caissonrun/caisson/internal/netguard"
)

// Times and bounds of connections to the outside.
const (
	lookupTimeout = 10 * time.Second
	dialTimeout   = 10 * time.Second // for one address
	maxAddrs      = 8                // of one name that are tried
	maxDests      = 8192             // different hosts and ports of one attempt
	// repinAfter is how old an answer has to be to be asked for anew after none of
	// its addresses could be connected to.
	repinAfter = 10 * time.Second
)

// A dest is an allowed endpoint with the addresses that it was found at. They
// stay as long as one of them can be connected to.
type dest struct {
	endpoint
	broker *brokerHost // nil: bytes pass as they are

	mu     sync.Mutex
	addrs  []netip.Addr
	pinned time.Time

	transport *http.Transport
	forward   http.Handler // for requests that were checked
}

// errPrivate is what a name leads to that may not be reached; its text is told
// to the task and in its result.
type errPrivate struct {
	addr  netip.Addr
	never bool // no list could change that
}

func (e *errPrivate) Error() string {
	text := fmt.Sprintf("leads to %s, which is not a public address", e.addr)
	if !e.never {
		text += ": list the address itself to allow it"
	}
	return text
}

var errTooMany = errors.New("too many different hosts were reached")

// dest returns what is known of an allowed endpoint. Errors: errTooMany;
// net.ErrClosed after Close.
func (s *Server) dest(e endpoint) (*dest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d, ok := s.dests[e]; ok {
		return d, nil
	}
	if s.dests == nil {
		return nil, net.ErrClosed
	}
	if len(s.dests) >= maxDests {
		return nil, errTooMany
	}
	d := &dest{endpoint: e, broker: s.plan.brokers[e]}
	d.transport = s.transport(d)
	d.forward = s.forward(d)
	s.dests[e] = d
	return d, nil
}

// connect connects to an address of a dest that was checked. Where none of those
// that are pinned answers, the name is looked up once more, and checked again.
func (s *Server) connect(ctx context.Context, d *dest) (net.Conn, error) {
	addrs, at, err := s.pin(ctx, d, time.Time{})
	if err != nil {
		return nil, err
	}
	conn, err := s.dialAny(ctx, addrs, d.port)
	if err == nil || ctx.Err() != nil || d.addr.IsValid() || time.Since(at) < repinAfter {
		return conn, err
	}
	if addrs, _, err = s.pin(ctx, d, at); err != nil {
		return nil, err
	}
	return s.dialAny(ctx, addrs, d.port)
}

// pin returns the addresses of a dest, and since when they are known. They are
// looked up if there are none, or only those from a time that did not answer.
func (s *Server) pin(ctx context.Context, d *dest, stale time.Time) ([]netip.Addr, time.Time, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.addrs) > 0 && !d.pinned.Equal(stale) {
		return d.addrs, d.pinned, nil
	}
	found := []netip.Addr{d.addr}
	if !d.addr.IsValid() {
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		var err error
		if found, err = s.opts.Lookup(ctx, d.name); err != nil {
			return nil, time.Time{}, err
		}
	}
	addrs, err := s.reachable(d, found)
	if err != nil {
		return nil, time.Time{}, err
	}
	d.addrs, d.pinned = addrs, time.Now()
	return d.addrs, d.pinned, nil
}

// reachable returns those of the addresses that a dest may lead to.
func (s *Server) reachable(d *dest, found []netip.Addr) ([]netip.Addr, error) {
	own := ownAddrs()
	var addrs []netip.Addr
	var refused error = fmt.Errorf("%s has no address", d.name)
	for _, addr := range found {
		addr = addr.Unmap()
		if !s.mayLead(d, addr, own) {
			refused = &errPrivate{addr: addr, never: s.plan.publicOnly}
			continue
		}
		if len(addrs) < maxAddrs && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return nil, refused
	}
	return addrs, nil
}

// mayLead reports whether an address may be connected to for a dest: it is of
// the public Internet and none of this host's, or it is listed itself, or it has
// to prove by a certificate that it is the host that a secret is for.
func (s *Server) mayLead(d *dest, addr netip.Addr, own []netip.Addr) bool {
	if addr.Zone() != "" {
		return false
	}
	if netguard.Public(addr) && !slices.Contains(own, addr) {
		return true
	}
	if s.plan.publicOnly {
		return false
	}
	if d.broker != nil && !d.broker.plain {
		return true
	}
	return s.plan.allows(endpoint{addr: addr, port: d.port})
}

// ownAddrs returns the addresses of this host.
func ownAddrs() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var addrs []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			addrs = append(addrs, p.Addr().Unmap())
		}
	}
	return addrs
}

// dialAny connects to the first address that answers.
func (s *Server) dialAny(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	var errs []error
	for _, addr := range addrs {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		conn, err := s.opts.Dial(ctx, netip.AddrPortFrom(addr, port))
		cancel()
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errs[0]
}

// lookup asks this host's resolver. A name with dots is asked for as it is, not
// below the host's own domains.
func lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	if strings.Contains(name, ".") {
		name += "."
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

func dialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", to.String())
}
