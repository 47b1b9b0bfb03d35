package caisson_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/caissonrun/caisson"
)

func TestError(t *testing.T) {
	for want, err := range map[string]*caisson.Error{
		"mount: /data: no such folder": {Op: caisson.OpMount, Item: "/data", Kind: caisson.ErrNotFound, Err: errors.New("no such folder")},
		"mount: /data: not found":      {Op: caisson.OpMount, Item: "/data", Kind: caisson.ErrNotFound},
		"mount: denied":                {Op: caisson.OpMount, Kind: caisson.ErrDenied},
		"/data: x":                     {Item: "/data", Err: errors.New("x")},
	} {
		if got := err.Error(); got != want {
			t.Errorf("Error() = %q, want %q", got, want)
		}
	}
}

func TestKinds(t *testing.T) {
	inner := &caisson.Error{Kind: caisson.ErrNotFound, Err: fs.ErrNotExist}
	outer := &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("looking: %w", inner)}
	wrapped := fmt.Errorf("task x: %w", outer)
	if !errors.Is(wrapped, caisson.ErrInvalid) || !errors.Is(wrapped, caisson.ErrNotFound) || !errors.Is(wrapped, fs.ErrNotExist) {
		t.Errorf("%v: a kind or the cause is not found through the wrapping", wrapped)
	}
	if errors.Is(wrapped, caisson.ErrDenied) {
		t.Errorf("%v is said to be denied", wrapped)
	}
	for _, test := range []struct {
		err  error
		want caisson.Kind
	}{
		{wrapped, caisson.ErrInvalid},
		{inner, caisson.ErrNotFound},
		{fmt.Errorf("x: %w", caisson.ErrEnded), caisson.ErrEnded},
		{context.Canceled, caisson.ErrUnknown},
		{nil, caisson.ErrUnknown},
	} {
		if got := caisson.KindOf(test.err); got != test.want {
			t.Errorf("KindOf(%v) = %v, want %v", test.err, got, test.want)
		}
	}
}

func TestKindText(t *testing.T) {
	seen := map[string]bool{}
	for k := caisson.ErrUnknown; k <= caisson.ErrInternal; k++ {
		data, err := json.Marshal(k)
		var back caisson.Kind
		if err != nil || json.Unmarshal(data, &back) != nil || back != k {
			t.Errorf("kind %d becomes %s and then %v", int(k), data, back)
		}
		if seen[k.Error()] {
			t.Errorf("two kinds are called %q", k.Error())
		}
		seen[k.Error()] = true
		if want := k == caisson.ErrExhausted || k == caisson.ErrUnavailable; k.Retryable() != want {
			t.Errorf("%v.Retryable() = %v, want %v", k, k.Retryable(), want)
		}
	}
	var k caisson.Kind
	if err := json.Unmarshal([]byte(`"from the future"`), &k); err != nil || k != caisson.ErrUnknown {
		t.Errorf("a kind that is not known becomes %v, %v, want unknown", k, err)
	}
	if got := caisson.Kind(99).Error(); got != "unknown" {
		t.Errorf("Kind(99) = %q, want unknown", got)
	}
}
