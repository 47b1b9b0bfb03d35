//go:build unix

package qemu

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper/server"
)

// A metaBox is a machine without an agent, whose system asks for its task at a
// metadata service (meta.go). QEMU's user-mode network connects wherever the guest
// wants to, and QEMU is in a network that has nothing but this one socket.
type metaBox struct {
	b       *box
	meta    *metadata
	proxies *metaProxies // nil without any
	http    *http.Server
	done    chan struct{} // closed when nobody serves any more

	mu   sync.Mutex
	main *metaMain // nil before Spawn
}

// A metaMain is the task's program, of which its own word is all that is known.
type metaMain struct {
	end func(code, signal int)
	out *os.File
	// Lost says that the machine has ended before the program has.
	lost bool
	over bool
}

var (
	_ server.Box        = (*metaBox)(nil)
	_ server.Drainer    = (*metaBox)(nil)
	_ server.Gatekeeper = (*metaBox)(nil)
)

const (
	// metaConnections bounds what a guest can have open at the service.
	metaConnections = 64
	metaHeaders     = 64 << 10
	metaHeaderTime  = 30 * time.Second
	// logTime is how long what a guest has not yet sent of its log is waited for.
	logTime = 10 * time.Second
)

// openMeta starts a machine and waits until its system asks for something.
func openMeta(b *box) (_ *metaBox, err error) {
	m := &metaBox{b: b, done: make(chan struct{})}
	m.meta = newMetadata(m)
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	ctx, cancel := within(b.patience())
	defer cancel()
	port, err := b.start(ctx)
	if err != nil {
		return nil, b.whyNot(ctx, err)
	}
	port.Close() // nobody listens there
	listener, err := m.listen()
	if err != nil {
		return nil, err
	}
	if g := b.spec.Guest.Gateway; g != nil {
		if m.proxies, err = newMetaProxies(g, b.spec.Proxies); err != nil {
			listener.Close()
			return nil, err
		}
		m.meta.proxies = m.proxies
	}
	m.http = &http.Server{
		Handler: m.meta, ReadHeaderTimeout: metaHeaderTime, MaxHeaderBytes: metaHeaders, IdleTimeout: 2 * time.Minute,
		// What a guest does wrong is its own affair, and not for a file of this host's.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go func() {
		defer close(m.done)
		_ = m.http.Serve(newBounded(listener, metaConnections))
	}()
	go m.watch()
	select {
	case <-m.meta.asked:
		return m, nil
	case <-b.over:
		return nil, boot(caisson.ErrUnavailable, "%w; its last words: %s", b.gone(), b.lastWords())
	case <-ctx.Done():
		return nil, boot(caisson.ErrUnavailable, "nobody has asked for the task at http://%s within %v: the machine's image must do so when it boots; its last words: %s",
			metaAddress, b.patience(), b.lastWords())
	}
}

// listen returns the socket of the service.
func (m *metaBox) listen() (net.Listener, error) {
	fds, err := m.b.qemu.Sockets()
	if err != nil {
		return nil, err
	}
	if len(fds) != 1 {
		return nil, fmt.Errorf("caisson: bug: %d sockets of a metadata service", len(fds))
	}
	f := os.NewFile(uintptr(fds[0]), "metadata")
	defer f.Close()
	return net.FileListener(f)
}

// watch sees the machine to its end.
func (m *metaBox) watch() {
	b := m.b
	defer close(b.over)
	<-b.proc.Done()
	select {
	case <-b.console.done:
	case <-time.After(partTime):
	}
	why := b.why()
	b.mu.Lock()
	if !b.closing {
		b.lost = &lostError{why}
	}
	b.mu.Unlock()
	m.finish(0, int(syscall.SIGKILL), true)
}

// finish ends the program, once. What it has sent of its log is all that comes.
func (m *metaBox) finish(code, signal int, lost bool) {
	m.mu.Lock()
	main := m.main
	if main == nil || main.over {
		m.mu.Unlock()
		return
	}
	main.over, main.lost = true, lost
	m.mu.Unlock()
	m.meta.endLog()
	main.out.Close()
	main.end(code, signal)
}

// Spawn implements server.Box: the task's program alone can be started, by telling it
// to whoever asks.
func (m *metaBox) Spawn(p *isolate.Program, _, stdout, _ *os.File) (*isolate.Proc, error) {
	if err := m.b.mayStart(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.main != nil || p.Terminal || stdout == nil {
		return nil, unsupported("a machine without an agent runs the task's program alone")
	}
	out, err := duplicate(stdout)
	if err != nil {
		return nil, err
	}
	proc, end := isolate.NewProc(m.signal)
	m.main = &metaMain{end: end, out: out}
	m.meta.begin(p, out)
	return proc, nil
}

// signal asks for the program's end. A guest that does not listen is ended later, by
// Kill.
func (m *metaBox) signal(number int) error {
	switch syscall.Signal(number) {
	case syscall.SIGKILL:
		return m.b.qemu.Kill()
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT:
		m.meta.ask("kill-process")
		return nil
	}
	return unsupported("a machine without an agent can only be asked to end its program")
}

// Root implements server.Box.
func (m *metaBox) Root() (*os.File, error) { return m.b.Root() }

// Kill implements server.Box: it ends the machine.
func (m *metaBox) Kill() error {
	if m.b.gone() != nil {
		return nil
	}
	if err := m.b.qemu.Kill(); err != nil {
		return err
	}
	select {
	case <-m.b.over:
	case <-time.After(partTime + endTime):
	}
	return nil
}

// Freeze implements server.Box.
func (m *metaBox) Freeze(on bool) error {
	if err := m.b.gone(); err != nil {
		return err
	}
	ctx, cancel := within(callTime)
	defer cancel()
	do := m.b.qmp.Continue
	if on {
		do = m.b.qmp.Pause
	}
	if err := do(ctx); err != nil {
		return m.b.said("pause", err)
	}
	m.b.setPaused(on)
	return nil
}

// Stats implements server.Box: what the machine uses, as its host sees it.
func (m *metaBox) Stats() (isolate.Stats, error) { return m.b.qemu.Stats() }

// Drain implements server.Drainer.
func (m *metaBox) Drain() error {
	m.mu.Lock()
	lost := m.main != nil && m.main.lost
	m.mu.Unlock()
	if !lost {
		return nil
	}
	m.b.mu.Lock()
	defer m.b.mu.Unlock()
	return m.b.lost
}

// Close implements server.Box: it ends the machine, and who serves it.
func (m *metaBox) Close() error {
	b := m.b
	b.mu.Lock()
	b.closing = true
	b.mu.Unlock()
	var err error
	if b.qemu != nil {
		err = b.qemu.Close()
	}
	if b.qmp != nil {
		err = errors.Join(err, b.qmp.Close())
	}
	if m.http != nil {
		m.meta.close()
		err = errors.Join(err, m.http.Close())
		<-m.done
		<-b.over
	}
	if m.proxies != nil && m.proxies.gate != nil {
		err = errors.Join(err, m.proxies.gate.Close())
	}
	return err
}

// A bounded listener has so many connections at once at most; others wait.
type bounded struct {
	net.Listener
	free chan struct{}
	once sync.Once
	shut chan struct{}
}

func newBounded(l net.Listener, most int) *bounded {
	return &bounded{Listener: l, free: make(chan struct{}, most), shut: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *bounded) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.shut:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &boundedConn{Conn: c, l: l}, nil
}

// Close implements net.Listener.
func (l *bounded) Close() error {
	l.once.Do(func() { close(l.shut) })
	return l.Listener.Close()
}

type boundedConn struct {
	net.Conn
	l    *bounded
	once sync.Once
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.once.Do(func() { <-c.l.free })
	return c.Conn.Close()
}

// environment makes a map of variables.
func environment(list []string) map[string]string {
	out := make(map[string]string, len(list))
	for _, v := range list {
		name, value, _ := strings.Cut(v, "=")
		out[name] = value
	}
	return out
}
