// Package rfb looks at a screen by the protocol of VNC: RFB 3.8 (RFC 6143), and
// 3.3 and 3.7, which older servers speak (RFC 6143, appendix A). A Client takes a
// screen's size, or one whole picture of it. A Server shows one, for tests and
// for engine mem.
//
// There are no passwords, no encryption and no encodings but Raw: both ends are
// on one host. Whoever is at the other end may be hostile: what is read from there
// is bounded in memory and number, and the caller bounds the time.
package rfb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/caissonrun/caisson"
)

const (
	// MaxPixels bounds the size of a screen whose picture is taken: 8K is one less.
	MaxPixels = 1 << 25
	// maxText bounds a name or a reason, in bytes. Longer ones are refused.
	maxText = 64 << 10
)

// The messages, security types and encodings that are used here (RFC 6143,
// sections 7.1.2, 7.5, 7.6 and 7.7).
const (
	securityInvalid = 0
	securityNone    = 1

	setPixelFormat   = 0
	setEncodings     = 2
	updateRequest    = 3
	keyEvent         = 4
	pointerEvent     = 5
	clientCutText    = 6
	framebufferSends = 0
	setColourMap     = 1
	bell             = 2
	serverCutText    = 3

	encodingRaw         = 0
	encodingDesktopSize = -223
)

// A pixelFormat says how pixels are sent (RFC 6143, section 7.4).
type pixelFormat struct {
	BitsPerPixel, Depth, BigEndian, TrueColour uint8
	RedMax, GreenMax, BlueMax                  uint16
	RedShift, GreenShift, BlueShift            uint8
	_                                          [3]byte
}

// ours is the only format that is sent and taken here: blue, green, red and
// nothing, a byte each.
var ours = pixelFormat{
	BitsPerPixel: 32, Depth: 24, TrueColour: 1, RedMax: 255, GreenMax: 255, BlueMax: 255, RedShift: 16, GreenShift: 8,
}

// A serverInit is what a server says of its screen, before its name (RFC 6143,
// section 7.3.2).
type serverInit struct {
	Width, Height uint16
	Format        pixelFormat
	NameLength    uint32
}

// A rectangle is the head of one of an update (RFC 6143, section 7.6.1).
type rectangle struct {
	X, Y, Width, Height uint16
	Encoding            int32
}

func read(r io.Reader, v any) error { return binary.Read(r, binary.BigEndian, v) }

func write(w io.Writer, v any) error { return binary.Write(w, binary.BigEndian, v) }

// garbled says that the other end does not keep to the protocol.
func garbled(format string, args ...any) error {
	return &caisson.Error{Item: "display", Kind: caisson.ErrUnavailable, Err: fmt.Errorf("what is there does not speak RFB: "+format, args...)}
}

// gone says that the other end has ended the connection.
func gone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the connection has ended")
	}
	return &caisson.Error{Item: "display", Kind: caisson.ErrUnavailable, Err: err}
}
