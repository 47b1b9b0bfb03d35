//go:build unix

package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/idle"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/internal/landing"
)

// Fetch implements stage.Fetcher. The file has mode 0644 unless the input says
// another.
func (s *Stager) Fetch(ctx context.Context, in *caisson.Input, work *os.Root, env *stage.Env) (*stage.Fetched, error) {
	got, err := s.fetch(ctx, in, work, env)
	return landing.Optional(in, got, err)
}

func (s *Stager) fetch(ctx context.Context, in *caisson.Input, work *os.Root, env *stage.Env) (*stage.Fetched, error) {
	if err := landing.Check(in); err != nil {
		return nil, err
	}
	u, err := s.parse(in, env)
	if err != nil {
		return nil, err
	}
	spot, err := landing.At(in, work, env)
	if err != nil {
		return nil, err
	}
	defer spot.Close()
	file, err := spot.Create(0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()

	// The end of our own limit must not look like the end of the caller's.
	limited, cancel := context.WithTimeoutCause(ctx, s.opts.Total, errTotal)
	defer cancel()
	t := &transfer{opts: &s.opts, in: in, env: env, url: u, file: file, client: s.client(u, env.Trusted)}
	defer t.client.CloseIdleConnections()
	t.restart()
	if err := t.run(limited); err != nil {
		return nil, t.sorted(ctx, err)
	}
	if err := landing.Verify(in, t.meter.Sum()); err != nil {
		return nil, err
	}
	if err := file.Commit(false); err != nil {
		return nil, safefs.Sorted(caisson.OpStageIn, landing.Item(in), err)
	}
	return &stage.Fetched{Bytes: t.meter.Size(), SHA256: t.meter.Sum()}, nil
}

var errTotal = errors.New("it takes longer than is permitted")

// A transfer is one input on its way, over as many requests as it takes.
type transfer struct {
	opts   *Options
	in     *caisson.Input
	env    *stage.Env
	url    *url.URL
	client *http.Client
	file   *safefs.Temp
	meter  *landing.Meter
	total  int64  // bytes of the whole file, -1 where unknown
	tag    string // tells whether the file is still the same; empty: nothing does
	told   int64  // the progress that was told last
}

// A passing is an error that another try may get over.
type passing struct {
	err   error
	after time.Duration // that the server asks to wait
}

func (p *passing) Error() string { return p.err.Error() }
func (p *passing) Unwrap() error { return p.err }

// restart begins the file anew.
func (t *transfer) restart() {
	t.total, t.tag = -1, ""
	env := *t.env
	env.Progress = nil
	t.meter = landing.NewMeter(t.in, &env, -1)
}

// maxTries bounds the requests of one transfer: a server that gives a byte at a
// time never fails without a new one.
const maxTries = 1000

// run tries until the file is complete.
func (t *transfer) run(ctx context.Context) error {
	failures := 0
	for tries := 1; ; tries++ {
		before := t.meter.Size()
		err := t.try(ctx)
		var pass *passing
		if err == nil || !errors.As(err, &pass) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if t.meter.Size() > before {
			failures = 0
		}
		if failures++; failures >= t.opts.Tries || tries >= maxTries {
			return err
		}
		if err := sleep(ctx, max(pass.after, backoff(t.opts.Delay, failures))); err != nil {
			return err
		}
	}
}

// backoff returns the pause after so many failures in a row, with some chance
// in it so that many tasks do not come back at the same moment.
func backoff(delay time.Duration, failures int) time.Duration {
	delay = min(delay<<min(failures-1, 16), MaxDelay)
	return delay/2 + rand.N(delay/2+1)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(min(d, MaxDelay))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// try makes one request and takes what comes.
func (t *transfer) try(ctx context.Context) error {
	ctx, timer := idle.Watch(ctx, t.opts.Idle)
	defer timer.Stop()
	resp, err := t.get(ctx)
	if err != nil {
		return blame(timer, err)
	}
	defer resp.Body.Close()
	if err := t.accept(resp); err != nil {
		return err
	}
	return blame(timer, t.receive(resp.Body, timer))
}

// accept looks at an answer and gets the file ready for its body.
func (t *transfer) accept(resp *http.Response) error {
	switch {
	case resp.StatusCode == http.StatusPartialContent && t.meter.Size() > 0:
		return t.checkRange(resp.Header.Get("Content-Range"))
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && t.meter.Size() > 0:
		t.restart()
		return &passing{err: errors.New("the server's file has changed")}
	case resp.StatusCode != http.StatusOK:
		return statusError(resp)
	}
	t.restart()
	t.total, t.tag = resp.ContentLength, validator(resp.Header)
	if err := landing.CheckSize(t.in, t.total); err != nil {
		return err
	}
	if err := t.file.Truncate(0); err != nil {
		return err
	}
	_, err := t.file.Seek(0, io.SeekStart)
	return err
}

// checkRange refuses a part that does not begin where the file ends.
func (t *transfer) checkRange(header string) error {
	var from, to int64
	var total string
	if n, _ := fmt.Sscanf(header, "bytes %d-%d/%s", &from, &to, &total); n != 3 || from != t.meter.Size() || to < from {
		t.restart()
		return &passing{err: fmt.Errorf("the server sent another part than was asked for: %q", header)}
	}
	if total == "*" {
		return nil
	}
	size, err := strconv.ParseInt(total, 10, 64)
	if err != nil || t.total >= 0 && size != t.total {
		t.restart()
		return &passing{err: errors.New("the server's file has changed")}
	}
	t.total = size
	return landing.CheckSize(t.in, size)
}

// receive writes a body to the end of the file.
func (t *transfer) receive(body io.Reader, timer *idle.Timer) error {
	buf := make([]byte, 256<<10)
	for {
		n, readErr := body.Read(buf)
		timer.Reset()
		if n > 0 {
			if _, err := t.meter.Write(buf[:n]); err != nil {
				return err
			}
			if _, err := t.file.Write(buf[:n]); err != nil {
				return safefs.Sorted(caisson.OpStageIn, landing.Item(t.in), err)
			}
			t.tell()
		}
		if errors.Is(readErr, io.EOF) && (t.total < 0 || t.meter.Size() == t.total) {
			return nil
		}
		if errors.Is(readErr, io.EOF) {
			readErr = io.ErrUnexpectedEOF
		}
		if readErr != nil {
			if t.tag == "" {
				defer t.restart() // nothing tells whether the rest would fit
			}
			return &passing{err: fmt.Errorf("cut off after %d bytes: %w", t.meter.Size(), readErr)}
		}
	}
}

// tell tells the progress, which a restart does not take back.
func (t *transfer) tell() {
	if t.env.Progress != nil && t.meter.Size() > t.told {
		t.told = t.meter.Size()
		t.env.Progress(t.told, t.total)
	}
}

// sorted describes why a transfer failed. ctx is the caller's.
func (t *transfer) sorted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", landing.Item(t.in), ctx.Err())
	}
	var sorted *caisson.Error
	if errors.As(err, &sorted) && sorted.Op == caisson.OpStageIn {
		return err
	}
	kind := safefs.Kind(err)
	if kind == caisson.ErrUnknown {
		kind = caisson.ErrUnavailable
	}
	// A timeout of ours is wrapped by its text only: it is not the caller's.
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = errors.New(err.Error())
	}
	return &caisson.Error{
		Op: caisson.OpStageIn, Item: landing.Item(t.in), Kind: kind, Err: fmt.Errorf("%s: %w", landing.Secretless(t.url), err),
	}
}
