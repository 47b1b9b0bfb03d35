package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/mapping"
	"github.com/caissonrun/caisson/image"
)

// progressEvery bounds how often the line is drawn.
const progressEvery = 100 * time.Millisecond

// clearLine moves the cursor to the line's begin and clears it.
const clearLine = "\r\x1b[K"

// A progressLine shows on a terminal how far something is: the staging of inputs
// by update, anything else by draw. It is
// one line that is gone once an input is there, and before anything else is
// printed. Its zero value shows nothing.
type progressLine struct {
	w      io.Writer // nil: no terminal
	inputs []caisson.Input

	mu    sync.Mutex
	image imageParts
	drawn bool      // there is a line
	last  time.Time // when it was drawn
}

// update is told how many bytes of an input there are; total is -1 where it is
// not known.
func (p *progressLine) update(_ string, input int, done, total int64) {
	if p.w == nil || input >= len(p.inputs) {
		return
	}
	if total >= 0 && done >= total {
		p.clear()
		return
	}
	p.draw(p.inputs[input].To, done, total)
}

// pulled is told how much there is of a part of an image.
func (p *progressLine) pulled(_, ref string, part image.Progress) {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	sum := p.image.add(ref, part)
	p.mu.Unlock()
	if sum.Total > 0 && sum.Done >= sum.Total {
		p.clear()
		return
	}
	p.draw("image "+ref, int64(sum.Done), int64(sum.Total))
}

// moved is told how far a table or file of a component run is.
func (p *progressLine) moved(_ string, m mapping.Progress) {
	if p.w == nil {
		return
	}
	if m.Done {
		p.clear()
		return
	}
	what := "table "
	if m.File {
		what = "file "
	}
	name := m.Table
	if name == "" {
		name = m.Name
	}
	done := m.Bytes
	if m.Total > 0 {
		done = min(done, m.Total) // what is merged is read more than once
	}
	p.draw(what+name, done, m.Total)
}

// draw shows how much there is of something, unless it was shown just now.
func (p *progressLine) draw(name string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.last) < progressEvery {
		return
	}
	p.last, p.drawn = now, true
	fmt.Fprintf(p.w, "%s%s", clearLine, progressText(name, done, total))
}

// clear removes the line if there is one.
func (p *progressLine) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn {
		p.drawn = false
		io.WriteString(p.w, clearLine)
	}
}

func progressText(name string, done, total int64) string {
	text := fmt.Sprintf("caisson: %s: %s", oneLine(name), size(caisson.Bytes(done)))
	if total > 0 {
		text += fmt.Sprintf(" of %s, %d%%", size(caisson.Bytes(total)), done*100/total)
	}
	return text
}
