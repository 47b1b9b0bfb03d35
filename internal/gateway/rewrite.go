package gateway

import (
	"bytes"
	"cmp"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caissonrun/caisson/keeper/redact"
)

// A swap is what is put in the place of what. Neither is empty.
type swap struct{ from, to []byte }

// swaps are looked for together. Of two for the same value the first counts.
type swaps []swap

// sorted returns the swaps as they are looked for: the longest first, where
// several begin at the same place, and none twice.
func (s swaps) sorted() swaps {
	seen := map[string]bool{}
	var list swaps
	for _, w := range s {
		if !seen[string(w.from)] {
			seen[string(w.from)] = true
			list = append(list, w)
		}
	}
	slices.SortStableFunc(list, func(a, b swap) int { return cmp.Compare(len(b.from), len(a.from)) })
	return list
}

// masks hides a value in all the forms in which programs print it, each by as
// many characters.
func masks(value string) swaps {
	var list swaps
	for _, form := range redact.Forms([]byte(value)) {
		list = append(list, swap{form, bytes.Repeat([]byte("*"), len(form))})
	}
	return list
}

// sameLength returns swaps that change no lengths, for streams that count
// bytes: what is put in is cut or filled up.
func (s swaps) sameLength() swaps {
	var list swaps
	for _, w := range s {
		to := append(bytes.Clone(w.to), bytes.Repeat([]byte("*"), len(w.from))...)
		list = append(list, swap{w.from, to[:len(w.from)]})
	}
	return list
}

// keepsLength reports whether nothing gets longer or shorter.
func (s swaps) keepsLength() bool {
	return !slices.ContainsFunc(s, func(w swap) bool { return len(w.from) != len(w.to) })
}

// replace appends data to out with all swaps made, and returns what stands
// behind the last of them apart. The swaps are sorted. Each is searched for from
// where it was found last, so that no data makes this slow.
func (s swaps) replace(out, data []byte) (made, rest []byte) {
	next := make([]int, len(s))
	for i, w := range s {
		next[i] = bytes.Index(data, w.from)
	}
	for done := 0; ; {
		first := -1
		for i, w := range s {
			if next[i] >= 0 && next[i] < done {
				if next[i] = bytes.Index(data[done:], w.from); next[i] >= 0 {
					next[i] += done
				}
			}
			if next[i] >= 0 && (first < 0 || next[i] < next[first]) {
				first = i
			}
		}
		if first < 0 {
			return out, data[done:]
		}
		out = append(append(out, data[done:next[first]]...), s[first].to...)
		done = next[first] + len(s[first].from)
	}
}

// text swaps in a whole text.
func (s swaps) text(text string) string {
	made, rest := s.replace(nil, []byte(text))
	return string(append(made, rest...))
}

// has reports whether a text holds what is to be hidden, in upper or lower case.
func (s swaps) has(text string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc(s, func(w swap) bool { return strings.Contains(text, strings.ToLower(string(w.from))) })
}

// held returns from where on data could be the beginning of something to be
// swapped, len(data) if nowhere, and whether that is more than half of it.
func (s swaps) held(data []byte) (from int, most bool) {
	from = len(data)
	for _, w := range s {
		for i := max(0, len(data)-len(w.from)+1); i < from; i++ {
			j := bytes.IndexByte(data[i:from], w.from[0])
			if j < 0 {
				break
			}
			i += j
			if bytes.HasPrefix(w.from, data[i:]) {
				from, most = i, 2*(len(data)-i) > len(w.from)
				break
			}
		}
	}
	return from, most
}

// holdTime is how long the beginning of a value waits for its rest, where it is
// not more than half of it: longer would stop programs that answer each other.
const holdTime = time.Second

// maxChunk is how much of a body is looked at at once.
const maxChunk = 32 << 10

// A rewriter is a body in which swaps are made as it is read. What comes is
// handed on at once, but for what may be the beginning of a value. Its memory
// does not grow with the body.
type rewriter struct {
	src    io.ReadCloser
	swaps  swaps
	atEnd  func() // called before the end is told
	start  sync.Once
	chunks chan chunk
	free   chan []byte
	closed chan struct{}
	close  sync.Once

	pending []byte // read and not yet looked through, or held
	out     []byte // ready
	err     error
}

type chunk struct {
	data []byte
	err  error
}

func newRewriter(src io.ReadCloser, s swaps, atEnd func()) *rewriter {
	return &rewriter{
		src: src, swaps: s, atEnd: atEnd,
		chunks: make(chan chunk), free: make(chan []byte, 1), closed: make(chan struct{}),
	}
}

// Read implements io.Reader.
func (r *rewriter) Read(p []byte) (int, error) {
	r.start.Do(func() { go r.fetch() })
	for len(r.out) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.more()
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}

// fetch reads the source, so that its silence can be noticed. It ends with the
// source, or with Close, which closes that.
func (r *rewriter) fetch() {
	buf := make([]byte, maxChunk)
	for {
		n, err := r.src.Read(buf)
		select {
		case r.chunks <- chunk{buf[:n], err}:
		case <-r.closed:
			return
		}
		if err != nil {
			return
		}
		// The chunk is given back when it has been looked through.
		select {
		case buf = <-r.free:
		case <-r.closed:
			return
		}
	}
}

// more waits for the next chunk, or for the time after which what is held goes
// on without its rest.
func (r *rewriter) more() {
	var quiet <-chan time.Time
	if _, most := r.swaps.held(r.pending); len(r.pending) > 0 && !most {
		timer := time.NewTimer(holdTime)
		defer timer.Stop()
		quiet = timer.C
	}
	select {
	case c := <-r.chunks:
		r.pending = append(r.pending, c.data...)
		r.free <- c.data[:cap(c.data)]
		r.look(c.err)
	case <-quiet:
		r.out, r.pending = append(r.out[:0], r.pending...), r.pending[:0]
	case <-r.closed:
		r.err = io.ErrClosedPipe
	}
}

// look moves what is decided from pending to out.
func (r *rewriter) look(err error) {
	made, rest := r.swaps.replace(r.out[:0], r.pending)
	from := len(rest)
	if err == nil {
		from, _ = r.swaps.held(rest)
	}
	r.out = append(made, rest[:from]...)
	r.pending = append(r.pending[:0], rest[from:]...)
	if err != nil {
		if r.atEnd != nil {
			r.atEnd()
		}
		r.err = err
	}
}

// Close implements io.Closer.
func (r *rewriter) Close() error {
	r.close.Do(func() { close(r.closed) })
	return r.src.Close()
}

// A rewrittenStream is a connection that was upgraded: what comes from the host
// is rewritten, what goes there is not.
type rewrittenStream struct {
	*rewriter
	io.Writer
}
