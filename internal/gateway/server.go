package gateway

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// Options are what a Server can be given. The zero value is usable.
type Options struct {
	// Lookup finds the addresses of an allowed name. Nil: as this host does.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	// Dial connects to an address that was checked. Nil: TCP.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// Roots are trusted for the hosts of brokered secrets. Nil: those of the host.
	Roots *x509.CertPool
	// HeaderTimeout is how long the server of an HTTP request may take to begin
	// its answer. 0: 5 minutes.
	HeaderTimeout time.Duration
	// Logger gets what is wrong with handlers. Nil: nothing is logged.
	Logger *slog.Logger
	// Blocked is told of each thing that was blocked when it is tried for the first
	// time, at most caisson.MaxBlocked of them, one after the other, from several
	// goroutines. It must not block for long.
	Blocked func(caisson.Blocked)
}

// A Server serves the sockets of one attempt's sandboxes by one policy. Names
// that were looked up, addresses and what was blocked are shared by all of them.
type Server struct{}

// New returns a Server for a policy. Errors: those of Policy.Check.
func New(p *Policy, opts *Options) (*Server, error) {
	return nil, caisson.ErrUnsupported
}

// Serve serves sockets that an engine has opened, until ctx ends: the sandbox
// is gone, or another process takes over. Then it closes them and all that came
// through them, and returns when nothing of it is left. It may be called for
// several sandboxes at once.
func (s *Server) Serve(ctx context.Context, sockets []engine.OpenSocket) {}

// Close gives up what the server holds outside. It is called after the last
// Serve has returned.
func (s *Server) Close() {}

// Blocked returns what was blocked, at most caisson.MaxBlocked entries with how
// often each was tried, and how often anything else was.
func (s *Server) Blocked() (list []caisson.Blocked, rest int) { return nil, 0 }
