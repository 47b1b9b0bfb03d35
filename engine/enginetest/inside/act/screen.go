package act

import (
	"fmt"
	"image/color"
	"net"
	"strconv"

	"github.com/caissonrun/caisson/internal/rfb"
)

// show PLACE SIZE COLOUR serves a screen, or changes the one that it serves there.
// A place is a port, or a path of a unix socket; a size is 64x48 and a colour
// ff8000.
func (p *program) show(args []string) error {
	place := args[0]
	var width, height int
	if n, err := fmt.Sscanf(args[1], "%dx%d", &width, &height); n != 2 || err != nil {
		return fmt.Errorf("%q is no size", args[1])
	}
	rgb, err := strconv.ParseUint(args[2], 16, 24)
	if err != nil {
		return err
	}
	colour := color.RGBA{R: byte(rgb >> 16), G: byte(rgb >> 8), B: byte(rgb), A: 0xff}
	if there := p.screens[place]; there != nil {
		there.Change(width, height, colour)
		return nil
	}
	network, address := "unix", place
	if _, err := strconv.Atoi(place); err == nil {
		network, address = "tcp", "127.0.0.1:"+place
	}
	screen := rfb.NewScreen(width, height, colour)
	if err := p.Show(network, address, screen); err != nil {
		return err
	}
	if p.screens == nil {
		p.screens = map[string]*rfb.Screen{}
	}
	p.screens[place] = screen
	return nil
}

// Exhibit shows a screen to whoever connects to l.
func Exhibit(l net.Listener, screen *rfb.Screen) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_ = screen.Serve(conn)
		}()
	}
}
