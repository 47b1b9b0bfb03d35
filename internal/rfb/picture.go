package rfb

import (
	"errors"
	"fmt"
	"image"
	"io"

	"github.com/caissonrun/caisson"
)

const (
	// maxResizes is how often a screen may change its size while its picture is
	// taken, and maxMessages how many messages may come until that is whole.
	maxResizes  = 16
	maxMessages = 4096
	// maxAgain is how often, on average, each pixel may be sent.
	maxAgain = 8
)

// A picture is one that is being taken.
type picture struct {
	client  *Client
	image   *image.RGBA
	seen    []bool // whether each pixel was sent
	missing int    // how many were not
	budget  int    // how many more pixels may come
	resizes int
}

// take asks for all that the screen shows, until all of it was there.
func (p *picture) take() (*image.RGBA, error) {
	if err := p.blank(); err != nil {
		return nil, err
	}
	if err := p.request(false); err != nil {
		return nil, err
	}
	for range maxMessages {
		resized := p.resizes
		updated, err := p.message()
		switch {
		case err != nil:
			return nil, err
		case p.missing == 0:
			return p.image, nil
		case !updated:
			continue
		}
		// What comes after a request need not be all that was asked for.
		if err := p.request(resized == p.resizes); err != nil {
			return nil, err
		}
	}
	return nil, garbled("after %d messages the screen is not whole", maxMessages)
}

// blank begins with the size that the screen has now.
func (p *picture) blank() error {
	width, height := p.client.Size()
	switch pixels := width * height; {
	case pixels == 0:
		return &caisson.Error{Item: "display", Kind: caisson.ErrUnavailable, Err: errors.New("it has no picture right now")}
	case pixels > MaxPixels:
		return &caisson.Error{
			Item: "display", Kind: caisson.ErrExhausted, Err: fmt.Errorf("%d by %d pixels are more than %d", width, height, MaxPixels),
		}
	default:
		p.missing, p.budget = pixels, maxAgain*pixels
	}
	p.image = image.NewRGBA(image.Rect(0, 0, width, height))
	p.seen = make([]bool, p.missing)
	return nil
}

// request asks for the whole screen, or for what has changed (RFC 6143, section
// 7.5.3).
func (p *picture) request(changes bool) error {
	m := struct {
		Kind, Incremental   uint8
		X, Y, Width, Height uint16
	}{Kind: updateRequest, Width: uint16(p.client.width), Height: uint16(p.client.height)}
	if changes {
		m.Incremental = 1
	}
	if err := write(p.client.conn, &m); err != nil {
		return gone(err)
	}
	return nil
}

// message reads one of the server's (RFC 6143, section 7.6), and reports whether
// it was an update.
func (p *picture) message() (updated bool, err error) {
	conn := p.client.conn
	var kind uint8
	if err := read(conn, &kind); err != nil {
		return false, gone(err)
	}
	switch kind {
	case framebufferSends:
		return true, p.update()
	case setColourMap:
		var head struct {
			_             uint8
			First, Number uint16
		}
		if err := read(conn, &head); err != nil {
			return false, gone(err)
		}
		return false, skip(conn, 6*int64(head.Number))
	case bell:
		return false, nil
	case serverCutText:
		var head struct {
			_      [3]byte
			Length uint32
		}
		if err := read(conn, &head); err != nil {
			return false, gone(err)
		}
		return false, skip(conn, int64(head.Length))
	}
	return false, garbled("a message of kind %d", kind)
}

// skip reads what nobody wants.
func skip(r io.Reader, n int64) error {
	if n > MaxPixels {
		return garbled("a message of %d bytes", n)
	}
	if _, err := io.CopyN(io.Discard, r, n); err != nil {
		return gone(err)
	}
	return nil
}

// update reads rectangles.
func (p *picture) update() error {
	var head struct {
		_      uint8
		Number uint16
	}
	if err := read(p.client.conn, &head); err != nil {
		return gone(err)
	}
	for range head.Number {
		var r rectangle
		if err := read(p.client.conn, &r); err != nil {
			return gone(err)
		}
		var err error
		switch r.Encoding {
		case encodingRaw:
			err = p.raw(&r)
		case encodingDesktopSize:
			err = p.resize(&r)
		default:
			err = garbled("a rectangle of encoding %d, which was not asked for", r.Encoding)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// resize begins anew.
func (p *picture) resize(r *rectangle) error {
	if p.resizes++; p.resizes > maxResizes {
		return garbled("the screen changes its size all the time")
	}
	p.client.width, p.client.height = int(r.Width), int(r.Height)
	return p.blank()
}

// raw reads pixels, line by line (RFC 6143, section 7.7.1).
func (p *picture) raw(r *rectangle) error {
	x, y, width, height := int(r.X), int(r.Y), int(r.Width), int(r.Height)
	if x+width > p.client.width || y+height > p.client.height {
		return garbled("a rectangle outside of the screen")
	}
	if p.budget -= width * height; p.budget < 0 {
		return garbled("more than the screen has")
	}
	line := make([]byte, 4*width)
	for ; height > 0; y, height = y+1, height-1 {
		if _, err := io.ReadFull(p.client.conn, line); err != nil {
			return gone(err)
		}
		p.line(x, y, line)
	}
	return nil
}

// line takes over one line of pixels in our format.
func (p *picture) line(x, y int, line []byte) {
	to := p.image.Pix[p.image.PixOffset(x, y):]
	seen := p.seen[y*p.client.width+x:]
	for i := 0; i < len(line)/4; i++ {
		from, pixel := line[4*i:4*i+4], to[4*i:4*i+4]
		pixel[0], pixel[1], pixel[2], pixel[3] = from[2], from[1], from[0], 0xff
		if !seen[i] {
			seen[i] = true
			p.missing--
		}
	}
}
