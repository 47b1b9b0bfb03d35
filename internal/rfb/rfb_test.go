package rfb_test

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/rfb"
)

var (
	orange = color.RGBA{R: 0xff, G: 0x80, A: 0xff}
	blue   = color.RGBA{B: 0xff, A: 0xff}
)

// look returns a connection at which a screen is served.
func look(t *testing.T, s *rfb.Screen) net.Conn {
	ours, theirs := net.Pipe()
	var serving sync.WaitGroup
	serving.Go(func() {
		_ = s.Serve(theirs)
		theirs.Close()
	})
	t.Cleanup(func() {
		ours.Close()
		serving.Wait()
	})
	return ours
}

func client(t *testing.T, conn io.ReadWriter) *rfb.Client {
	c, err := rfb.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// shows fails unless c takes a picture of that screen.
func shows(t *testing.T, c *rfb.Client, width, height int, colour color.RGBA) {
	t.Helper()
	picture, err := c.Capture()
	if err != nil {
		t.Fatal(err)
	}
	size := image.Pt(width, height)
	if got := picture.Bounds().Size(); got != size {
		t.Fatalf("a picture of %v, want %v", got, size)
	}
	for y := range height {
		for x := range width {
			if got, want := picture.RGBAAt(x, y), rfb.At(size, colour, x, y); got != want {
				t.Fatalf("pixel %d, %d is %v, want %v", x, y, got, want)
			}
		}
	}
}

func TestCapture(t *testing.T) {
	for _, size := range []image.Point{{1, 1}, {64, 48}, {3, 1000}} {
		s := rfb.NewScreen(size.X, size.Y, orange)
		c := client(t, look(t, s))
		if width, height := c.Size(); width != size.X || height != size.Y || c.Name() == "" {
			t.Errorf("Size = %d, %d of %q, want %v", width, height, c.Name(), size)
		}
		for range 2 {
			shows(t, c, size.X, size.Y, orange)
		}
	}
}

// A viewer that was there before sees another size, and what it shows.
func TestCaptureResized(t *testing.T) {
	s := rfb.NewScreen(64, 48, orange)
	c, other := client(t, look(t, s)), client(t, look(t, s))
	s.Change(20, 90, blue)
	for range 2 {
		shows(t, c, 20, 90, blue)
	}
	shows(t, other, 20, 90, blue)
}

// bytesOf puts what a server says together: text as it is, numbers as bytes.
func bytesOf(parts ...any) []byte {
	var out []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			out = append(out, p...)
		case int:
			out = append(out, byte(p))
		case []byte:
			out = append(out, p...)
		}
	}
	return out
}

// start is how a server of a screen of 2 by 1 begins.
func start() []byte {
	format := bytesOf(32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0)
	return bytesOf("RFB 003.008\n", 1, 1, 0, 0, 0, 0, 0, 2, 0, 1, format, 0, 0, 0, 1, "x")
}

// head is that of an update with one rectangle of the encoding.
func head(x, width, height int, encoding ...int) []byte {
	out := bytesOf(0, 0, 0, 1, 0, x, 0, 0, 0, width, 0, height)
	for _, b := range encoding {
		out = append(out, byte(b))
	}
	return out
}

// said is a server that says something, whatever it hears.
func said(data []byte) io.ReadWriter {
	return struct {
		io.Reader
		io.Writer
	}{iotest.OneByteReader(bytes.NewReader(data)), io.Discard}
}

func TestOlderServers(t *testing.T) {
	old := start()
	pixels := bytesOf(head(0, 2, 1, 0, 0, 0, 0), 1, 2, 3, 9, 4, 5, 6, 9)
	for name, begin := range map[string][]byte{
		"3.3":     bytesOf("RFB 003.003\n", 0, 0, 0, 1, old[18:]),
		"3.5":     bytesOf("RFB 003.005\n", 0, 0, 0, 1, old[18:]),
		"3.7":     bytesOf("RFB 003.007\n", 2, 2, 1, old[18:]),
		"3.889":   bytesOf("RFB 003.889\n", old[12:]),
		"4.1":     bytesOf("RFB 004.001\n", old[12:]),
		"several": bytesOf("RFB 003.008\n", 3, 16, 2, 1, 0, 0, 0, 0, old[18:]),
	} {
		// Between the beginning and the picture come messages that are none of it.
		other := bytesOf(2, 3, 0, 0, 0, 0, 0, 0, 2, "hi", 1, 0, 0, 0, 0, 1, 0, 1, 0, 2, 0, 3)
		c, err := rfb.New(said(bytesOf(begin, other, pixels)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		picture, err := c.Capture()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, want := picture.RGBAAt(1, 0), (color.RGBA{R: 6, G: 5, B: 4, A: 0xff}); got != want {
			t.Errorf("%s: the second pixel is %v, want %v", name, got, want)
		}
	}
}

func TestHostileServers(t *testing.T) {
	long := strings.Repeat("x", 64)
	for name, c := range map[string]struct {
		data []byte
		kind caisson.Kind
		say  string
	}{
		"nothing":        {nil, caisson.ErrUnavailable, "has ended"},
		"another":        {[]byte("SSH-2.0-x\r\n" + long), caisson.ErrUnavailable, "does not speak RFB"},
		"old":            {[]byte("RFB 002.008\n" + long), caisson.ErrUnavailable, "does not speak RFB"},
		"password":       {bytesOf("RFB 003.008\n", 1, 2), caisson.ErrDenied, "a password"},
		"old password":   {bytesOf("RFB 003.003\n", 0, 0, 0, 2), caisson.ErrDenied, "a password"},
		"refusal":        {bytesOf("RFB 003.008\n", 0, 0, 0, 0, 4, "full"), caisson.ErrDenied, `"full"`},
		"old refusal":    {bytesOf("RFB 003.003\n", 0, 0, 0, 0, 0, 0, 0, 4, "full"), caisson.ErrDenied, `"full"`},
		"late refusal":   {bytesOf("RFB 003.008\n", 1, 1, 0, 0, 0, 1, 0, 0, 0, 4, "full"), caisson.ErrDenied, `"full"`},
		"endless reason": {bytesOf("RFB 003.008\n", 0, 255, 255, 255, 255), caisson.ErrUnavailable, "a text of"},
		"endless name":   {bytesOf(start()[:38], 255, 255, 255, 255), caisson.ErrUnavailable, "a text of"},
		"no size":        {bytesOf(start()[:18], 0, 0, 0, 0, start()[22:]), caisson.ErrUnavailable, "no picture"},
		"huge":           {bytesOf(start()[:18], 255, 255, 255, 255, start()[22:]), caisson.ErrExhausted, "65535 by 65535"},
		"then nothing":   {start(), caisson.ErrUnavailable, "has ended"},
		"unknown":        {bytesOf(start(), 250), caisson.ErrUnavailable, "of kind 250"},
		"endless text":   {bytesOf(start(), 3, 0, 0, 0, 255, 255, 255, 255), caisson.ErrUnavailable, "a message of"},
		"not asked for":  {bytesOf(start(), head(0, 2, 1, 0, 0, 0, 5)), caisson.ErrUnavailable, "encoding 5"},
		"outside":        {bytesOf(start(), head(1, 2, 1, 0, 0, 0, 0)), caisson.ErrUnavailable, "outside"},
		"cut off":        {bytesOf(start(), head(0, 2, 1, 0, 0, 0, 0), 1, 2, 3), caisson.ErrUnavailable, "has ended"},
		"made huge":      {bytesOf(start(), 0, 0, 0, 1, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 33), caisson.ErrExhausted, "65535 by 65535"},
		"again":          {bytesOf(start(), bytes.Repeat(bytesOf(head(0, 1, 1, 0, 0, 0, 0), 1, 2, 3, 4), 100)), caisson.ErrUnavailable, "more than the screen has"},
		"resizing":       {bytesOf(start(), bytes.Repeat(head(0, 2, 1, 255, 255, 255, 33), 100)), caisson.ErrUnavailable, "all the time"},
		"empty":          {bytesOf(start(), bytes.Repeat(bytesOf(0, 0, 0, 0), 10000)), caisson.ErrUnavailable, "not whole"},
		"bells":          {bytesOf(start(), bytes.Repeat(bytesOf(2), 10000)), caisson.ErrUnavailable, "not whole"},
	} {
		viewer, err := rfb.New(said(c.data))
		if err == nil {
			_, err = viewer.Capture()
		}
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v, want kind %v and %q", name, err, c.kind, c.say)
		}
	}
}

// Whoever speaks something else, or goes, is one viewer less and no more.
func TestHostileViewers(t *testing.T) {
	s := rfb.NewScreen(64, 48, orange)
	hello := bytesOf("RFB 003.008\n", 1, 1)
	for name, data := range map[string][]byte{
		"garbage": []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "security": bytesOf("RFB 003.008\n", 9),
		"kind": bytesOf(hello, 99), "text": bytesOf(hello, 6, 0, 0, 0, 255, 255, 255, 255),
		"colour map": bytesOf(hello, 0, make([]byte, 19)),
	} {
		ours, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- s.Serve(theirs)
			theirs.Close()
		}()
		go io.Copy(io.Discard, ours)
		// It is not read to its end.
		_, _ = ours.Write(data)
		if err := <-done; err == nil {
			t.Errorf("%s: Serve has no error", name)
		}
		ours.Close()
	}
	shows(t, client(t, look(t, s)), 64, 48, orange)
}

// What a viewer says arrives as it is, but that it shares the screen.
func TestShare(t *testing.T) {
	for name, c := range map[string]struct{ says, want []byte }{
		"alone":    {bytesOf("RFB 003.008\n", 1, 0, "more"), bytesOf("RFB 003.008\n", 1, 1, "more")},
		"shared":   {bytesOf("RFB 003.007\n", 1, 1, "more"), bytesOf("RFB 003.007\n", 1, 1, "more")},
		"password": {bytesOf("RFB 003.008\n", 2, 0, "more"), bytesOf("RFB 003.008\n", 2, 0, "more")},
		"old":      {bytesOf("RFB 003.003\n", 0, "more"), bytesOf("RFB 003.003\n", 0, "more")},
		"nonsense": {[]byte("GET / HTTP/1.1\r\n\r\n"), []byte("GET / HTTP/1.1\r\n\r\n")},
		"short":    {[]byte("RFB"), []byte("RFB")},
		"shorter":  {bytesOf("RFB 003.008\n", 1), bytesOf("RFB 003.008\n", 1)},
		"nothing":  {nil, nil},
	} {
		var got bytes.Buffer
		if err := rfb.Share(&got, iotest.OneByteReader(bytes.NewReader(c.says))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(got.Bytes(), c.want) {
			t.Errorf("%s: it hears %q, want %q", name, got.Bytes(), c.want)
		}
	}
}

// A viewer behind Share sees the screen: nothing is held back that the other side
// waits for.
func TestShareLive(t *testing.T) {
	server := look(t, rfb.NewScreen(64, 48, orange))
	viewer, relay := net.Pipe()
	var relaying sync.WaitGroup
	relaying.Go(func() { _ = rfb.Share(server, relay) })
	relaying.Go(func() {
		_, _ = io.Copy(relay, server)
		relay.Close()
	})
	t.Cleanup(func() {
		viewer.Close()
		server.Close()
		relaying.Wait()
	})
	shows(t, client(t, viewer), 64, 48, orange)
}

func FuzzClient(f *testing.F) {
	f.Add(start())
	f.Add(bytesOf(start(), head(0, 2, 1, 0, 0, 0, 0), 1, 2, 3, 4, 5, 6, 7, 8))
	f.Add(bytesOf(start(), head(0, 9, 9, 255, 255, 255, 33), head(0, 2, 1, 0, 0, 0, 0)))
	f.Add([]byte("RFB 003.003\n\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := rfb.New(said(data))
		if err != nil {
			return
		}
		if picture, err := c.Capture(); err == nil {
			if width, height := c.Size(); picture.Bounds() != image.Rect(0, 0, width, height) {
				t.Errorf("a picture of %v, and a screen of %d by %d", picture.Bounds(), width, height)
			}
		}
	})
}

func FuzzScreen(f *testing.F) {
	f.Add(bytesOf("RFB 003.008\n", 1, 1, 3, 0, 0, 0, 0, 0, 0, 1, 0, 1))
	f.Add(bytesOf("RFB 003.003\n", 1, 2, 0, 0, 1, 255, 255, 255, 33, 3, 1, 0, 0, 0, 0, 0, 1, 0, 1))
	s := rfb.NewScreen(4, 4, orange)
	f.Fuzz(func(_ *testing.T, data []byte) { _ = s.Serve(said(data)) })
}
