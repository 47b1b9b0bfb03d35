package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/rfb"
)

const (
	// maxViewers is how many are served at once.
	maxViewers = 32
	// viewingPoll is how often it is looked whether the sandbox is over.
	viewingPoll = time.Second
	// maxSocketPath is what every system takes.
	maxSocketPath = 103
)

// A viewingPlace is where viewers connect to: a path, or an address.
type viewingPlace struct {
	path    string
	address string
}

// parseViewing reads the argument of --vnc. An address that others reach must be
// permitted.
func parseViewing(text string, remote bool) (viewingPlace, error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok || strings.Contains(text, "/") {
		if path == "" {
			return viewingPlace{}, errors.New("--vnc: no path")
		}
		return viewingPlace{path: path}, nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = "", text
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return viewingPlace{}, fmt.Errorf("--vnc: %q is neither a path, nor a port, nor HOST:PORT", text)
	}
	if host == "" || host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return viewingPlace{}, fmt.Errorf("--vnc: %q is no IP address", host)
	}
	if !ip.Unmap().IsLoopback() && !remote {
		return viewingPlace{}, fmt.Errorf("--vnc: others than this host's users could connect to %s, without a password; use a path, 127.0.0.1, or --allow-remote", ip)
	}
	return viewingPlace{address: net.JoinHostPort(host, port)}, nil
}

// listen listens there. Nobody but this user can connect to a path.
func (p viewingPlace) listen() (l net.Listener, shown string, err error) {
	if p.address != "" {
		if l, err = net.Listen("tcp", p.address); err != nil {
			return nil, "", err
		}
		return l, l.Addr().String(), nil
	}
	if l, err = listenPrivately(p.path); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, "", &caisson.Error{Op: caisson.OpDisplay, Item: p.path, Kind: caisson.ErrExists, Err: errors.New("the file exists; remove it first")}
		}
		return nil, "", &caisson.Error{Op: caisson.OpDisplay, Item: p.path, Kind: caisson.ErrInvalid, Err: err}
	}
	return l, "unix:" + p.path, nil
}

// close ends what listen has made.
func (p viewingPlace) close(l net.Listener) {
	if p.path != "" {
		_ = os.Remove(p.path)
	}
	l.Close()
}

// listenPrivately listens at a unix socket of mode 0600: nobody can connect before
// it has that.
func listenPrivately(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("a socket's path has at most %d bytes; use a shorter one", maxSocketPath)
	}
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, err
	}
	if err = os.Chmod(path, 0o600); err == nil {
		err = unix.Listen(fd, maxViewers)
	}
	var l net.Listener
	if err == nil {
		l, err = net.FileListener(f)
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return l, err
}

// serveDisplay serves viewers until ctx or the sandbox ends.
func (c *command) serveDisplay(ctx context.Context, arg, name string, at viewingPlace) error {
	host, err := c.open(ctx)
	if err != nil {
		return err
	}
	id, err := host.task(ctx, arg)
	if err != nil {
		return err
	}
	// What is wrong shows before anybody connects.
	list, err := host.Executor.Displays(ctx, id)
	if err == nil {
		list, err = chosenDisplays(list, name)
	}
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return &caisson.Error{Op: caisson.OpDisplay, Item: "task " + id, Kind: caisson.ErrNotFound, Err: errors.New("it has no displays")}
	}
	l, shown, err := at.listen()
	if err != nil {
		return err
	}
	fmt.Fprintln(c.caller.Stdout, shown)
	s := &viewings{c: c, host: host, id: id, name: list[0].Name, free: make(chan struct{}, maxViewers)}
	return s.serve(ctx, at, l)
}

// viewings are the viewers of one display.
type viewings struct {
	c    *command
	host *Host
	id   string
	name string
	free chan struct{} // has as many elements as there are viewers

	all sync.WaitGroup
	mu  sync.Mutex // of what is printed
}

// serve returns why the sandbox is over, or that ctx has ended, when nobody is
// served any more.
func (s *viewings) serve(ctx context.Context, at viewingPlace, l net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { cancel(s.over(ctx)) })
	stop := context.AfterFunc(ctx, func() { at.close(l) })
	defer func() {
		cancel(nil)
		if stop() {
			at.close(l)
		}
		s.all.Wait()
		watching.Wait()
	}()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		select {
		case s.free <- struct{}{}:
			s.all.Go(func() {
				defer func() { <-s.free }()
				s.view(ctx, conn)
			})
		default:
			s.warn(fmt.Errorf("a viewer is sent away: there are %d", maxViewers))
			conn.Close()
		}
	}
}

// over returns when the sandbox is over, and why.
func (s *viewings) over(ctx context.Context) error {
	tick := time.NewTicker(viewingPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		info, err := s.host.Executor.Inspect(ctx, s.id)
		switch {
		case err != nil:
			return err
		case info.State == caisson.StateEnded && info.KeptUntil.IsZero():
			return &caisson.Error{Op: caisson.OpDisplay, Item: "task " + s.id, Kind: caisson.ErrEnded, Err: errors.New("it has ended")}
		}
	}
}

// view shows the display to one viewer.
func (s *viewings) view(ctx context.Context, viewer net.Conn) {
	defer viewer.Close()
	display, err := s.host.Executor.OpenDisplay(ctx, s.id, s.name)
	if err != nil {
		if ctx.Err() == nil {
			s.warn(err)
		}
		return
	}
	defer display.Close()
	end := func() {
		viewer.Close()
		display.Close()
	}
	defer context.AfterFunc(ctx, end)()
	var both sync.WaitGroup
	both.Go(func() {
		_ = rfb.Share(display, viewer)
		end()
	})
	_, _ = io.Copy(viewer, display)
	end()
	both.Wait()
}

// warn tells what one viewer does not get.
func (s *viewings) warn(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.c.caller.Stderr, "caisson: display: %s: %s\n", oneLine(s.name), oneLine(err.Error()))
}
