package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A Kind says what a frame is for.
type Kind uint8

// The kinds of frames. Those from Open on belong to a call.
const (
	KindHello    Kind = iota + 1 // host: begins a session; body: Hello
	KindWelcome                  // agent: the answer; body: Welcome
	KindOpen                     // begins a call; body: Request, in several frames where it has more
	KindNote                     // an answer before the last; body: Answer
	KindEnd                      // the last answer; body: Answer
	KindData                     // bytes of a stream
	KindEOF                      // the end of a stream
	KindConsumed                 // how many bytes of a stream were read so far
	KindStop                     // nobody reads a stream any more
	KindCancel                   // whoever made the call gives it up
	KindDatagram                 // a datagram; it may be lost
	kindAfterLast
)

const (
	// MaxBody is how many bytes a frame holds at most.
	MaxBody = 32 << 10
	// headerSize is that of what stands before the body: magic, kind, stream, flags,
	// call, size, checksum.
	headerSize = 20
	// maxGreeting bounds a greeting's body, so that a header made of garbage does not
	// have anybody wait for much.
	maxGreeting = 256
	// flagMore says that the message goes on in the next frame of the call.
	flagMore = 1
)

// Preamble is sent before a greeting: it completes whatever frame was cut off when
// an earlier conversation ended.
var Preamble = make([]byte, MaxBody+headerSize)

// magic begins every frame. It is no text, and nothing that a console prints.
var magic = [4]byte{0xc4, 's', 'n', 0x9d}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Frame is the unit of the stream.
type Frame struct {
	Kind   Kind
	Stream uint8
	More   bool
	Call   uint32
	Body   []byte
}

// ErrGarbage is part of the error about bytes that are no frame.
var ErrGarbage = errors.New("the stream holds something that is no frame")

// Append appends the frame as it is sent.
func (f *Frame) Append(buf []byte) []byte {
	start := len(buf)
	flags := uint16(0)
	if f.More {
		flags = flagMore
	}
	buf = append(buf, magic[:]...)
	buf = append(buf, byte(f.Kind), f.Stream)
	buf = binary.LittleEndian.AppendUint16(buf, flags)
	buf = binary.LittleEndian.AppendUint32(buf, f.Call)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(f.Body)))
	sum := crc32.Update(crc32.Checksum(buf[start:], castagnoli), castagnoli, f.Body)
	buf = binary.LittleEndian.AppendUint32(buf, sum)
	return append(buf, f.Body...)
}

// A Reader reads frames. It keeps one of them at a time.
type Reader struct {
	buf  *bufio.Reader
	done int // bytes of the frame that was returned last
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader {
	return &Reader{buf: bufio.NewReaderSize(r, 2*(MaxBody+headerSize))}
}

// Next returns the next frame, whose body is valid until the next call.
//
// Errors: ErrGarbage, after which only Greeting makes sense; those of the stream.
func (r *Reader) Next() (*Frame, error) {
	r.drop()
	return r.peek(MaxBody)
}

// drop lets go of the frame that was returned last.
func (r *Reader) drop() {
	_, _ = r.buf.Discard(r.done)
	r.done = 0
}

// peek reads the frame that begins here, whose body has at most so many bytes.
func (r *Reader) peek(most int) (*Frame, error) {
	head, err := r.buf.Peek(headerSize)
	if err != nil {
		return nil, err
	}
	flags := binary.LittleEndian.Uint16(head[6:])
	size := binary.LittleEndian.Uint32(head[12:])
	f := &Frame{Kind: Kind(head[4]), Stream: head[5], More: flags&flagMore != 0, Call: binary.LittleEndian.Uint32(head[8:])}
	if !bytes.Equal(head[:4], magic[:]) || f.Kind == 0 || f.Kind >= kindAfterLast || flags&^flagMore != 0 || size > uint32(most) {
		return nil, fmt.Errorf("header % x: %w", head, ErrGarbage)
	}
	whole, err := r.buf.Peek(headerSize + int(size))
	if err != nil {
		return nil, err
	}
	f.Body = whole[headerSize:]
	sum := crc32.Update(crc32.Checksum(whole[:headerSize-4], castagnoli), castagnoli, f.Body)
	if sum != binary.LittleEndian.Uint32(whole[headerSize-4:]) {
		return nil, fmt.Errorf("checksum: %w", ErrGarbage)
	}
	r.done = len(whole)
	return f, nil
}

// Greeting skips whatever is there until it finds a greeting of this kind.
//
// Errors: those of the stream.
func (r *Reader) Greeting(kind Kind) (*Frame, error) {
	r.drop()
	for {
		f, err := r.peek(maxGreeting)
		switch {
		case err == nil && f.Kind == kind:
			return f, nil
		case err == nil:
			r.drop()
			continue
		case !errors.Is(err, ErrGarbage):
			return nil, err
		}
		r.skip()
	}
}

// skip goes on to where the next frame may begin: one byte at least.
func (r *Reader) skip() {
	_, _ = r.buf.Discard(1)
	have, _ := r.buf.Peek(r.buf.Buffered())
	at := bytes.IndexByte(have, magic[0])
	if at < 0 {
		at = len(have)
	}
	_, _ = r.buf.Discard(at)
}
