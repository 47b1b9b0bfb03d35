package kept

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/network"
	"github.com/caissonrun/caisson/internal/rfb"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/keeper"
)

// OpDisplay is the request by which a box that has a screen of its own is asked
// for a viewer's end of a connection to it (keeper.Client.Do): one file.
const OpDisplay = "display"

// sizeTime is how long a screen may take to tell its size.
const sizeTime = 5 * time.Second

var _ engine.Displayer = bare{}

// Displays implements engine.Displayer.
func (b bare) Displays(ctx context.Context) ([]engine.Display, error) {
	s := b.sandbox
	if _, err := s.showing(ctx); err != nil {
		return nil, err
	}
	list := make([]engine.Display, 0, len(s.rec.Displays))
	for _, d := range s.rec.Displays {
		shown := engine.Display{Name: d.Name, Description: d.Description, Width: d.Width, Height: d.Height}
		if !d.Server() {
			width, height, err := s.screenSize(ctx)
			if err != nil && ctx.Err() != nil {
				return nil, ctx.Err()
			}
			shown.Width, shown.Height = width, height
		}
		list = append(list, shown)
	}
	return list, nil
}

// OpenDisplay implements engine.Displayer.
func (b bare) OpenDisplay(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	s := b.sandbox
	status, err := s.showing(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(s.rec.Displays, func(d caisson.Display) bool { return d.Name == name })
	if i < 0 {
		return nil, &caisson.Error{Op: caisson.OpDisplay, Item: fmt.Sprintf("%q", name), Kind: caisson.ErrNotFound, Err: s.rec.displayNames()}
	}
	conn, err := s.openDisplay(ctx, &s.rec.Displays[i], status)
	if err != nil {
		return nil, s.said(caisson.OpDisplay, err)
	}
	return conn, nil
}

// showable reports whether the screen of the sandbox's own can be looked at, or,
// where it has none, whether a VNC server in it could be reached.
func (s *sandbox) showable(ctx context.Context) bool {
	if own := func(d caisson.Display) bool { return !d.Server() }; slices.ContainsFunc(s.rec.Displays, own) {
		width, height, err := s.screenSize(ctx)
		return err == nil && width > 0 && height > 0
	}
	if s.rec.Isolation == None || !canConnect {
		return false
	}
	root, err := s.root(ctx)
	if err != nil {
		return false
	}
	root.Close()
	return true
}

// displayNames says which displays there are.
func (r *Record) displayNames() error {
	if len(r.Displays) == 0 {
		return errors.New("the task has no displays")
	}
	var names []string
	for _, d := range r.Displays {
		names = append(names, d.Name)
	}
	return errors.New("no such display; there is " + strings.Join(names, ", "))
}

// showing returns the keeper's status where the sandbox's displays can be seen.
func (s *sandbox) showing(ctx context.Context) (*keeper.Status, error) {
	const op = caisson.OpDisplay
	if err := s.alive(op); err != nil {
		return nil, err
	}
	if !s.shown {
		return nil, &caisson.Error{Op: op, Item: s.id, Kind: caisson.ErrUnsupported, Err: errors.New("this sandbox can't have displays")}
	}
	if s.keeper() == nil {
		return nil, s.left(op)
	}
	status, err := s.keeper().Status(ctx)
	if err != nil && s.gone(ctx, err) && s.revived(ctx) {
		status, err = s.keeper().Status(ctx)
	}
	switch {
	case err != nil && s.gone(ctx, err):
		return nil, s.left(op)
	case err != nil:
		return nil, s.said(op, err)
	case !status.Started:
		return nil, &caisson.Error{Op: op, Item: s.id, Kind: caisson.ErrUnavailable, Err: errors.New("the program was not started yet")}
	case status.Exit != nil && !status.Kept:
		return nil, ended(op, s.id)
	}
	return &status, nil
}

// screenSize asks the box's own screen for its size, as one more viewer. It is 0
// where that does not answer.
func (s *sandbox) screenSize(ctx context.Context) (width, height int, err error) {
	conn, err := s.openScreen(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(sizeTime)); err != nil {
		return 0, 0, err
	}
	viewer, err := rfb.New(conn)
	if err != nil {
		return 0, 0, err
	}
	width, height = viewer.Size()
	return width, height, nil
}

// openDisplay connects to a display.
func (s *sandbox) openDisplay(ctx context.Context, d *caisson.Display, status *keeper.Status) (net.Conn, error) {
	var conn net.Conn
	var err error
	switch {
	case d.Socket != "":
		conn, err = s.openSocket(ctx, d.Socket)
	case d.Port != 0:
		conn, err = s.openPort(ctx, d.Port, status)
	default:
		if conn, err = s.openScreen(ctx); err == nil {
			conn = s.watched(conn)
		}
		return conn, err
	}
	if err != nil && ctx.Err() == nil && errors.Is(err, caisson.ErrUnavailable) {
		// It may be gone with the program meanwhile.
		if _, over := s.showing(ctx); over != nil {
			return nil, over
		}
	}
	return conn, err
}

// openScreen asks the box for a connection to its own screen.
func (s *sandbox) openScreen(ctx context.Context) (net.Conn, error) {
	files, err := s.keeper().Do(ctx, OpDisplay, nil, nil)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if len(files) != 1 {
		return nil, fmt.Errorf("caisson: bug: a display is %d files", len(files))
	}
	return net.FileConn(files[0])
}

// keptPoll is how often it is looked whether a sandbox is kept any more.
const keptPoll = time.Second

// A stream is a viewer's connection that ends with the program, or the time that
// the sandbox is kept for: a machine stays after that, for its files.
type stream struct {
	net.Conn
	cancel context.CancelFunc
	over   chan struct{} // closed when nobody watches any more
}

// watched makes a stream of a connection.
func (s *sandbox) watched(conn net.Conn) *stream {
	ctx, cancel := context.WithCancel(context.Background())
	w := &stream{Conn: conn, cancel: cancel, over: make(chan struct{})}
	go func() {
		defer close(w.over)
		s.awaitDark(ctx)
		if ctx.Err() == nil {
			hangUp(conn)
		}
	}()
	return w
}

// Close implements io.Closer.
func (w *stream) Close() error {
	w.cancel()
	err := w.Conn.Close()
	<-w.over
	return err
}

// awaitDark waits until displays can't be seen any more, or nobody tells.
func (s *sandbox) awaitDark(ctx context.Context) {
	if _, err := s.keeper().Wait(ctx); err != nil || !s.rec.Kept {
		return
	}
	tick := time.NewTicker(keptPoll)
	defer tick.Stop()
	for {
		status, err := s.keeper().Status(ctx)
		if err != nil || !status.Kept {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// hangUp has both ends see the end, and leaves the descriptor to who has it.
func hangUp(conn net.Conn) {
	if u, ok := conn.(*net.UnixConn); ok {
		_ = u.CloseWrite()
		_ = u.CloseRead()
		return
	}
	_ = conn.Close()
}

// openPort connects to a port of the sandbox's own loopback network.
func (s *sandbox) openPort(ctx context.Context, port int, status *keeper.Status) (net.Conn, error) {
	if !s.rec.Inside || status.BoxPID == 0 {
		return nil, &caisson.Error{Kind: caisson.ErrUnavailable, Err: errors.New("the sandbox's network can't be entered")}
	}
	conn, err := network.Dial(ctx, "/proc/"+strconv.Itoa(status.BoxPID)+"/ns/net", port)
	if errors.Is(err, caisson.ErrUnavailable) {
		err = &caisson.Error{Item: fmt.Sprintf("port %d", port), Kind: caisson.ErrUnavailable, Err: errors.New("nothing listens there in the sandbox yet")}
	}
	return conn, err
}

// openSocket connects to a socket in the sandbox's work folder, with the rights of
// its program.
func (s *sandbox) openSocket(ctx context.Context, name string) (conn net.Conn, err error) {
	rel, err := engine.InWork(name)
	if err != nil {
		return nil, err
	}
	main, err := readProgram(s.rec.Run)
	if err != nil {
		return nil, err
	}
	root, err := s.root(ctx)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	work, err := root.SubApart(strings.TrimPrefix(caisson.WorkDir, "/"))
	if err != nil {
		return nil, err
	}
	defer work.Close()
	err = asUser(main.UID, main.GID, func() error {
		conn, err = connectTo(work, rel)
		return err
	})
	switch {
	case errors.Is(err, caisson.ErrNotFound), safefs.Kind(err) == caisson.ErrNotFound:
		err = errors.New("nothing listens there yet")
		return nil, &caisson.Error{Item: path.Join(caisson.WorkDir, rel), Kind: caisson.ErrUnavailable, Err: err}
	case err != nil:
		return nil, safefs.Sorted("", path.Join(caisson.WorkDir, rel), err)
	}
	return conn, nil
}
