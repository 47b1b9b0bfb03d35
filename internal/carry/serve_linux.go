package carry

import (
	"errors"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Listener returns what accepts the connections of a socket for TCP at addr, by the
// end that a Carrier has handed out, which stays the caller's. Connections have
// CloseWrite, and as their local address the one that they were meant for.
//
// It may be used by several goroutines. Once the Carrier is shut, Accept returns
// net.ErrClosed.
func Listener(end *os.File, addr net.Addr) (net.Listener, error) {
	conn, err := shared(end)
	if err != nil {
		return nil, err
	}
	return &listener{conn: conn, addr: addr}, nil
}

// Packets returns a socket for datagrams at addr, in the same way. Writing never
// waits; a datagram may be lost.
func Packets(end *os.File, addr net.Addr) (net.PacketConn, error) {
	conn, err := shared(end)
	if err != nil {
		return nil, err
	}
	return &packets{UnixConn: conn, addr: addr}, nil
}

// shared returns a connection of its own to what a Carrier has handed out.
func shared(end *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(end)
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, errors.New("not the end of a carrier")
	}
	return u, nil
}

// A listener takes connections out of messages.
type listener struct {
	conn *net.UnixConn
	addr net.Addr
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.receive()
		if err != nil {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: err}
		}
		if conn != nil {
			return conn, nil
		}
	}
}

// receive takes one message; nil if that is none that this program knows.
func (l *listener) receive() (net.Conn, error) {
	buf, oob := make([]byte, connSize+1), make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := l.conn.ReadMsgUnix(buf, oob)
	if err != nil || n == 0 {
		return nil, closed(err)
	}
	fds := rights(oob[:oobn])
	local, remote, ok := readConn(buf[:n])
	if !ok || len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		if ok && flags&unix.MSG_CTRUNC != 0 {
			// The connection is lost: this process has no room for it.
			return nil, os.NewSyscallError("recvmsg", unix.EMFILE)
		}
		return nil, nil
	}
	stream, err := unixConn(fds[0])
	if err != nil {
		return nil, err
	}
	return &conn{UnixConn: stream, local: net.TCPAddrFromAddrPort(local), remote: net.TCPAddrFromAddrPort(remote)}, nil
}

// closed returns what has become of an end, by the error of a call that waited there:
// net.ErrClosed where the Carrier is shut.
func closed(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	return err
}

// Close implements net.Listener. Who waits is left to others.
func (l *listener) Close() error { return l.conn.Close() }

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }

// A conn is a connection, with the addresses that it has where it comes from.
type conn struct {
	*net.UnixConn
	local, remote net.Addr
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// A packets is a socket for datagrams. Its deadlines are those of the connection.
type packets struct {
	*net.UnixConn
	addr net.Addr
}

// ReadFrom implements net.PacketConn.
func (p *packets) ReadFrom(buf []byte) (int, net.Addr, error) {
	raw, err := p.SyscallConn()
	if err != nil {
		return 0, nil, p.failed("read", err)
	}
	head := make([]byte, packetHead)
	for {
		var n int
		var readErr error
		err := raw.Read(func(fd uintptr) bool {
			n, readErr = receiveNow(int(fd), head, buf)
			return !errors.Is(readErr, unix.EAGAIN)
		})
		if err == nil {
			err = readErr
		}
		if err != nil || n == 0 {
			return 0, nil, p.failed("read", err)
		}
		if peer, ok := readPacket(head[:min(n, packetHead)]); ok {
			return n - packetHead, net.UDPAddrFromAddrPort(peer), nil
		}
	}
}

// receiveNow receives a message that is there.
func receiveNow(fd int, parts ...[]byte) (int, error) {
	for {
		n, _, _, _, err := unix.RecvmsgBuffers(fd, parts, nil, unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// WriteTo implements net.PacketConn.
func (p *packets) WriteTo(data []byte, to net.Addr) (int, error) {
	if len(data) > MaxDatagram {
		return 0, &net.OpError{Op: "write", Net: "udp", Source: p.addr, Addr: to, Err: os.NewSyscallError("sendmsg", unix.EMSGSIZE)}
	}
	if sendNow(p.UnixConn, [][]byte{packetMessage(addrPort(to)), data}) == net.ErrClosed {
		return 0, p.failed("write", net.ErrClosed)
	}
	return len(data), nil
}

func (p *packets) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: p.addr, Err: closed(err)}
}

// LocalAddr implements net.PacketConn.
func (p *packets) LocalAddr() net.Addr { return p.addr }
