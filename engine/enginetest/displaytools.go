package enginetest

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/rfb"
)

// displaying returns a spec with a display of each kind that the engine has: a
// screen of the sandbox's own, and a server of the program's.
func (t *T) displaying(program string) *engine.Spec {
	if !t.features.DisplayServers {
		spec := t.spec(program)
		spec.Displays = []caisson.Display{{Name: "screen"}}
		return spec
	}
	spec := t.serving("vnc.sock", "show /work/vnc.sock 64x48 ff8000 ; "+program)
	spec.Displays[0].Width, spec.Displays[0].Height = 64, 48
	if t.features.Screen {
		spec.Displays = append([]caisson.Display{{Name: "screen"}}, spec.Displays...)
	}
	return spec
}

// serving returns a spec whose display "server" is a server of the program's.
func (t *T) serving(socket, program string) *engine.Spec {
	spec := t.spec(program)
	spec.Displays = []caisson.Display{{Name: "server", Socket: socket}}
	return spec
}

// signal sends a signal to the program.
func (b *box) signal(n int) { b.t.ok(b.process.Signal(b.t.ctx, n), "Signal") }

// displays lists them.
func (b *box) displays() []engine.Display {
	list, err := b.Sandbox.(engine.Displayer).Displays(b.t.ctx)
	b.t.ok(err, "Displays")
	return list
}

// display returns one of the list.
func (b *box) display(name string) engine.Display {
	for _, d := range b.displays() {
		if d.Name == name {
			return d
		}
	}
	b.t.Fatalf("the list of displays has no %q", name)
	return engine.Display{}
}

// fits reports whether a display is listed with that size, or none.
func fits(d engine.Display, size image.Point) bool {
	return d.Width == 0 && d.Height == 0 || d.Width == size.X && d.Height == size.Y
}

// noDisplay checks that a display does not open, and why.
func (b *box) noDisplay(name string, kinds ...caisson.Kind) {
	stream, err := b.Sandbox.(engine.Displayer).OpenDisplay(b.t.ctx, name)
	if stream != nil {
		b.t.Errorf("OpenDisplay of %.20q returns a stream", name)
		stream.Close()
	}
	b.t.kind(err, fmt.Sprintf("OpenDisplay of %.20q", name), kinds...)
}

// open connects to a display. The stream is closed after the case.
func (b *box) open(name string) io.ReadWriteCloser {
	stream, err := b.Sandbox.(engine.Displayer).OpenDisplay(b.t.ctx, name)
	b.t.ok(err, "OpenDisplay")
	b.t.after(func() { stream.Close() })
	return stream
}

// A viewing is a viewer at a display.
type viewing struct {
	t      *T
	name   string
	stream io.ReadWriteCloser
	client *rfb.Client // once it has been greeted
}

// look is a viewer at a display.
func (b *box) look(name string) *viewing { return b.at(name, b.open(name)) }

// at is a viewer at a display that is open.
func (b *box) at(name string, stream io.ReadWriteCloser) *viewing {
	stop := context.AfterFunc(b.t.ctx, func() { stream.Close() })
	b.t.after(func() {
		stop()
		stream.Close()
	})
	return &viewing{t: b.t, name: name, stream: stream}
}

// picture returns what the display shows.
func (v *viewing) picture() *image.RGBA {
	if v.client == nil {
		client, err := rfb.New(v.stream)
		v.t.ok(err, "greeting the server of display "+v.name)
		v.client = client
	}
	picture, err := v.client.Capture()
	v.t.ok(err, "a picture of display "+v.name)
	return picture
}

// shows checks that the display shows what the inside program does.
func (v *viewing) shows(width, height int, rgb uint32) {
	picture := v.picture()
	size := image.Pt(width, height)
	if got := picture.Bounds().Size(); got != size {
		v.t.Errorf("display %q shows %v pixels, want %v", v.name, got, size)
		return
	}
	colour := color.RGBA{R: byte(rgb >> 16), G: byte(rgb >> 8), B: byte(rgb), A: 0xff}
	for y := range height {
		for x := range width {
			if got, want := picture.RGBAAt(x, y), rfb.At(size, colour, x, y); got != want {
				v.t.Errorf("display %q: pixel %d, %d is %v, want %v", v.name, x, y, got, want)
				return
			}
		}
	}
}

// ends reports whether the stream ends by itself, soon.
func (v *viewing) ends() bool {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, v.stream)
	}()
	select {
	case <-ended:
		return true
	case <-time.After(v.t.patience):
		v.stream.Close()
		<-ended
		return false
	}
}

// An outside is a unix socket of the host's.
type outside struct {
	dir   string // where it is, as "s"
	calls atomic.Int64
}

// listenOutside listens at a unix socket of the host's, to the case's end.
func (t *T) listenOutside() *outside {
	o := &outside{dir: t.folder("outside")}
	dir, err := os.Open(o.dir)
	t.ok(err, "Open")
	defer dir.Close()
	// A path of a socket has a hundred bytes at most.
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/s", dir.Fd()))
	t.ok(err, "Listen")
	t.accept(l, func(net.Conn) { o.calls.Add(1) })
	return o
}
