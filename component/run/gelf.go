//go:build unix

package run

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/gelf"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// Where a step that logs by GELF reaches its listener: on the loopback device of
// its own network namespace, where the port is free always.
const (
	gelfHost = "127.0.0.1"
	gelfPort = 12202
)

// maxGELF is how much of a step's messages is kept, in bytes.
const maxGELF = 64 << 20

// The values of a definition's logging.verbosity. Any other is "normal".
const (
	verbosityNone       = "none"
	verbosityCamouflage = "camouflage"
	verbosityVerbose    = "verbose"
)

// A gelfLog puts what a step logs by GELF into the run's log.
type gelfLog struct {
	print   func(text string) error
	hide    func(text string) string // takes secrets out
	logging *component.Logging

	// opening guards what follows.
	opening  sync.Mutex
	listener *gelf.Listener // nil until the step has its network
	closed   bool

	mu   sync.Mutex
	last string // of level 4 or worse
	left int    // bytes that are still kept
	err  error  // the first of print
}

// gelfLog returns what takes a step's messages, or nil if it sends none.
func (r *row) gelfLog(s *step) *gelfLog {
	if !logsGELF(s.def.Definition) {
		return nil
	}
	print := func(text string) error { return r.job.Print("", tasklog.System, text) }
	return &gelfLog{print: print, hide: r.hider(), logging: &s.def.Logging, left: maxGELF}
}

func logsGELF(d *component.Definition) bool { return d.Logging.Type == "gelf" }

// ready listens in the step's network namespace, before its program starts. It
// is called again for another sandbox of the step, if the first one was lost.
func (g *gelfLog) ready(netns string) error {
	g.opening.Lock()
	defer g.opening.Unlock()
	if g.closed {
		return &caisson.Error{Op: caisson.OpStart, Item: "gelf", Kind: caisson.ErrAborted}
	}
	if g.listener != nil {
		g.listener.Close()
	}
	address := net.JoinHostPort(gelfHost, strconv.Itoa(gelfPort))
	listener, err := gelf.ListenIn(netns, address, gelf.Options{Type: g.logging.GELFServer, Message: g.message})
	if err == nil {
		g.listener = listener
	}
	return err
}

// refused says why an engine may have refused a step.
func (g *gelfLog) refused(err error) error {
	if g == nil || caisson.KindOf(err) != caisson.ErrUnsupported {
		return err
	}
	return fmt.Errorf("it logs by GELF, for which its engine must let this host listen inside of the sandbox: %w", err)
}

// close ends listening once everything that the step has sent is in the log. It
// returns the last message that is a warning or worse.
func (g *gelfLog) close() (last string, err error) {
	if g == nil {
		return "", nil
	}
	g.opening.Lock()
	defer g.opening.Unlock()
	if g.closed = true; g.listener != nil {
		g.listener.Close()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last, g.err
}

// message logs a message as the definition says for its level.
func (g *gelfLog) message(m *gelf.Message) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m.Level <= gelf.Warning && !m.Bad {
		g.last = g.hide(m.Text)
	}
	text := g.hide(g.text(m))
	if text == "" || g.left <= 0 || g.err != nil {
		return
	}
	text = fmt.Sprintf("%s: %s\n", m.Level, strings.TrimRight(shorten(text), "\n"))
	if g.left -= len(text); g.left <= 0 {
		text += "more messages are left out\n"
	}
	g.err = g.print(text)
}

// text is what is told of a message; "" for nothing.
func (g *gelfLog) text(m *gelf.Message) string {
	switch g.logging.Verbosity[m.Level.Verbosity()] {
	case verbosityNone:
		return ""
	case verbosityCamouflage:
		return "application error; whoever maintains the component can tell more"
	case verbosityVerbose:
		return m.Text + details(m)
	}
	return m.Text
}

// details is all else that a message has.
func details(m *gelf.Message) string {
	text := ""
	if m.Full != "" && m.Full != m.Text {
		text = "\n" + m.Full
	}
	if len(m.Fields) == 0 {
		return text
	}
	fields, err := json.Marshal(m.Fields)
	if err != nil {
		return text
	}
	return text + "\n" + string(fields)
}
