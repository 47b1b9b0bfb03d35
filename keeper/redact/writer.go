package redact

// A Writer takes the values of a Set out of one stream. Its methods may not be
// called concurrently.
//
// What might be the beginning of a value is held back until more comes, or
// until Idle or Close. That is at most as long as the longest form of a value.
type Writer struct {
	set  *Set
	sink func([]byte) error

	// held is the end of the stream from the first place on where a value may
	// have begun whose end has not come yet.
	held []byte
	// out is how much of held is dealt with already: released by Idle, or
	// covered by a value that begins before it.
	out int
	// covered is how much of held is covered by a value.
	covered int

	clean []byte // output in which something was replaced
	err   error  // the first of the sink
}

// NewWriter returns a Writer that gives what may be seen to sink. Sink must not
// keep or change what it is given. The first error that it returns comes back
// from the call, and it goes on being called.
func (s *Set) NewWriter(sink func([]byte) error) *Writer {
	return &Writer{set: s, sink: sink}
}

// Write takes the next piece of the stream. It keeps no reference to it.
func (w *Writer) Write(piece []byte) error {
	if w.set.Empty() {
		return w.sink(piece)
	}
	data := piece
	if len(w.held) > 0 {
		w.held = append(w.held, piece...)
		data = w.held
	}
	w.process(data, w.set.hold(data, 0, false))
	return w.takeErr()
}

// Holds reports whether bytes are held back that Idle could release.
func (w *Writer) Holds() bool { return w.out < len(w.held) && w.releasable() > w.out }

// Idle is to be called when nothing has come for a while: it releases what is
// held back, so that a prompt is seen. Only what is already more than half of a
// value stays. If a value is completed later, its rest is redacted.
func (w *Writer) Idle() error {
	if end := w.releasable(); end > w.out {
		w.give(w.held[w.out:end])
		w.out = end
	}
	return w.takeErr()
}

// releasable returns up to where held may be released before its time.
func (w *Writer) releasable() int { return w.set.hold(w.held, 0, true) }

// Close gives out what is held back: the stream has ended.
func (w *Writer) Close() error {
	if len(w.held) > 0 {
		w.process(w.held, len(w.held))
	}
	return w.takeErr()
}

// process gives out data up to end, where everything that may begin a value
// has been seen whole, and holds the rest.
func (w *Writer) process(data []byte, end int) {
	w.clean = w.clean[:0]
	for at := 0; ; at++ {
		var n int
		if at, n = w.set.find(data, at, end); n == 0 {
			break
		}
		w.cover(data, at, at+n)
	}
	if len(w.clean) > 0 {
		if w.out < end {
			w.clean = append(w.clean, data[w.out:end]...)
		}
		w.give(w.clean)
	} else if w.out < end {
		w.give(data[w.out:end])
	}
	w.held = append(w.held[:0], data[end:]...)
	w.out = max(w.out-end, 0)
	w.covered = max(w.covered-end, 0)
}

// cover replaces data from start to end, and gives what is before it.
func (w *Writer) cover(data []byte, start, end int) {
	joined := start < w.covered
	w.covered = max(w.covered, end)
	if end <= w.out {
		return
	}
	if start > w.out {
		w.clean = append(w.clean, data[w.out:start]...)
	}
	// Values that overlap are one gap.
	if !joined {
		w.clean = append(w.clean, Marker...)
	}
	w.out = end
	if len(w.clean) >= cleanSize {
		w.give(w.clean)
		w.clean = w.clean[:0]
	}
}

// cleanSize is how much output is gathered before it is given on.
const cleanSize = 64 << 10

func (w *Writer) give(data []byte) {
	if err := w.sink(data); err != nil && w.err == nil {
		w.err = err
	}
}

func (w *Writer) takeErr() error {
	err := w.err
	w.err = nil
	return err
}
