package kept

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

// canConnect says that connectTo can work.
const canConnect = true

// connectTo connects to a unix socket below a folder. It never waits.
func connectTo(root *safefs.Root, name string) (net.Conn, error) {
	socket, err := root.Socket(name)
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: safefs.SocketPath(socket)})
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		err = &caisson.Error{Item: name, Kind: caisson.ErrUnavailable, Err: errors.New("nothing listens there in the sandbox")}
	case errors.Is(err, unix.EAGAIN):
		err = &caisson.Error{Item: name, Kind: caisson.ErrUnavailable, Err: errors.New("as many wait there already as its server permits")}
	}
	if err != nil {
		return nil, err
	}
	return net.FileConn(f)
}
