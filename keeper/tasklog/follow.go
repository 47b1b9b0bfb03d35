package tasklog

import (
	"context"
	"io"
	"time"

	"github.com/caissonrun/caisson"
)

// A follower that waits for more looks after pollMin, and after twice as long
// each time that it finds nothing, up to pollMax: a short program's output is
// seen at once, and a silent one costs next to nothing.
const (
	pollMin = time.Millisecond
	pollMax = 50 * time.Millisecond
)

// Follow calls f for every record from pos on, those that are written later
// too, until ended reports true and everything has been read, or ctx ends, or
// f returns an error. A log that does not exist yet is waited for.
//
// It returns nil in the first case, and else the context's or f's error, or
// one of Reader.Next.
func Follow(ctx context.Context, path string, pos int64, ended func() bool, f func(Record) error) error {
	r, err := waitOpen(ctx, path, pos, ended)
	if r == nil {
		return err
	}
	defer r.Close()
	for wait := pollMin; ; wait = min(2*wait, pollMax) {
		// Asked before reading: what was written before the end is then seen.
		over := ended()
		some, err := r.each(ctx, f)
		if err != nil || over {
			return err
		}
		if some {
			wait = pollMin
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// waitOpen opens the log once it exists. It returns nil and no error if it
// does not exist at the end.
func waitOpen(ctx context.Context, path string, pos int64, ended func() bool) (*Reader, error) {
	for wait := pollMin; ; wait = min(2*wait, pollMax) {
		over := ended()
		r, err := Open(path, pos)
		if err == nil {
			return r, nil
		}
		if caisson.KindOf(err) != caisson.ErrNotFound {
			return nil, err
		}
		if over {
			return nil, nil
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// each calls f for the records that there are now.
func (r *Reader) each(ctx context.Context, f func(Record) error) (some bool, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return some, err
		}
		rec, err := r.Next()
		if err == io.EOF {
			return some, nil
		}
		if err != nil {
			return some, err
		}
		some = true
		if err := f(rec); err != nil {
			return some, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
