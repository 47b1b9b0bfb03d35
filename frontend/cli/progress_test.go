package cli

import (
	"bytes"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
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

func TestProgressOfImage(t *testing.T) {
	var b bytes.Buffer
	p := &progressLine{w: &b}
	p.pulled("", "app", image.Progress{Digest: "a", Done: 1 << 20, Total: 2 << 20})
	p.pulled("", "app", image.Progress{Digest: "b", Done: 1 << 20, Total: 2 << 20}) // too soon
	p.pulled("", "app", image.Progress{Digest: "a", Done: 2 << 20, Total: 2 << 20})
	if got, want := b.String(), clearLine+"caisson: image app: 1.0m of 2.0m, 50%"; got != want {
		t.Errorf("line = %q, want %q", got, want)
	}
	p.pulled("", "app", image.Progress{Digest: "b", Done: 2 << 20, Total: 2 << 20}) // all is there
	if got := b.String(); got[len(got)-len(clearLine):] != clearLine {
		t.Errorf("the line stays: %q", got)
	}
	b.Reset()
	p.last = p.last.Add(-progressEvery)
	p.pulled("", "other", image.Progress{Digest: "c", Done: 1 << 20, Total: 4 << 20})
	if got, want := b.String(), clearLine+"caisson: image other: 1.0m of 4.0m, 25%"; got != want {
		t.Errorf("another image: %q, want %q", got, want)
	}
	(&progressLine{}).pulled("", "app", image.Progress{Done: 1}) // without a terminal
}
