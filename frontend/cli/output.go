package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// An output prints the records of a log: each stream's bytes as they are to
// its own writer, and what Caisson itself says as lines of its own on stderr.
type output struct {
	stdout, stderr io.Writer
	// stamp puts the time before every line. It looks for line ends, so it is
	// only for people.
	stamp bool
	// midLine tells, by stream, that the last byte printed was no line end.
	midLine map[tasklog.Stream]bool
}

func newOutput(stdout, stderr io.Writer) *output {
	return &output{stdout: stdout, stderr: stderr, midLine: map[tasklog.Stream]bool{}}
}

func (o *output) write(rec executor.LogRecord) error {
	if rec.Stream == tasklog.System {
		return o.writeSystem(rec)
	}
	w := o.stdout
	if rec.Stream == tasklog.Stderr {
		w = o.stderr
	}
	data := rec.Data
	if o.stamp {
		data = o.stamped(rec)
	}
	if len(data) == 0 {
		return nil
	}
	o.midLine[rec.Stream] = data[len(data)-1] != '\n'
	_, err := w.Write(data)
	return err
}

// stamped puts the record's time before each line that begins in it.
func (o *output) stamped(rec executor.LogRecord) []byte {
	var b bytes.Buffer
	begins := !o.midLine[rec.Stream]
	for line := range bytes.SplitAfterSeq(rec.Data, []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		if begins {
			b.WriteString(stampOf(rec.Time))
		}
		b.Write(line)
		begins = true
	}
	return b.Bytes()
}

func (o *output) writeSystem(rec executor.LogRecord) error {
	var b bytes.Buffer
	if o.midLine[tasklog.Stderr] {
		b.WriteByte('\n')
	}
	for line := range bytes.Lines(rec.Data) {
		if o.stamp {
			b.WriteString(stampOf(rec.Time))
		}
		b.WriteString("caisson: " + oneLine(string(line)) + "\n")
	}
	o.midLine[tasklog.Stderr] = false
	_, err := o.stderr.Write(b.Bytes())
	return err
}

func stampOf(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z07:00") + " " }

// outputEvent makes an event of a record, for streams of events.
func outputEvent(task string, rec executor.LogRecord) caisson.Event {
	return caisson.Event{
		Time: rec.Time, Task: task, Attempt: rec.Attempt, Step: rec.Step,
		Type: caisson.EventOutput, Stream: rec.Stream.String(), Data: rec.Data,
	}
}

// An eventPrinter prints events as JSON, one a line. It may be used by several
// goroutines.
type eventPrinter struct {
	w io.Writer

	mu sync.Mutex
}

func (p *eventPrinter) print(e caisson.Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err = p.w.Write(append(line, '\n'))
	return err
}
