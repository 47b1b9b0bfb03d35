package enginetest

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// lists makes a Displays whose answer is changed.
func lists(change func(list []engine.Display) []engine.Display) func(*brokenSandbox, context.Context) ([]engine.Display, error) {
	return func(s *brokenSandbox, ctx context.Context) ([]engine.Display, error) {
		list, err := s.full.Displays(ctx)
		if err == nil {
			list = change(list)
		}
		return list, err
	}
}

// A dimmed stream changes what is read, once a picture is under way.
type dimmed struct {
	io.ReadWriteCloser
	read int
}

func (d *dimmed) Read(p []byte) (int, error) {
	n, err := d.ReadWriteCloser.Read(p)
	for i := range p[:n] {
		if d.read++; d.read > 1000 {
			p[i] ^= 0x40
		}
	}
	return n, err
}

// A lasting stream does not end by itself.
type lasting struct {
	io.ReadWriteCloser
	closed chan struct{}
	once   atomic.Bool
}

func (l *lasting) Read(p []byte) (int, error) {
	n, err := l.ReadWriteCloser.Read(p)
	if err != nil {
		<-l.closed
	}
	return n, err
}

func (l *lasting) Close() error {
	if l.once.CompareAndSwap(false, true) {
		close(l.closed)
	}
	return l.ReadWriteCloser.Close()
}

// A lone stream takes a turn that others wait for.
type lone struct {
	io.ReadWriteCloser
	turn chan struct{}
	once atomic.Bool
}

func (l *lone) Close() error {
	if l.once.CompareAndSwap(false, true) {
		<-l.turn
	}
	return l.ReadWriteCloser.Close()
}

func flawsOfDisplays() []flaw {
	turn := make(chan struct{}, 1)
	return []flaw{
		{name: "a display is not listed", find: "displays/listed", how: "want 2 of them", shows: lists(func(list []engine.Display) []engine.Display { return list[1:] })},
		{name: "displays are in another order", find: "displays/listed", shows: lists(func(list []engine.Display) []engine.Display { slices.Reverse(list); return list })},
		{name: "descriptions are dropped", find: "displays/listed", how: "of them", create: changed(func(s *engine.Spec) {
			s.Displays = slices.Clone(s.Displays)
			for i := range s.Displays {
				s.Displays[i].Description = ""
			}
		})},
		{name: "a display is listed that is none", find: "displays/none", shows: lists(func(list []engine.Display) []engine.Display {
			return append(list, engine.Display{Name: "screen"})
		})},
		{name: "sizes are made up", find: "displays/open", how: "is listed with", shows: lists(func(list []engine.Display) []engine.Display {
			for i := range list {
				list[i].Width++
			}
			return list
		})},
		{name: "a picture is spoilt", find: "displays/picture", how: "pixel", display: func(s *brokenSandbox, ctx context.Context, name string) (io.ReadWriteCloser, error) {
			stream, err := s.full.OpenDisplay(ctx, name)
			if err != nil {
				return nil, err
			}
			return &dimmed{ReadWriteCloser: stream}, nil
		}},
		{name: "any name is a display", find: "displays/unknown", how: "returns a stream", display: func(s *brokenSandbox, ctx context.Context, name string) (io.ReadWriteCloser, error) {
			stream, err := s.full.OpenDisplay(ctx, name)
			if errors.Is(err, caisson.ErrNotFound) {
				return s.full.OpenDisplay(ctx, "screen")
			}
			return stream, err
		}},
		{name: "a stream comes with an error", find: "displays/unknown", how: "returns a stream", display: func(s *brokenSandbox, ctx context.Context, name string) (io.ReadWriteCloser, error) {
			stream, err := s.full.OpenDisplay(ctx, name)
			if err != nil {
				ours, theirs := net.Pipe()
				theirs.Close()
				return ours, err
			}
			return stream, nil
		}},
		{name: "what does not listen is not found", find: "displays/not-yet", how: "want an error of kind", display: func(s *brokenSandbox, ctx context.Context, name string) (io.ReadWriteCloser, error) {
			stream, err := s.full.OpenDisplay(ctx, name)
			if errors.Is(err, caisson.ErrUnavailable) {
				err = caisson.ErrNotFound
			}
			return stream, err
		}},
		{name: "a stream outlives the sandbox", find: "displays/end", how: "goes on", display: func(s *brokenSandbox, ctx context.Context, name string) (io.ReadWriteCloser, error) {
			stream, err := s.full.OpenDisplay(ctx, name)
			if err != nil {
				return nil, err
			}
			return &lasting{ReadWriteCloser: stream, closed: make(chan struct{})}, nil
		}},
		{name: "opening after the end hangs", find: "displays/end", how: "want an error of kind", display: func(s *brokenSandbox, ctx context.Context, name string) (io.ReadWriteCloser, error) {
			stream, err := s.full.OpenDisplay(ctx, name)
			if errors.Is(err, caisson.ErrEnded) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return stream, err
		}},
		{name: "there is one viewer at a time", find: "displays/viewers", display: func(s *brokenSandbox, ctx context.Context, name string) (io.ReadWriteCloser, error) {
			select {
			case turn <- struct{}{}:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			stream, err := s.full.OpenDisplay(ctx, name)
			if err != nil {
				<-turn
				return nil, err
			}
			return &lone{ReadWriteCloser: stream, turn: turn}, nil
		}},
		{name: "nonsense ends the program", find: "displays/viewers", display: func(s *brokenSandbox, ctx context.Context, name string) (io.ReadWriteCloser, error) {
			stream, err := s.full.OpenDisplay(ctx, name)
			if err == nil && s.count() == 3 {
				return nil, errors.Join(s.full.Destroy(ctx), stream.Close(), caisson.ErrAborted)
			}
			return stream, err
		}},
		{name: "contexts are not looked at", find: "displays/bounded", how: "with a context that has ended", display: func(s *brokenSandbox, ctx context.Context, name string) (io.ReadWriteCloser, error) {
			return s.full.OpenDisplay(context.WithoutCancel(ctx), name)
		}},
		{name: "a kept sandbox has no displays", find: "displays/kept", shows: func(s *brokenSandbox, ctx context.Context) ([]engine.Display, error) {
			if p, err := s.full.Process(ctx); err == nil {
				brief, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
				if _, err := p.Wait(brief); err == nil {
					return nil, caisson.ErrEnded
				}
			}
			return s.full.Displays(ctx)
		}},
		{name: "displays are forgotten", find: "displays/recovered", finding: func(e *broken, ctx context.Context, dir string) (engine.Sandbox, error) {
			sb, err := e.wrap(&engine.Spec{Dir: dir})(e.Engine.Recover(ctx, dir))
			if err != nil {
				return nil, err
			}
			b := sb.(*brokenSandbox)
			b.flaw = &flaw{shows: lists(func([]engine.Display) []engine.Display { return []engine.Display{} })}
			return b, nil
		}},
		{name: "mistakes in displays are accepted", find: "displays/mistakes", how: "Create succeeded", create: changed(func(s *engine.Spec) { s.Displays = nil })},
		{name: "displays are shown and not declared", find: "construction/features-agree", how: "feature displays", probe: func(f *engine.Features) { f.Displays = false }},
	}
}
