package carry

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// maxConns is how many connections may be open, or wait to be served, of all sockets
	// together. It is as many as a guest can have.
	maxConns = 512
	// sendBuffer is how much a socket's messages about connections may take that
	// nobody has accepted, in bytes as the kernel counts them: some forty, so that one
	// socket leaves room for others. Each holds a descriptor in flight.
	sendBuffer = 16 << 10
)

// A Carrier carries the traffic of sockets. Its methods may be called from any
// goroutine. It is a server.Gatekeeper.
type Carrier struct {
	ports []*port
	slots chan struct{} // one in it for each connection
	quit  chan struct{} // closed by Shut
	runs  sync.WaitGroup

	mu    sync.Mutex
	shut  bool
	conns map[*pumped]struct{}
}

// A port is one socket.
type port struct {
	Source
	ours *net.UnixConn
	fd   int // the other end; -1 once it is closed
}

// New begins to carry. The sources are the Carrier's from then on, also on error. One
// whose Accept or ReadFrom fails has ended.
func New(sources []Source) (*Carrier, error) {
	c := &Carrier{
		slots: make(chan struct{}, maxConns), quit: make(chan struct{}), conns: map[*pumped]struct{}{},
	}
	for i, s := range sources {
		p, err := newPort(s)
		if err != nil {
			for _, s := range sources[i:] {
				s.close()
			}
			return nil, errors.Join(err, c.Close())
		}
		c.ports = append(c.ports, p)
		if s.Listener != nil {
			c.runs.Go(func() { c.accept(p) })
			continue
		}
		c.runs.Go(p.carryOut)
		c.runs.Go(p.carryIn)
	}
	return c, nil
}

// newPort makes the pair of sockets.
func newPort(s Source) (*port, error) {
	ours, fd, err := pair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	if s.Listener != nil {
		if err := ours.SetWriteBuffer(sendBuffer); err != nil {
			return nil, errors.Join(err, ours.Close(), unix.Close(fd))
		}
	}
	return &port{Source: s, ours: ours, fd: fd}, nil
}

// pair makes two connected sockets, neither of which blocks.
func pair(kind int) (ours *net.UnixConn, theirs int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, -1, os.NewSyscallError("socketpair", err)
	}
	ours, err = unixConn(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, -1, err
	}
	return ours, fds[1], nil
}

// unixConn makes a connection of a descriptor, which is no more afterwards.
func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, errors.New("not a unix socket")
	}
	return u, nil
}

func (s *Source) close() {
	if s.Listener != nil {
		s.Listener.Close()
	} else {
		s.Packets.Close()
	}
}

// Sockets returns an end for each source, in order, for Listener or Packets in
// another process. They are the caller's to close.
//
// Errors: net.ErrClosed after Shut.
func (c *Carrier) Sockets() ([]int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return nil, net.ErrClosed
	}
	var list []int
	for _, p := range c.ports {
		fd, err := unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			for _, fd := range list {
				unix.Close(fd)
			}
			return nil, os.NewSyscallError("fcntl", err)
		}
		list = append(list, fd)
	}
	return list, nil
}

// Shut has nothing more accepted: who waits to be served is refused, and whoever
// serves gets net.ErrClosed. Connections stay. It may be called again.
func (c *Carrier) Shut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return
	}
	c.shut = true
	close(c.quit)
	for _, p := range c.ports {
		p.close()
		p.ours.Close()
		refuse(p.fd)
		unix.Close(p.fd)
		p.fd = -1
	}
}

// refuse takes what waits at an end, and drops it.
func refuse(fd int) {
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, make([]byte, connSize), oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		for _, fd := range rights(oob[:oobn]) {
			unix.Close(fd)
		}
	}
}

// rights returns the descriptors that came along with a message.
func rights(oob []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// Close is Shut, and cuts connections. Nothing of the Carrier runs when it returns.
func (c *Carrier) Close() error {
	c.Shut()
	c.mu.Lock()
	for p := range c.conns {
		p.cut()
	}
	c.mu.Unlock()
	c.runs.Wait()
	return nil
}

// accept takes a socket's connections, as long as there is room for them.
func (c *Carrier) accept(p *port) {
	for {
		conn, err := p.Listener.Accept()
		if err != nil {
			return
		}
		select {
		case c.slots <- struct{}{}:
		case <-c.quit:
			conn.Close()
			return
		}
		// A connection that can't be passed on is lost; others may be luckier.
		if err := c.pass(p, conn); err != nil {
			conn.Close()
			<-c.slots
		}
	}
}

// pass has a connection wait for who serves it. It waits itself while too many do.
// On error the connection and its slot are the caller's.
func (c *Carrier) pass(p *port, conn net.Conn) error {
	end, theirs, err := pair(unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	message := connMessage(addrPort(conn.LocalAddr()), addrPort(conn.RemoteAddr()))
	_, _, err = p.ours.WriteMsgUnix(message, unix.UnixRights(theirs), nil)
	unix.Close(theirs)
	if err != nil {
		end.Close()
		return err
	}
	q := &pumped{conn: conn, end: end}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		q.cut()
	}
	c.conns[q] = struct{}{}
	c.runs.Go(func() {
		q.pump()
		c.mu.Lock()
		delete(c.conns, q)
		c.mu.Unlock()
		<-c.slots
	})
	return nil
}

// A pumped is a connection and the end of the stream that it goes on by.
type pumped struct {
	conn net.Conn
	end  *net.UnixConn
}

// cut ends both, and what is under way between them. It may be called again.
func (p *pumped) cut() {
	p.conn.Close()
	p.end.Close()
}

// pump carries bytes both ways, and their ends, until the other end of the stream is
// closed. Before, also where the connection is over, that other end is a descriptor in
// flight, or somebody's.
func (p *pumped) pump() {
	var both sync.WaitGroup
	both.Go(func() {
		// Who does not read any more may still write.
		_, _ = io.Copy(p.end, p.conn)
		_ = p.end.CloseWrite()
	})
	both.Go(func() {
		defer p.cut()
		if _, err := io.Copy(p.conn, p.end); err != nil {
			return
		}
		if half, ok := p.conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		p.awaitHangUp()
	})
	both.Wait()
}

// awaitHangUp waits until the other end of the stream is closed, or this one is.
func (p *pumped) awaitHangUp() {
	raw, err := p.end.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		list := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(list, 0)
		return err == nil && list[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
}

// carryOut passes on what comes from the source. What nobody takes in time is lost.
func (p *port) carryOut() {
	buf := make([]byte, MaxDatagram)
	for {
		n, from, err := p.Packets.ReadFrom(buf)
		if err != nil {
			return
		}
		if sendNow(p.ours, [][]byte{packetMessage(addrPort(from)), buf[:n]}) == net.ErrClosed {
			return
		}
	}
}

// carryIn passes on what is sent in return.
func (p *port) carryIn() {
	buf := make([]byte, packetHead+MaxDatagram)
	for {
		n, err := p.ours.Read(buf)
		if err != nil {
			return
		}
		if peer, ok := readPacket(buf[:n]); ok {
			_, _ = p.Packets.WriteTo(buf[packetHead:n], net.UDPAddrFromAddrPort(peer))
		}
	}
}

// sendNow sends a message if that can be done without waiting.
//
// Errors: net.ErrClosed if nobody will ever receive it.
func sendNow(conn *net.UnixConn, message [][]byte) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return net.ErrClosed
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		_, sendErr = unix.SendmsgBuffers(int(fd), message, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return true
	})
	if err != nil || errors.Is(sendErr, unix.EPIPE) || errors.Is(sendErr, unix.ECONNRESET) {
		return net.ErrClosed
	}
	return sendErr
}
