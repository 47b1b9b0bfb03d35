package cli

import (
	"bytes"
	"testing"

	"github.com/caissonrun/caisson"
)

func TestProgressLine(t *testing.T) {
	var b bytes.Buffer
	p := &progressLine{w: &b, inputs: []caisson.Input{{To: "in/a\x1b"}}}
	p.clear() // nothing is drawn
	p.update("", 0, 1<<20, 4<<20)
	p.update("", 0, 2<<20, 4<<20) // too soon
	p.update("", 7, 1, 2)         // none of ours
	p.update("", 0, 4<<20, 4<<20) // done
	p.clear()
	want := clearLine + `caisson: in/a\x1b: 1.0m of 4.0m, 25%` + clearLine
	if b.String() != want {
		t.Errorf("line = %q, want %q", b.String(), want)
	}
	(&progressLine{}).update("", 0, 1, 2) // without a terminal
}
