package gateway

import (
	"io"
	"net"
	"sync"
)

// relay passes bytes between two connections until both directions have ended,
// or one has failed. The end of one direction is passed on, too. Between TCP
// connections the kernel moves the bytes. There is no limit of time: the kernel
// finds out when the other side is gone (TCP keep-alive).
func relay(a, b net.Conn) {
	var wait sync.WaitGroup
	wait.Go(func() { pass(a, b) })
	pass(b, a)
	wait.Wait()
}

// pass copies one direction. If it fails, both ends are of no more use.
func pass(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	closeWrite(to)
}

func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
		return
	}
	conn.Close()
}
