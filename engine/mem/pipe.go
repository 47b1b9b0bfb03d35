package mem

import (
	"context"
	"io"
	"slices"
	"sync"
	"syscall"
)

// A pipe is a bounded buffer between a program and a caller.
type pipe struct {
	mu       sync.Mutex
	data     []byte
	changed  chan struct{}
	noWriter bool
	noReader bool
}

// pipeSize is as much as a pipe of Linux holds.
const pipeSize = 64 << 10

func newPipe() *pipe { return &pipe{changed: make(chan struct{})} }

// wake tells those who wait that something has changed. mu is held.
func (p *pipe) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pipe) closeWrite() { p.close(&p.noWriter) }
func (p *pipe) closeRead()  { p.close(&p.noReader) }

func (p *pipe) close(end *bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*end = true
	p.wake()
}

// write blocks while the pipe is full, until ctx or the reader ends.
func (p *pipe) write(ctx context.Context, data []byte) (total int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(data) > 0 {
		if p.noReader || p.noWriter {
			return total, syscall.EPIPE
		}
		if n := min(pipeSize-len(p.data), len(data)); n > 0 {
			p.data = append(p.data, data[:n]...)
			data, total = data[n:], total+n
			p.wake()
			continue
		}
		if err := p.wait(ctx); err != nil {
			return total, err
		}
	}
	return total, nil
}

// read blocks while the pipe is empty, until ctx or the writers end.
func (p *pipe) read(ctx context.Context, data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.noReader:
			return 0, io.EOF
		case len(p.data) > 0:
			n := copy(data, p.data)
			p.data = slices.Delete(p.data, 0, n)
			p.wake()
			return n, nil
		case p.noWriter:
			return 0, io.EOF
		}
		if err := p.wait(ctx); err != nil {
			return 0, err
		}
	}
}

// wait blocks until something has changed. mu is held, but not meanwhile.
func (p *pipe) wait(ctx context.Context) error {
	changed := p.changed
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
