package mem

import (
	"context"
	"errors"
	"fmt"
	"image/color"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/connpair"
	"github.com/caissonrun/caisson/internal/rfb"
)

// maxViewers is how many may look at one screen.
const maxViewers = 16

// The size of a screen whose task does not say.
const (
	standardWidth  = 160
	standardHeight = 120
)

// A shown screen is one that viewers are at: the box's own, or that of a VNC
// server of a program's.
type shown struct {
	screen  *rfb.Screen
	serving sync.WaitGroup

	mu      sync.Mutex
	over    bool
	viewers map[net.Conn]bool
}

func show(screen *rfb.Screen) *shown { return &shown{screen: screen, viewers: map[net.Conn]bool{}} }

// open returns a viewer's end of a connection to the screen.
func (s *shown) open(b *box) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		return nil, failure(caisson.OpDisplay, b, caisson.ErrEnded, "the program has ended")
	case len(s.viewers) >= maxViewers:
		return nil, failure(caisson.OpDisplay, b, caisson.ErrExhausted, fmt.Sprintf("%d look at it, no more can", maxViewers))
	}
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	s.viewers[theirs] = true
	s.serving.Go(func() {
		_ = s.screen.Serve(theirs)
		s.leave(theirs)
	})
	return ours, nil
}

// pair makes a connection that holds what is on its way, as a socket does.
func pair() (ours, theirs net.Conn, err error) {
	ours, f, err := connpair.New()
	if err != nil {
		return nil, nil, err
	}
	theirs, err = net.FileConn(f)
	if err = errors.Join(err, f.Close()); err == nil {
		return ours, theirs, nil
	}
	ours.Close()
	if theirs != nil {
		theirs.Close()
	}
	return nil, nil, err
}

func (s *shown) leave(c net.Conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.viewers, c)
}

// Close ends all viewers' connections. It can be called again.
func (s *shown) Close() error {
	s.mu.Lock()
	s.over = true
	for c := range s.viewers {
		c.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
	return nil
}

// openScreen makes the screen of the box's own that its spec asks for.
func (b *box) openScreen() {
	for _, d := range b.spec.Displays {
		if d.Server() {
			continue
		}
		width, height := d.Width, d.Height
		if width == 0 || height == 0 {
			width, height = standardWidth, standardHeight
		}
		b.screen = show(rfb.NewScreen(width, height, color.RGBA{R: 0x80, G: 0x80, B: 0x80}))
	}
}

// closeScreen ends the screen of the box's own.
func (b *box) closeScreen() {
	if b.screen != nil {
		b.screen.Close()
	}
}

// Show serves a screen at a unix socket, until the process ends. Nobody but
// engine.Displayer finds it, for there is no such socket.
func (p *Proc) Show(network, address string, screen *rfb.Screen) error {
	if network != "unix" {
		return syscall.EAFNOSUPPORT
	}
	name, err := engine.InWork(address)
	if err != nil {
		return syscall.EACCES
	}
	s := show(screen)
	b := p.box
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.servers[name] != nil {
		return syscall.EADDRINUSE
	}
	if b.servers == nil {
		b.servers = map[string]*shown{}
	}
	b.servers[name] = s
	p.locks = append(p.locks, closerFunc(func() error {
		b.mu.Lock()
		delete(b.servers, name)
		b.mu.Unlock()
		return s.Close()
	}))
	return nil
}

// A closerFunc is an io.Closer.
type closerFunc func() error

// Close implements io.Closer.
func (f closerFunc) Close() error { return f() }

var _ engine.Displayer = (*Sandbox)(nil)

// Displays implements engine.Displayer.
func (s *Sandbox) Displays(ctx context.Context) ([]engine.Display, error) {
	if err := s.showing(ctx); err != nil {
		return nil, err
	}
	list := make([]engine.Display, 0, len(s.box.spec.Displays))
	for _, d := range s.box.spec.Displays {
		width, height := d.Width, d.Height
		if !d.Server() {
			width, height = s.box.screen.screen.Size()
		}
		list = append(list, engine.Display{Name: d.Name, Description: d.Description, Width: width, Height: height})
	}
	return list, nil
}

// OpenDisplay implements engine.Displayer.
func (s *Sandbox) OpenDisplay(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	if err := s.showing(ctx); err != nil {
		return nil, err
	}
	b := s.box
	i := slices.IndexFunc(b.spec.Displays, func(d caisson.Display) bool { return d.Name == name })
	if i < 0 {
		return nil, &caisson.Error{Op: caisson.OpDisplay, Item: fmt.Sprintf("%q", name), Kind: caisson.ErrNotFound, Err: errors.New("no such display")}
	}
	at := b.screen
	if d := &b.spec.Displays[i]; d.Server() {
		place, err := engine.InWork(d.Socket)
		if err != nil {
			return nil, err
		}
		b.mu.Lock()
		at = b.servers[place]
		b.mu.Unlock()
	}
	if at == nil {
		return nil, failure(caisson.OpDisplay, b, caisson.ErrUnavailable, "nothing listens there yet")
	}
	conn, err := at.open(b)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// showing returns nil where the box's displays can be seen.
func (s *Sandbox) showing(ctx context.Context) error {
	const op = caisson.OpDisplay
	if err := s.engine.enter(ctx, op, s.box); err != nil {
		return err
	}
	if f := s.engine.features(); !f.Displays {
		return failure(op, s.box, caisson.ErrUnsupported, "this engine has no displays")
	}
	if err := s.box.awaitKeep(ctx); err != nil {
		return err
	}
	b := s.box
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.destroyed || b.aborted():
		return b.gone(op)
	case !b.started:
		return failure(op, b, caisson.ErrUnavailable, "the program was not started yet")
	case b.ended && !b.keep.on:
		return failure(op, b, caisson.ErrEnded, "the program has ended")
	}
	return nil
}
