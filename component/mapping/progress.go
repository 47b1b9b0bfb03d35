package mapping

import (
	"io"
	"sync"
)

// DefaultParallel is how many tables are moved at once where nobody says.
const DefaultParallel = 2

// Progress is how far one table or file has come.
type Progress struct {
	Output bool   // out of the component; otherwise into it
	File   bool   // a file; otherwise a table
	Name   string // in the data folder
	Table  string // the table's id
	Bytes  int64  // moved so far
	Total  int64  // of bytes; -1: not known
	Rows   int64  // loaded; known when it is done
	Done   bool
}

// meter calls a function that people gave, one call at a time.
type meter struct {
	mu   sync.Mutex
	call func(Progress)
}

func (m *meter) report(p Progress) {
	if m.call == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.call(p)
}

// count returns a counter that reports p with what went through it.
func (m *meter) count(p Progress) *counter { return &counter{meter: m, p: p} }

// reportStep is after how many bytes progress is reported.
const reportStep = 1 << 20

// A counter counts bytes that pass through readers and a writer.
type counter struct {
	meter *meter
	mu    sync.Mutex
	p     Progress
	since int64 // bytes since the last report
}

func (c *counter) add(n int) {
	c.mu.Lock()
	c.p.Bytes += int64(n)
	c.since += int64(n)
	due := c.since >= reportStep
	if due {
		c.since = 0
	}
	p := c.p
	c.mu.Unlock()
	if due {
		c.meter.report(p)
	}
}

// set reports how many bytes were moved, if they are more than before.
func (c *counter) set(bytes int64) {
	c.mu.Lock()
	due := bytes > c.p.Bytes
	c.p.Bytes = max(bytes, c.p.Bytes)
	p := c.p
	c.mu.Unlock()
	if due {
		c.meter.report(p)
	}
}

// done reports the end.
func (c *counter) done(rows int64) {
	c.mu.Lock()
	c.p.Rows, c.p.Done = rows, true
	if c.p.Bytes < c.p.Total {
		c.p.Bytes = c.p.Total
	}
	p := c.p
	c.mu.Unlock()
	c.meter.report(p)
}

// countWriter counts what is written.
type countWriter struct {
	w io.Writer
	c *counter
}

func (w countWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.c.add(n)
	return n, err
}

// countReader counts what is read.
type countReader struct {
	io.ReadCloser
	c *counter
}

func (r countReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.c.add(n)
	return n, err
}
