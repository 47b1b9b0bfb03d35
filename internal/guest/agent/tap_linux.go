package agent

import (
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/internal/guest/wire"
)

// A tap is where a program's output comes from. It counts what it gives.
type tap struct {
	file *os.File

	mu    sync.Mutex
	count int64 // bytes that were passed on
	held  int64 // bytes that were read, and are being passed on
	over  bool  // nothing follows
}

// pour passes everything on, until the end, or until nobody takes it.
func (t *tap) pour(to io.Writer) {
	buf := make([]byte, 32<<10)
	for {
		n, err := t.read(buf)
		if n > 0 {
			n, err = to.Write(buf[:n])
		}
		t.mu.Lock()
		t.count, t.held = t.count+int64(max(n, 0)), 0
		t.over = err != nil
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// read reads what there is, and notes how much that was before anybody can find
// the pipe empty.
func (t *tap) read(buf []byte) (n int, err error) {
	raw, err := t.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	waited := raw.Read(func(fd uintptr) bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		for {
			n, err = unix.Read(int(fd), buf)
			if err != unix.EINTR {
				break
			}
		}
		if n > 0 {
			t.held = int64(n)
		}
		return err != unix.EAGAIN
	})
	switch {
	case waited != nil:
		return 0, waited
	case err == nil && n == 0:
		return 0, io.EOF
	}
	return n, err
}

// waiting returns how many bytes there are by now, those that wait to be read among
// them.
func (t *tap) waiting() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return t.count
	}
	unread := 0
	if raw, err := t.file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { unread, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return t.count + t.held + int64(unread)
}

// reached reports whether so many bytes were passed on, or never will be.
func (t *tap) reached(n int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over || t.count >= n
}

// flush serves wire.OpFlush.
func (s *session) flush(c *wire.Call) (any, error) {
	target, err := params[wire.Target](c)
	if err != nil {
		return nil, err
	}
	p, err := s.find(target.ID)
	if err != nil {
		return nil, err
	}
	var lengths [2]int64
	for i, t := range p.taps {
		lengths[i] = t.waiting()
		for !t.reached(lengths[i]) {
			select {
			case <-c.Over():
				return nil, wire.ErrEnded
			case <-time.After(time.Millisecond):
			}
		}
		t.mu.Lock()
		lengths[i] = t.count
		t.mu.Unlock()
	}
	return &wire.Flushed{Stdout: lengths[0], Stderr: lengths[1]}, nil
}
