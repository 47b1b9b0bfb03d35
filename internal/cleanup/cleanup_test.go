package cleanup_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/caissonrun/caisson/internal/cleanup"
)

func TestRun(t *testing.T) {
	var l cleanup.List
	var order []int
	first, second := errors.New("first"), errors.New("second")
	l.Add(func() error { order = append(order, 1); return first })
	l.Add(func() error { order = append(order, 2); return nil })
	l.Add(func() error { order = append(order, 3); return second })
	err := l.Run(t.Context())
	if !slices.Equal(order, []int{3, 2, 1}) {
		t.Errorf("undone in order %v, want the last first", order)
	}
	if !errors.Is(err, first) || !errors.Is(err, second) {
		t.Errorf("Run = %v, want both errors", err)
	}
	if err := l.Run(t.Context()); err != nil || len(order) != 3 {
		t.Errorf("a second Run = %v and undid again: %v", err, order)
	}
}

func TestRunAfterCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var l cleanup.List
	l.AddContext(func(ctx context.Context) error {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("the context of an undoing has no end")
		}
		return ctx.Err()
	})
	if err := l.Run(ctx); err != nil {
		t.Errorf("Run with a cancelled context = %v, want undone all the same", err)
	}
}

func TestOnError(t *testing.T) {
	cause, undoErr := errors.New("cause"), errors.New("undo")
	try := func(fail, release bool) (undone bool, err error) {
		var l cleanup.List
		defer l.OnError(context.Background(), &err)
		l.Add(func() error { undone = true; return undoErr })
		if release {
			l.Release()
		}
		if fail {
			return undone, cause
		}
		return undone, nil
	}
	if undone, err := try(true, false); !undone || !errors.Is(err, cause) || !errors.Is(err, undoErr) {
		t.Errorf("on error: undone %v, %v, want true and both errors", undone, err)
	}
	if undone, err := try(false, false); undone || err != nil {
		t.Errorf("on success: undone %v, %v, want nothing undone", undone, err)
	}
	if undone, err := try(true, true); undone || err != cause {
		t.Errorf("after Release: undone %v, %v, want nothing undone", undone, err)
	}
}
