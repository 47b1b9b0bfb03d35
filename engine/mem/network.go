package mem

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

var _ engine.Networker = (*Engine)(nil)

// A lan is a network of a World: one loopback address for all sandboxes on it.
type lan struct {
	id, dir, installation string
	names                 []string

	mu         sync.Mutex
	listeners  map[int]*listener // by port
	sockets    map[engine.Socket]*socket
	everything bool // every address is one of its own
	ports      int  // counts the near ends of connections
}

// A listener is a port at which a program answers.
type listener struct {
	lan    *lan
	port   int
	proc   *Proc
	calls  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// MakeNetwork implements engine.Networker.
func (e *Engine) MakeNetwork(ctx context.Context, spec *engine.NetworkSpec) error {
	f := e.features()
	if !f.Networks.Shared {
		return failure(caisson.OpCreate, nil, caisson.ErrUnsupported, "networks are not shared")
	}
	like := &engine.Spec{ID: spec.ID, Args: []string{"-"}, Network: spec.Network, DNS: spec.DNS, Ports: spec.Ports, SharedNetwork: spec.Dir}
	if err := f.Check(like); err != nil {
		return err
	}
	if err := e.enterNetwork(ctx, caisson.OpCreate, spec.ID); err != nil {
		return err
	}
	l := &lan{id: spec.ID, dir: spec.Dir, installation: e.opts.Installation, names: slices.Clone(spec.Names)}
	if err := e.world.addLAN(l); err != nil {
		return err
	}
	boot, err := engine.BootID()
	if err == nil {
		err = engine.WriteHandle(spec.Dir, &engine.Handle{Engine: e.opts.Name, ID: spec.ID, BootID: boot})
	}
	if err != nil {
		e.world.removeLAN(l)
	}
	return err
}

// RemoveNetwork implements engine.Networker.
func (e *Engine) RemoveNetwork(ctx context.Context, dir string) error {
	h, err := engine.ReadHandle(dir, e.opts.Name)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := e.enterNetwork(ctx, caisson.OpDestroy, h.ID); err != nil {
		return err
	}
	if l := e.world.lanAt(dir); l != nil {
		e.world.removeLAN(l)
	}
	err = os.Remove(filepath.Join(dir, engine.HandleFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Dial implements engine.Networker.
func (e *Engine) Dial(ctx context.Context, dir string, port int) (net.Conn, error) {
	h, err := engine.ReadHandle(dir, e.opts.Name)
	if err != nil {
		return nil, failure(caisson.OpExec, nil, caisson.ErrAborted, "the sandbox is gone")
	}
	b := e.world.find(h.ID, dir)
	if b == nil {
		return nil, failure(caisson.OpExec, nil, caisson.ErrAborted, "the sandbox is gone")
	}
	if err := e.enterNetwork(ctx, caisson.OpExec, h.ID); err != nil {
		return nil, err
	}
	conn, err := b.lan.dial(ctx, port)
	if errors.Is(err, syscall.ECONNREFUSED) {
		err = failure(caisson.OpExec, b, caisson.ErrUnavailable, "nobody listens at port "+strconv.Itoa(port))
	}
	return conn, err
}

// enterNetwork begins a call about a network, as enter does.
func (e *Engine) enterNetwork(ctx context.Context, op caisson.Op, id string) error {
	if e.closed.Load() {
		return failure(op, nil, caisson.ErrUnavailable, "the engine is closed")
	}
	if e.opts.Fault != nil {
		if err := obey(ctx, e.opts.Fault(op, id), nil); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// addLAN makes a network live.
func (w *World) addLAN(l *lan) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.live[l.id] != nil || w.lans[l.id] != nil {
		return failure(caisson.OpCreate, nil, caisson.ErrExists, l.id+" lives")
	}
	w.lans[l.id] = l
	return nil
}

func (w *World) removeLAN(l *lan) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lans[l.id] == l {
		delete(w.lans, l.id)
	}
}

// lanAt returns the live network whose folder is dir, or nil.
func (w *World) lanAt(dir string) *lan {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.lans {
		if l.dir == dir {
			return l
		}
	}
	return nil
}

// sweepLANs removes the networks of an installation that nobody owns.
func (w *World) sweepLANs(installation string, live []string) (removed []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, l := range w.lans {
		if l.installation == installation && !slices.Contains(live, id) {
			delete(w.lans, id)
			removed = append(removed, id)
		}
	}
	return removed
}

// join puts a box on its network: the shared one that its spec names, or one of
// its own.
func (b *box) join() error {
	b.lan = &lan{}
	if b.spec.SharedNetwork == "" {
		return nil
	}
	if b.lan = b.world.lanAt(b.spec.SharedNetwork); b.lan == nil {
		return failure(caisson.OpCreate, b, caisson.ErrNotFound, "its shared network is gone")
	}
	return nil
}

// Listen opens a TCP port of the sandbox's network, until the process ends.
func (p *Proc) Listen(port int) (net.Listener, error) {
	p.checkpoint()
	l := &listener{lan: p.box.lan, port: port, proc: p, calls: make(chan net.Conn), closed: make(chan struct{})}
	l.lan.mu.Lock()
	defer l.lan.mu.Unlock()
	if old := l.lan.listeners[port]; old != nil && !old.over() {
		return nil, syscall.EADDRINUSE
	}
	for _, s := range l.lan.sockets {
		if s.Network == "tcp" && int(s.at.Port()) == port {
			return nil, syscall.EADDRINUSE
		}
	}
	if l.lan.listeners == nil {
		l.lan.listeners = make(map[int]*listener)
	}
	l.lan.listeners[port] = l
	return l, nil
}

// Connect opens a connection to an address of the sandbox's network. There is
// nobody but sandboxes on the same one, and its gateway.
func (p *Proc) Connect(network, address string) (net.Conn, error) {
	p.checkpoint()
	host, text, err := net.SplitHostPort(address)
	port, portErr := strconv.ParseUint(text, 10, 16)
	if err != nil || portErr != nil || network != "tcp" && network != "udp" {
		return nil, syscall.ENETUNREACH
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		found, err := p.Resolve(host)
		if err != nil {
			return nil, err
		}
		ip = netip.MustParseAddr(found[0])
	}
	to := netip.AddrPortFrom(ip.Unmap(), uint16(port))
	switch conn, err := p.callGateway(network, to); {
	case conn != nil || err != nil:
		return conn, err
	case !p.box.lan.reaches(to.Addr()):
		return nil, syscall.ENETUNREACH
	case network == "udp":
		return nil, syscall.ECONNREFUSED
	}
	return p.box.lan.dial(p.ctx, int(port))
}

// dial connects to a port.
func (l *lan) dial(ctx context.Context, port int) (net.Conn, error) {
	l.mu.Lock()
	at := l.listeners[port]
	l.mu.Unlock()
	if at == nil || at.over() {
		return nil, syscall.ECONNREFUSED
	}
	ours, theirs := net.Pipe()
	select {
	case at.calls <- theirs:
		return ours, nil
	case <-at.closed:
	case <-at.proc.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return nil, syscall.ECONNREFUSED
}

// over reports whether nobody listens any more.
func (l *listener) over() bool {
	select {
	case <-l.closed:
		return true
	case <-l.proc.done:
		return true
	default:
		return false
	}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.calls:
		return c, nil
	case <-l.closed:
	case <-l.proc.ctx.Done():
	}
	return nil, io.EOF
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: l.port}
}
