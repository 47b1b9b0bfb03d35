package gelf

import (
	"bytes"
	"errors"
	"net"
	"time"
)

// acceptPause is how long nothing is accepted after an error, such as that there
// are too many descriptors.
const acceptPause = 50 * time.Millisecond

// accept takes connections, as many at once as there are slots, and after Close
// those that are waiting.
func (l *Listener) accept() {
	defer l.senders.Done()
	defer l.stream.Close()
	for l.slot() {
		conn, err := l.stream.Accept()
		if err == nil {
			l.add(conn)
			l.senders.Add(1)
			go l.read(conn)
			continue
		}
		<-l.slots
		if errors.Is(err, net.ErrClosed) || l.closed() {
			return
		}
		select {
		case <-time.After(acceptPause):
		case <-l.done:
		}
	}
}

// slot waits for a slot. It is false if there is none soon after Close.
func (l *Listener) slot() bool {
	select {
	case l.slots <- struct{}{}:
		return true
	case <-l.done:
	}
	select {
	case l.slots <- struct{}{}:
		return true
	case <-time.After(drainTime):
		return false
	}
}

// add notes a connection for Close.
func (l *Listener) add(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[conn] = struct{}{}
	if l.closed() {
		conn.SetReadDeadline(time.Now().Add(drainTime))
	}
}

func (l *Listener) closed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// read takes messages from one connection until it ends.
func (l *Listener) read(conn net.Conn) {
	defer l.senders.Done()
	defer func() {
		l.mu.Lock()
		delete(l.conns, conn)
		l.mu.Unlock()
		conn.Close()
		<-l.slots
	}()
	f := framer{l: l}
	buf := make([]byte, 32<<10)
	for {
		n, err := conn.Read(buf)
		f.write(buf[:n])
		if err != nil {
			f.end()
			return
		}
	}
}

// A framer cuts a stream into messages. Each ends with a zero byte; senders that
// do not know this end theirs with a line break.
type framer struct {
	l    *Listener
	held []byte // since the last message
	// lineless says that the first line in held is no message by itself, so that
	// a zero byte has to be waited for.
	lineless bool
	lined    bool // the sender has ended messages with line breaks
	skipping bool // up to the end of a message that is too long
}

func (f *framer) write(data []byte) {
	for len(data) > 0 {
		cut := bytes.IndexByte(data, 0)
		if cut < 0 {
			f.hold(data)
			return
		}
		f.hold(data[:cut])
		f.end()
		data = data[cut+1:]
	}
}

// hold adds data without a zero byte.
func (f *framer) hold(data []byte) {
	if f.skipping {
		cut := bytes.IndexByte(data, '\n')
		if !f.lined || cut < 0 {
			return
		}
		f.skipping, data = false, data[cut+1:]
	}
	start := len(f.held)
	f.held = append(f.held, data...)
	f.lines(start)
	if len(f.held) > f.l.opts.MaxMessage {
		f.l.give(bad(f.held, "longer than %d bytes", f.l.opts.MaxMessage))
		f.held, f.skipping = nil, true
	}
}

// lines takes lines that are messages by themselves from the beginning of what
// is held; where none of them ends before start, there is none. A line that is
// none can only be the first of a message with several, if the sender has not
// shown yet that its lines are messages.
func (f *framer) lines(start int) {
	for !f.lineless {
		cut := bytes.IndexByte(f.held[start:], '\n')
		if cut < 0 {
			return
		}
		line := bytes.TrimSpace(f.held[:start+cut])
		switch m, err := parse(line); {
		case err == nil:
			f.lined = true
			f.l.give(m)
		case len(line) == 0:
		case !f.lined:
			f.lineless = true
			return
		default:
			f.l.give(bad(line, "%v", err))
		}
		f.held, start = f.held[start+cut+1:], 0
	}
}

// end takes what is held as one message, and else line by line.
func (f *framer) end() {
	data := bytes.TrimSpace(f.held)
	f.held, f.lineless, f.skipping = nil, false, false
	if len(data) == 0 {
		return
	}
	if m, err := parse(data); err == nil {
		f.l.give(m)
		return
	}
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			f.l.take(line)
		}
	}
}
