package gelf

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
)

// The ways to send, as in a component's gelf_server_type.
const (
	TCP  = "tcp"
	UDP  = "udp"
	HTTP = "http"
)

// The defaults of Options.
const (
	DefaultMaxMessage = 200 << 10
	DefaultMaxConns   = 64
)

// drainTime is how long Close waits for what senders have sent already: a
// sender that does not end must not keep it.
const drainTime = time.Second

// Options says how to listen.
type Options struct {
	// Type is TCP, UDP or HTTP; empty: TCP.
	Type string
	// Message is called for each message, by one goroutine, in the order in which
	// a sender sent them. While it blocks, senders wait (TCP, HTTP) or lose
	// messages (UDP). Never nil.
	Message func(*Message)
	// MaxMessage is how long a message may be, in bytes, also when it is
	// decompressed; 0: DefaultMaxMessage.
	MaxMessage int
	// MaxConns is how many senders may be connected; more wait. 0:
	// DefaultMaxConns.
	MaxConns int
}

// A Listener takes messages until it is closed.
type Listener struct {
	opts  Options
	queue chan *Message
	slots chan struct{} // one for each connection
	done  chan struct{} // closed when Close begins
	now   func() time.Time

	stream  net.Listener
	packets net.PacketConn
	server  *http.Server

	senders sync.WaitGroup // goroutines that put into queue
	giver   sync.WaitGroup // the one that empties it
	closing sync.Once

	mu     sync.Mutex
	conns  map[net.Conn]struct{} // TCP
	sealed bool
}

// Listen listens on address, such as "127.0.0.1:0". Errors: ErrInvalid for an
// unknown type; ErrUnavailable if the address can't be had.
func Listen(address string, opts Options) (*Listener, error) {
	stream, packets, err := open(address, opts.Type)
	if err != nil {
		return nil, err
	}
	return Serve(stream, packets, opts), nil
}

// open opens the socket for a type.
func open(address, kind string) (stream net.Listener, packets net.PacketConn, err error) {
	switch kind {
	case TCP, HTTP, "":
		stream, err = net.Listen("tcp", address)
	case UDP:
		packets, err = net.ListenPacket("udp", address)
	default:
		err = fmt.Errorf("unknown type %q: use tcp, udp or http", kind)
		return nil, nil, &caisson.Error{Op: caisson.OpStart, Item: "gelf", Kind: caisson.ErrInvalid, Err: err}
	}
	if err != nil {
		return nil, nil, &caisson.Error{Op: caisson.OpStart, Item: "gelf", Kind: caisson.ErrUnavailable, Err: err}
	}
	return stream, packets, nil
}

// Serve listens on a socket that the caller has opened: stream for TCP and HTTP,
// packets for UDP. The Listener owns it from then on.
func Serve(stream net.Listener, packets net.PacketConn, opts Options) *Listener {
	if opts.MaxMessage == 0 {
		opts.MaxMessage = DefaultMaxMessage
	}
	if opts.MaxConns == 0 {
		opts.MaxConns = DefaultMaxConns
	}
	l := &Listener{
		opts: opts, queue: make(chan *Message, 64), slots: make(chan struct{}, opts.MaxConns), done: make(chan struct{}),
		now: time.Now, stream: stream, packets: packets, conns: map[net.Conn]struct{}{},
	}
	l.giver.Add(1)
	go l.deliver()
	l.senders.Add(1)
	switch {
	case packets != nil:
		go l.receive()
	case opts.Type == HTTP:
		l.server = l.newServer()
		go l.serveHTTP()
	default:
		go l.accept()
	}
	return l
}

// Addr returns where it listens.
func (l *Listener) Addr() net.Addr {
	if l.packets != nil {
		return l.packets.LocalAddr()
	}
	return l.stream.Addr()
}

// Close stops listening, and returns once every message that had arrived was
// given to Options.Message. It waits for a second at most for senders that are
// still connected.
func (l *Listener) Close() error {
	l.closing.Do(func() {
		close(l.done)
		switch {
		case l.packets != nil:
			// What has arrived is read in any case; see receive.
			l.packets.SetReadDeadline(time.Now())
		case l.server != nil:
			l.shutdown()
		default:
			l.endStream()
		}
		l.seal()
		l.senders.Wait()
		close(l.queue)
		l.giver.Wait()
	})
	return nil
}

// shutdown lets requests that are under way end.
func (l *Listener) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if l.server.Shutdown(ctx) != nil {
		l.server.Close()
	}
}

// endStream has only what has been sent read, also by senders that are not
// accepted yet.
func (l *Listener) endStream() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.conns {
		conn.SetReadDeadline(time.Now().Add(drainTime))
	}
	if waiting, ok := l.stream.(interface{ SetDeadline(time.Time) error }); ok {
		waiting.SetDeadline(time.Now().Add(drainPerRead))
		return
	}
	l.stream.Close()
}

// seal has no more requests taken: a handler may run on after its server's end.
func (l *Listener) seal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sealed = true
}

// begin takes part in what Close waits for. It is false if that is too late.
func (l *Listener) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.sealed {
		l.senders.Add(1)
	}
	return !l.sealed
}

// deliver hands on messages.
func (l *Listener) deliver() {
	defer l.giver.Done()
	for m := range l.queue {
		l.opts.Message(m)
	}
}

// give queues a message.
func (l *Listener) give(m *Message) {
	m.Time = l.now()
	l.queue <- m
}

// take queues the message in data, or one that says what is wrong with it.
func (l *Listener) take(data []byte) bool {
	m, err := parse(data)
	if err != nil {
		m = bad(data, "%v", err)
	}
	l.give(m)
	return err == nil
}
