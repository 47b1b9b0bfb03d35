//go:build unix

package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// keepBytes is how much of the begin and of the end of a stream is kept for a
// message: shorten takes at most as many characters, of up to four bytes each.
const keepBytes = 4 * maxMessage

// A capture keeps the begin and the end of a stream.
type capture struct {
	head, tail []byte
	cut        bool
}

func (c *capture) write(data []byte) {
	if n := keepBytes - len(c.head); n > 0 {
		n = min(n, len(data))
		c.head = append(c.head, data[:n]...)
		data = data[n:]
	}
	c.tail = append(c.tail, data...)
	if over := len(c.tail) - keepBytes; over > 0 {
		c.cut = true
		c.tail = append(c.tail[:0], c.tail[over:]...)
	}
}

// text returns what was kept. Where something is missing, shorten will cut, and
// it cuts there.
func (c *capture) text() string {
	return string(bytes.TrimSpace(append(bytes.Clone(c.head), c.tail...)))
}

// maxAnswer is how long the answer of a synchronous action may be.
const maxAnswer = 64 << 20

// said reads what a child has printed; answer keeps all of stdout, for an
// action.
func (a *attempt) said(ctx context.Context, child string, answer *bytes.Buffer) (stdout, stderr string, err error) {
	var out, errs capture
	err = a.job.Logs(ctx, child, executor.LogOptions{}, func(rec executor.LogRecord) error {
		switch rec.Stream {
		case tasklog.Stdout:
			out.write(rec.Data)
			if answer == nil {
				return nil
			}
			if answer.Len()+len(rec.Data) > maxAnswer {
				return &caisson.Error{
					Op: caisson.OpWait, Item: "action " + a.plan.Action, Kind: caisson.ErrInvalid,
					Err: fmt.Errorf("its answer is longer than %d MiB", maxAnswer>>20),
				}
			}
			answer.Write(rec.Data)
		case tasklog.Stderr:
			errs.write(rec.Data)
		}
		return nil
	})
	if errors.Is(err, caisson.ErrNotFound) {
		err = nil // it never ran
	}
	return out.text(), errs.text(), err
}
