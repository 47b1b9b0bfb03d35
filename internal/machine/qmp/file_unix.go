//go:build unix

package qmp

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/caissonrun/caisson"
)

// SendFile gives QEMU a file by a name of the caller's choice: for fd:NAME in a
// migration, or AddVNC. QEMU needs no right to the file's path. It stays the
// caller's, who may close it afterwards.
//
// Errors: those of Do; ErrUnsupported over anything but a unix socket.
func (c *Client) SendFile(ctx context.Context, name string, file *os.File) error {
	conn, ok := c.conn.(*net.UnixConn)
	if !ok {
		return &caisson.Error{Item: "qemu", Kind: caisson.ErrUnsupported, Err: errors.New("files go over unix sockets only")}
	}
	send := func(message []byte) (n int, err error) {
		err = control(file, func(fd int) (err error) {
			// The first byte carries the descriptor.
			n, _, err = conn.WriteMsgUnix(message, syscall.UnixRights(fd), nil)
			return err
		})
		if err != nil || n == len(message) {
			return n, err
		}
		more, err := conn.Write(message[n:])
		return n + more, err
	}
	return c.do(ctx, "getfd", map[string]any{"fdname": name}, nil, send)
}

// control calls f with the file's descriptor, which stays as it is: Fd would make
// it blocking.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
