package rfb

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"io"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
)

// A Client is a viewer of one screen, beside others.
type Client struct {
	conn          io.ReadWriter
	width, height int
	name          string
}

// New greets the server at conn, which stays the caller's: closing it ends
// whatever the client does.
//
// Errors: ErrUnavailable if no server answers that speaks the protocol; ErrDenied
// if it wants a password, or refuses.
func New(conn io.ReadWriter) (*Client, error) {
	c := &Client{conn: conn}
	version, err := c.greet()
	if err != nil {
		return nil, err
	}
	if err := c.authenticate(version); err != nil {
		return nil, err
	}
	return c, c.begin()
}

// Size returns the screen's size, in pixels, when the server last told it.
func (c *Client) Size() (width, height int) { return c.width, c.height }

// Name is what the server calls the screen.
func (c *Client) Name() string { return c.name }

// greet agrees on a version: the minor one of 3 (RFC 6143, section 7.1.1).
func (c *Client) greet() (minor int, err error) {
	greeting := make([]byte, 12)
	if _, err := io.ReadFull(c.conn, greeting); err != nil {
		return 0, gone(err)
	}
	var major int
	if n, err := fmt.Sscanf(string(greeting), "RFB %03d.%03d\n", &major, &minor); n != 2 || err != nil || major < 3 {
		return 0, garbled("it begins with %q", greeting)
	}
	switch {
	case major > 3 || minor >= 8:
		minor = 8
	case minor != 7:
		// All others are to be taken for 3.3.
		minor = 3
	}
	if _, err := fmt.Fprintf(c.conn, "RFB 003.%03d\n", minor); err != nil {
		return 0, gone(err)
	}
	return minor, nil
}

// authenticate chooses to have no security (RFC 6143, sections 7.1.2 and 7.1.3).
func (c *Client) authenticate(minor int) error {
	if minor == 3 {
		var kind uint32
		if err := read(c.conn, &kind); err != nil {
			return gone(err)
		}
		return c.chosen(kind)
	}
	var number uint8
	if err := read(c.conn, &number); err != nil {
		return gone(err)
	}
	kinds := make([]byte, number)
	if _, err := io.ReadFull(c.conn, kinds); err != nil {
		return gone(err)
	}
	if !slices.Contains(kinds, securityNone) {
		kind := uint32(securityInvalid)
		if number > 0 {
			kind = uint32(kinds[0])
		}
		return c.chosen(kind)
	}
	if _, err := c.conn.Write([]byte{securityNone}); err != nil {
		return gone(err)
	}
	if minor < 8 {
		return nil
	}
	var result uint32
	if err := read(c.conn, &result); err != nil {
		return gone(err)
	}
	if result != 0 {
		return c.refused()
	}
	return nil
}

// chosen takes what the server wants where it offers no choice.
func (c *Client) chosen(kind uint32) error {
	switch kind {
	case securityNone:
		return nil
	case securityInvalid:
		return c.refused()
	}
	return denied(errors.New("it wants a password: nobody but who may enter the sandbox reaches it, so start it without one"))
}

// refused reads why.
func (c *Client) refused() error {
	reason, err := c.text()
	if err != nil {
		return err
	}
	return denied(fmt.Errorf("it refuses: %q", reason))
}

func denied(err error) error {
	return &caisson.Error{Item: "display", Kind: caisson.ErrDenied, Err: err}
}

// text reads a length and as many bytes.
func (c *Client) text() (string, error) {
	var length uint32
	if err := read(c.conn, &length); err != nil {
		return "", gone(err)
	}
	return c.textOf(length)
}

func (c *Client) textOf(length uint32) (string, error) {
	if length > maxText {
		return "", garbled("a text of %d bytes", length)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(c.conn, text); err != nil {
		return "", gone(err)
	}
	return strings.ToValidUTF8(string(text), "?"), nil
}

// begin asks to share the screen, and reads what it is (RFC 6143, section 7.3).
func (c *Client) begin() error {
	if _, err := c.conn.Write([]byte{1}); err != nil {
		return gone(err)
	}
	var hello serverInit
	if err := read(c.conn, &hello); err != nil {
		return gone(err)
	}
	name, err := c.textOf(hello.NameLength)
	c.width, c.height, c.name = int(hello.Width), int(hello.Height), name
	return err
}

// Capture takes a picture of the whole screen. It may be called again.
//
// Errors: ErrUnavailable if the server does not keep to the protocol, or has no
// screen right now; ErrExhausted if the screen is larger than MaxPixels.
func (c *Client) Capture() (*image.RGBA, error) {
	var out bytes.Buffer
	_ = write(&out, struct {
		Kind   uint8
		_      [3]byte
		Format pixelFormat
	}{Kind: setPixelFormat, Format: ours})
	encodings := []int32{encodingRaw, encodingDesktopSize}
	_ = write(&out, struct {
		Kind   uint8
		_      uint8
		Number uint16
	}{Kind: setEncodings, Number: uint16(len(encodings))})
	_ = write(&out, encodings)
	if _, err := c.conn.Write(out.Bytes()); err != nil {
		return nil, gone(err)
	}
	p := &picture{client: c}
	return p.take()
}

// Share copies what a viewer says to a server, until either ends, and has it ask
// to share the screen with others, whatever it says: many viewers do not, and many
// servers then send the others away. Where a password is asked for it changes
// nothing.
func Share(server io.Writer, viewer io.Reader) error {
	// Each is passed on at once: the other side waits for it.
	version, err := pass(server, viewer, 12)
	if err != nil {
		return ended(err)
	}
	var minor int
	_, _ = fmt.Sscanf(string(version), "RFB 003.%03d\n", &minor)
	if minor >= 7 {
		kind, err := pass(server, viewer, 1)
		if err == nil && kind[0] == securityNone {
			err = share(server, viewer)
		}
		if err != nil {
			return ended(err)
		}
	}
	_, err = io.Copy(server, viewer)
	return err
}

// pass passes n bytes on, and returns them.
func pass(server io.Writer, viewer io.Reader, n int) ([]byte, error) {
	data := make([]byte, n)
	n, err := io.ReadFull(viewer, data)
	if _, writeErr := server.Write(data[:n]); err == nil {
		err = writeErr
	}
	return data, err
}

// share takes the viewer's wish and passes on ours (RFC 6143, section 7.3.1).
func share(server io.Writer, viewer io.Reader) error {
	wish := make([]byte, 1)
	if _, err := io.ReadFull(viewer, wish); err != nil {
		return err
	}
	_, err := server.Write([]byte{1})
	return err
}

// ended returns nil for an end that comes early.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
