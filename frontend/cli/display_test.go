package cli_test

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/caissonrun/caisson/internal/rfb"
)

// cmdViewer is as many VNC viewers as the last argument says, all at once, each of
// which must see a screen of the inside program's.
func cmdViewer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: viewer ADDRESS SIZE COLOUR N")
	}
	n, err := strconv.Atoi(args[3])
	ts.Check(err)
	network, address := "tcp", args[0]
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", ts.MkAbs(path)
	}
	errs := make([]error, n)
	var seen, all sync.WaitGroup
	seen.Add(n)
	for i := range n {
		all.Go(func() {
			var leave func()
			leave, errs[i] = view(network, address, args[1], args[2])
			seen.Done()
			// They are there together.
			seen.Wait()
			leave()
		})
	}
	all.Wait()
	for _, err := range errs {
		ts.Check(err)
	}
}

// view is a viewer that must see that screen. It stays until leave is called.
func view(network, address, size, colour string) (leave func(), err error) {
	conn, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return func() {}, err
	}
	leave = func() { conn.Close() }
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return leave, err
	}
	client, err := rfb.New(conn)
	if err != nil {
		return leave, err
	}
	picture, err := client.Capture()
	if err != nil {
		return leave, err
	}
	return leave, checkPicture(picture, size, colour)
}

// cmdPicture checks a PNG file.
func cmdPicture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: picture FILE SIZE COLOUR")
	}
	f, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	picture, err := png.Decode(f)
	ts.Check(err)
	ts.Check(checkPicture(picture, args[1], args[2]))
}

// checkPicture returns an error unless it is one of a screen of the inside
// program's, or, where the colour is any, of that size.
func checkPicture(picture image.Image, size, colour string) error {
	var want image.Point
	var c color.RGBA
	if _, err := fmt.Sscanf(size, "%dx%d", &want.X, &want.Y); err != nil {
		return err
	}
	if got := picture.Bounds().Size(); got != want {
		return fmt.Errorf("the picture has %v pixels, want %v", got, want)
	}
	if colour == "any" {
		return nil
	}
	if _, err := fmt.Sscanf(colour, "%02x%02x%02x", &c.R, &c.G, &c.B); err != nil {
		return err
	}
	for _, at := range []image.Point{{}, {X: want.X - 1}, {Y: want.Y - 1}, {X: want.X - 1, Y: want.Y - 1}} {
		if got, want := color.RGBAModel.Convert(picture.At(at.X, at.Y)), rfb.At(want, c, at.X, at.Y); got != want {
			return fmt.Errorf("pixel %v is %v, want %v", at, got, want)
		}
	}
	return nil
}
