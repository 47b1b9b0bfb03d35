package rfb

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"io"
	"slices"
	"sync"
)

// A Screen is one that is served to any number of viewers: a flat colour, but for
// its first quarter, which has the opposite one. It is for tests, and for engines
// that have no real one.
type Screen struct {
	mu      sync.Mutex
	size    image.Point
	colour  color.RGBA
	changed chan struct{} // closed and made anew with every change
}

// NewScreen returns a screen of a size, in pixels, at most 16384 each.
func NewScreen(width, height int, colour color.RGBA) *Screen {
	return &Screen{size: image.Pt(width, height), colour: colour, changed: make(chan struct{})}
}

// Change gives the screen another size and colour. Viewers are told.
func (s *Screen) Change(width, height int, colour color.RGBA) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size, s.colour = image.Pt(width, height), colour
	close(s.changed)
	s.changed = make(chan struct{})
}

// Size returns the screen's size now.
func (s *Screen) Size() (width, height int) {
	now := s.now()
	return now.size.X, now.size.Y
}

// A scene is what a screen shows at one time.
type scene struct {
	size    image.Point
	colour  color.RGBA
	changed <-chan struct{} // closed when it is that no more
}

func (s *Screen) now() scene {
	s.mu.Lock()
	defer s.mu.Unlock()
	return scene{s.size, s.colour, s.changed}
}

// At returns what a pixel shows of a screen of that size and colour.
func At(size image.Point, colour color.RGBA, x, y int) color.RGBA {
	if 2*x < size.X && 2*y < size.Y {
		return color.RGBA{R: ^colour.R, G: ^colour.G, B: ^colour.B, A: 0xff}
	}
	colour.A = 0xff
	return colour
}

// Serve shows the screen to the viewer at conn until that ends, or does not keep
// to the protocol. The caller closes conn, which ends Serve.
func (s *Screen) Serve(conn io.ReadWriter) error {
	v := &viewer{screen: s, conn: conn, format: ours, asked: make(chan bool, 1)}
	if err := v.welcome(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- v.listen() }()
	return v.show(ended)
}

// A viewer is one that a screen is shown to.
type viewer struct {
	screen *Screen
	conn   io.ReadWriter
	// asked has whether the newest request that waits is for changes only.
	asked chan bool
	shown scene // that it has seen; zero: none

	mu       sync.Mutex
	format   pixelFormat
	resizing bool // it can be told of other sizes
}

// welcome agrees on how to talk (RFC 6143, sections 7.1 to 7.3).
func (v *viewer) welcome() error {
	if _, err := io.WriteString(v.conn, "RFB 003.008\n"); err != nil {
		return err
	}
	answer := make([]byte, 12)
	if _, err := io.ReadFull(v.conn, answer); err != nil {
		return err
	}
	var minor int
	if n, err := fmt.Sscanf(string(answer), "RFB 003.%03d\n", &minor); n != 1 || err != nil {
		return garbled("it answers %q", answer)
	}
	if err := v.unlock(minor); err != nil {
		return err
	}
	var shared uint8
	if err := read(v.conn, &shared); err != nil {
		return err
	}
	const name = "caisson"
	now := v.screen.now()
	var out bytes.Buffer
	_ = write(&out, &serverInit{uint16(now.size.X), uint16(now.size.Y), ours, uint32(len(name))})
	out.WriteString(name)
	v.shown = scene{size: now.size}
	_, err := v.conn.Write(out.Bytes())
	return err
}

// unlock says that there is no security.
func (v *viewer) unlock(minor int) error {
	if minor < 7 {
		return write(v.conn, uint32(securityNone))
	}
	if _, err := v.conn.Write([]byte{1, securityNone}); err != nil {
		return err
	}
	var chosen uint8
	if err := read(v.conn, &chosen); err != nil {
		return err
	}
	if chosen != securityNone {
		return garbled("it chooses security %d", chosen)
	}
	if minor < 8 {
		return nil
	}
	return write(v.conn, uint32(0))
}

// listen reads what the viewer says (RFC 6143, section 7.5).
func (v *viewer) listen() error {
	for {
		var kind uint8
		if err := read(v.conn, &kind); err != nil {
			return err
		}
		if err := v.hear(kind); err != nil {
			return err
		}
	}
}

func (v *viewer) hear(kind uint8) error {
	switch kind {
	case setPixelFormat:
		var m struct {
			_      [3]byte
			Format pixelFormat
		}
		if err := read(v.conn, &m); err != nil {
			return err
		}
		if !slices.Contains([]uint8{8, 16, 32}, m.Format.BitsPerPixel) || m.Format.TrueColour == 0 {
			return garbled("it wants a colour map, or pixels of %d bits", m.Format.BitsPerPixel)
		}
		v.mu.Lock()
		v.format = m.Format
		v.mu.Unlock()
		return nil
	case setEncodings:
		return v.hearEncodings()
	case updateRequest:
		var m struct {
			Incremental         uint8
			X, Y, Width, Height uint16
		}
		if err := read(v.conn, &m); err != nil {
			return err
		}
		v.ask(m.Incremental != 0)
		return nil
	case keyEvent:
		return skip(v.conn, 7)
	case pointerEvent:
		return skip(v.conn, 5)
	case clientCutText:
		var m struct {
			_      [3]byte
			Length uint32
		}
		if err := read(v.conn, &m); err != nil {
			return err
		}
		return skip(v.conn, int64(m.Length))
	}
	return garbled("a message of kind %d", kind)
}

func (v *viewer) hearEncodings() error {
	var m struct {
		_      uint8
		Number uint16
	}
	if err := read(v.conn, &m); err != nil {
		return err
	}
	encodings := make([]int32, m.Number)
	if err := read(v.conn, encodings); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.resizing = slices.Contains(encodings, int32(encodingDesktopSize))
	return nil
}

// ask notes a request. One for everything is not forgotten over one for changes.
func (v *viewer) ask(changes bool) {
	select {
	case before := <-v.asked:
		changes = changes && before
	default:
	}
	v.asked <- changes
}

// show answers requests until the viewer is gone.
func (v *viewer) show(ended <-chan error) error {
	for {
		select {
		case err := <-ended:
			return err
		case changes := <-v.asked:
			if err := v.answer(changes, ended); err != nil {
				return err
			}
		}
	}
}

// answer sends the whole screen, for changes only when there are some.
func (v *viewer) answer(changes bool, ended <-chan error) error {
	now := v.screen.now()
	if changes && now.changed == v.shown.changed {
		select {
		case <-now.changed:
		case changes = <-v.asked:
			return v.answer(changes, ended)
		case err := <-ended:
			return err
		}
		now = v.screen.now()
	}
	v.mu.Lock()
	format, resizing := v.format, v.resizing
	v.mu.Unlock()
	if now.size != v.shown.size && !resizing {
		return garbled("the screen has another size now, which it can't be told")
	}
	var out bytes.Buffer
	number := uint16(1)
	if now.size != v.shown.size {
		number = 2
	}
	_ = write(&out, struct {
		Kind, _ uint8
		Number  uint16
	}{Kind: framebufferSends, Number: number})
	area := rectangle{Width: uint16(now.size.X), Height: uint16(now.size.Y)}
	if number == 2 {
		area.Encoding = encodingDesktopSize
		_ = write(&out, &area)
	}
	area.Encoding = encodingRaw
	_ = write(&out, &area)
	v.shown = now
	if _, err := v.conn.Write(out.Bytes()); err != nil {
		return err
	}
	return now.paint(v.conn, &format)
}

// paint writes all pixels, line by line.
func (s *scene) paint(w io.Writer, f *pixelFormat) error {
	for y := range s.size.Y {
		var line []byte
		for x := range s.size.X {
			line = f.append(line, At(s.size, s.colour, x, y))
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// append appends a pixel.
func (f *pixelFormat) append(line []byte, c color.RGBA) []byte {
	value := uint32(c.R)*uint32(f.RedMax)/255<<f.RedShift |
		uint32(c.G)*uint32(f.GreenMax)/255<<f.GreenShift |
		uint32(c.B)*uint32(f.BlueMax)/255<<f.BlueShift
	size := int(f.BitsPerPixel / 8)
	for i := range size {
		shift := 8 * i
		if f.BigEndian != 0 {
			shift = 8 * (size - 1 - i)
		}
		line = append(line, byte(value>>shift))
	}
	return line
}
