//go:build unix

package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Conn carries frames: the length in four bytes, little-endian, and as many
// bytes of JSON. Descriptors come along with a frame's first byte. One
// goroutine may receive while others send, one at a time.
//
// It is made of raw system calls on a file of the runtime's poller, because
// package net would double the memory that a keeper needs.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
}

// ErrSlow is returned by TrySend if the other side does not read what it is
// sent.
var ErrSlow = errors.New("the other side does not read")

// newConn takes over the socket fd, which must not block.
func newConn(fd int) (*Conn, error) {
	file := os.NewFile(uintptr(fd), "socket")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &Conn{file: file, raw: raw}, nil
}

// Close closes the connection. Calls that block on it return.
func (c *Conn) Close() error { return c.file.Close() }

// SetReadDeadline bounds receiving; the zero time takes the bound away.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.file.SetReadDeadline(t) }

// SetWriteDeadline bounds sending; the zero time takes the bound away.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.file.SetWriteDeadline(t) }

// frame returns v as one frame.
func frame(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	data := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	return append(data, body...), nil
}

// Send sends v and waits until it is sent.
func (c *Conn) Send(v any) error {
	data, err := frame(v)
	if err != nil {
		return err
	}
	for len(data) > 0 {
		var n int
		var sendErr error
		err := c.raw.Write(func(fd uintptr) bool {
			n, sendErr = send(int(fd), data, nil)
			return sendErr != unix.EAGAIN
		})
		if err = errors.Join(err, sendErr); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// TrySend sends v with descriptors, which stay the caller's, if that can be
// done without waiting. After an error the connection is of no use any more.
func (c *Conn) TrySend(v any, fds ...int) error {
	data, err := frame(v)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	var n int
	var sendErr error
	err = c.raw.Write(func(fd uintptr) bool {
		n, sendErr = send(int(fd), data, rights)
		return true
	})
	if err = errors.Join(err, sendErr); err == nil && n < len(data) {
		err = ErrSlow
	}
	return err
}

func send(fd int, data, rights []byte) (int, error) {
	for {
		n, err := unix.SendmsgN(fd, data, rights, nil, sendFlags)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// Receive waits for a frame of at most limit bytes and decodes it into v. Once
// a frame has begun it must be complete within patience (0: whenever).
// Descriptors that come along are refused, by the kernel.
func (c *Conn) Receive(v any, limit int, patience time.Duration) error {
	data, _, err := c.receive(limit, patience, 0)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// ReceiveFiles is Receive that takes up to most descriptors, too.
func (c *Conn) ReceiveFiles(v any, limit, most int) ([]*os.File, error) {
	data, fds, err := c.receive(limit, 0, most)
	files := make([]*os.File, len(fds))
	for i, fd := range fds {
		files[i] = os.NewFile(uintptr(fd), "keeper")
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	return files, nil
}

// receive reads one frame. The descriptors are the caller's, also on error.
func (c *Conn) receive(limit int, patience time.Duration, most int) (body []byte, fds []int, err error) {
	var head [4]byte
	n, fds, err := c.read(head[:], most)
	if err != nil {
		return nil, fds, err
	}
	if patience > 0 {
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return nil, fds, err
		}
		defer c.SetReadDeadline(time.Time{})
	}
	if err := c.readFull(head[n:]); err != nil {
		return nil, fds, err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if uint64(size) > uint64(limit) {
		return nil, fds, fmt.Errorf("a message of %d bytes is larger than %d", size, limit)
	}
	body, err = c.readBody(int(size))
	return body, fds, err
}

// readBody reads size bytes. Memory grows with what comes, not with what was
// announced.
func (c *Conn) readBody(size int) ([]byte, error) {
	const step = 64 << 10
	var body []byte
	for len(body) < size {
		had := len(body)
		body = append(body, make([]byte, min(size-had, step))...)
		if err := c.readFull(body[had:]); err != nil {
			return nil, err
		}
	}
	return body, nil
}

func (c *Conn) readFull(p []byte) error {
	for len(p) > 0 {
		n, _, err := c.read(p, 0)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// read is one recvmsg that waits for data.
func (c *Conn) read(p []byte, most int) (n int, fds []int, err error) {
	var oob []byte
	if most > 0 {
		oob = make([]byte, unix.CmsgSpace(4*most))
	}
	var oobn int
	var readErr error
	err = c.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, _, readErr = unix.Recvmsg(int(fd), p, oob, recvFlags)
			if readErr != unix.EINTR {
				return readErr != unix.EAGAIN
			}
		}
	})
	if err = errors.Join(err, readErr); err != nil {
		return 0, nil, err
	}
	fds, err = rights(oob[:oobn])
	if err == nil && n == 0 {
		err = io.EOF
	}
	return n, fds, err
}

// rights returns the descriptors in a control message.
func rights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fds, err
		}
		fds = append(fds, got...)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds, nil
}
