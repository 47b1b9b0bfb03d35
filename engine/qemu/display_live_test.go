//go:build linux

package qemu

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/rfb"
)

// TestDisplay holds what a machine's screen does, in one guest.
func TestDisplay(t *testing.T) {
	p := newParts(t)
	m := p.machine()
	m.Screen, m.ScreenWidth, m.ScreenHeight = true, 800, 600
	b := open(t, p.specOf(t, m))

	// A viewer sees what the BIOS and the kernel have left, and no pixel is missing.
	first := lookAt(t, b)
	if size := pictureOf(t, first); size == 0 {
		t.Error("the screen has no pixels")
	}
	// One that never reads, one that talks nonsense, and one that goes at once.
	deaf := viewerOf(t, b)
	for range 1000 {
		if _, err := deaf.Write([]byte("RFB 003.008\n\x01\x01\x03\x00\x00\x00\x00\x00\x00\x40\x00\x40")); err != nil {
			break
		}
	}
	nonsense := viewerOf(t, b)
	if _, err := nonsense.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Error(err)
	}
	viewerOf(t, b).Close()
	pictureOf(t, first)
	pictureOf(t, lookAt(t, b))

	// They are bounded, and who goes makes room.
	var all []net.Conn
	var full error
	for range 2 * maxViewers {
		_, files, err := b.Do(kept.OpDisplay, nil)
		if err != nil {
			full = err
			break
		}
		all = append(all, connOf(t, files))
	}
	if !errors.Is(full, caisson.ErrExhausted) {
		t.Errorf("more than %d viewers: %v, want ErrExhausted", maxViewers, full)
	}
	for _, c := range all {
		c.Close()
	}
	pictureOf(t, first)
	for deadline := time.Now().Add(testLimit); ; time.Sleep(10 * time.Millisecond) {
		_, files, err := b.Do(kept.OpDisplay, nil)
		if err == nil {
			connOf(t, files).Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}

	// A halted machine is looked at all the same.
	if err := b.Freeze(true); err != nil {
		t.Fatal(err)
	}
	pictureOf(t, first)
	pictureOf(t, lookAt(t, b))
	if err := b.Freeze(false); err != nil {
		t.Fatal(err)
	}

	// Streams end with the machine, and nothing waits after that.
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := first.client.Capture(); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("a picture after the end: %v", err)
	}
	for range 3 {
		if _, files, err := b.Do(kept.OpDisplay, nil); err == nil {
			connOf(t, files).Close()
			t.Error("the screen of a machine that has ended can be looked at")
		}
	}
}

// A looking viewer is one that was greeted.
type looking struct {
	conn   net.Conn
	client *rfb.Client
}

// viewerOf is a viewer's connection.
func viewerOf(t *testing.T, b *box) net.Conn {
	t.Helper()
	_, files, err := b.Do(kept.OpDisplay, nil)
	if err != nil {
		t.Fatal(err)
	}
	return connOf(t, files)
}

func connOf(t *testing.T, files []*os.File) net.Conn {
	t.Helper()
	if len(files) != 1 {
		t.Fatalf("a display is %d files", len(files))
	}
	defer files[0].Close()
	conn, err := net.FileConn(files[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(testLimit)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func lookAt(t *testing.T, b *box) *looking {
	t.Helper()
	conn := viewerOf(t, b)
	client, err := rfb.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return &looking{conn, client}
}

// pictureOf takes a picture and returns how many pixels it has.
func pictureOf(t *testing.T, l *looking) int {
	t.Helper()
	picture, err := l.client.Capture()
	if err != nil {
		t.Fatal(err)
	}
	return picture.Bounds().Dx() * picture.Bounds().Dy()
}
