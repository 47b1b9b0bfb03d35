package docker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/moby/moby/client"
)

// A copier passes a container's output on, every byte of it once and in order,
// until the marks that end both streams. It reads from the connection that was
// attached before the start; if that breaks, because the daemon has ended or
// was restarted, from the daemon's own log, without what it has passed on.
type copier struct {
	daemon    *daemon
	container string
	mark      []byte
	done      chan struct{} // closed when nothing more comes
	err       error         // why something may be missing; after done

	cancel context.CancelFunc
	lanes  [2]lane // stdout, stderr
}

// A lane is one of the two streams.
type lane struct {
	to    io.WriteCloser
	came  int64  // bytes that were read, of all connections
	skip  int64  // bytes of the present connection that were read before
	held  []byte // may be the beginning of the mark
	ended bool   // the mark has come
}

// startCopier begins to copy. Attached may be nil: then everything comes from
// the daemon's log. It closes stdout and stderr at the end.
func startCopier(d *daemon, container string, mark []byte, attached io.ReadCloser, stdout, stderr io.WriteCloser) *copier {
	ctx, cancel := context.WithCancel(context.Background())
	c := &copier{daemon: d, container: container, mark: mark, done: make(chan struct{}), cancel: cancel}
	c.lanes[0].to, c.lanes[1].to = stdout, stderr
	go func() {
		defer close(c.done)
		defer cancel()
		c.err = c.run(ctx, attached)
		for i := range c.lanes {
			c.lanes[i].flush()
			c.lanes[i].to.Close()
		}
	}()
	return c
}

// The pauses between attempts to reach a daemon that is gone.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// run copies until the end.
func (c *copier) run(ctx context.Context, from io.ReadCloser) error {
	pause, before := firstPause, int64(0)
	for {
		if from != nil {
			if err := c.copy(ctx, from); err == nil || ctx.Err() != nil {
				return ctx.Err()
			}
		}
		// In this order: what a container that has ended has printed is in the
		// log when that is read.
		ended, err := c.ended(ctx)
		if notFound(err) {
			return errors.New("the container was removed by somebody else")
		}
		if err == nil {
			from, err = c.again(ctx, !ended)
		}
		if err == nil && ended {
			if c.copy(ctx, from); ctx.Err() == nil {
				return nil
			}
		}
		if err != nil {
			from = nil
		}
		// A connection that brought something is worth another one at once.
		if came := c.lanes[0].came + c.lanes[1].came; came > before {
			pause, before = firstPause, came
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			pause = min(2*pause, lastPause)
		}
	}
}

// ended reports whether the container does not run any more.
func (c *copier) ended(ctx context.Context) (bool, error) {
	r, err := call(ctx, "container", func(ctx context.Context) (client.ContainerInspectResult, error) {
		return c.daemon.ContainerInspect(ctx, c.container, client.ContainerInspectOptions{})
	})
	if err != nil {
		return false, err
	}
	state := r.Container.State
	return state == nil || !state.Running && !state.Restarting, nil
}

// again opens the daemon's log from its beginning.
func (c *copier) again(ctx context.Context, follow bool) (io.ReadCloser, error) {
	for i := range c.lanes {
		c.lanes[i].skip = c.lanes[i].came
	}
	r, err := c.daemon.ContainerLogs(ctx, c.container, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: follow})
	return r, sorted(ctx, "log", err)
}

// errCut says that a connection ended before the marks.
var errCut = errors.New("the daemon has ended the connection")

// copy reads frames until both marks have come, and then returns nil.
func (c *copier) copy(ctx context.Context, from io.ReadCloser) error {
	stop := context.AfterFunc(ctx, func() { from.Close() })
	defer stop()
	defer from.Close()
	var head [8]byte
	buf := make([]byte, 32<<10)
	for !c.lanes[0].ended || !c.lanes[1].ended {
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return errCut
		}
		lane, size, err := c.frame(&head)
		if err != nil {
			return err
		}
		for size > 0 {
			n, err := from.Read(buf[:min(int(size), len(buf))])
			lane.take(buf[:n], c.mark)
			size -= uint32(n)
			if err != nil && size > 0 {
				return errCut
			}
		}
	}
	return nil
}

// frame reads the head of a frame.
func (c *copier) frame(head *[8]byte) (*lane, uint32, error) {
	if head[0] < 1 || head[0] > 2 || head[1]|head[2]|head[3] != 0 {
		return nil, 0, fmt.Errorf("what the daemon sends is no output: %q", head[:])
	}
	return &c.lanes[head[0]-1], binary.BigEndian.Uint32(head[4:]), nil
}

// take takes what was read of a stream.
func (l *lane) take(data, mark []byte) {
	again := min(l.skip, int64(len(data)))
	l.skip -= again
	data = data[again:]
	l.came += int64(len(data))
	if l.ended || len(data) == 0 {
		return
	}
	if len(l.held) > 0 {
		data = append(l.held, data...)
		l.held = nil
	}
	if i := bytes.Index(data, mark); i >= 0 {
		l.ended = true
		l.write(data[:i])
		return
	}
	keep := 0
	for n := min(len(mark)-1, len(data)); n > 0; n-- {
		if bytes.HasSuffix(data, mark[:n]) {
			keep = n
			break
		}
	}
	l.write(data[:len(data)-keep])
	l.held = append([]byte(nil), data[len(data)-keep:]...)
}

// flush passes on what turned out to be no mark.
func (l *lane) flush() {
	l.write(l.held)
	l.held = nil
}

func (l *lane) write(data []byte) {
	if len(data) > 0 {
		// The keeper reads until it has all, or does not want more.
		_, _ = l.to.Write(data)
	}
}

// wait waits for the end, but no longer than patience.
func (c *copier) wait(patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.done:
		return c.err
	case <-timer.C:
	}
	c.stop()
	return errors.New("output may be missing: the daemon did not deliver it within " + patience.String())
}

// stop ends the copying. It can be called again.
func (c *copier) stop() {
	c.cancel()
	<-c.done
}
