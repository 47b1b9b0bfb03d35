package thread_test

import (
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/internal/thread"
)

// TestSpend has many at once, so that some goroutine begins on the first thread.
func TestSpend(t *testing.T) {
	want := errors.New("its own")
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			err := thread.Spend(func() error {
				if unix.Gettid() == unix.Getpid() {
					t.Error("f is called on the first thread")
				}
				return want
			})
			if err != want {
				t.Errorf("Spend = %v, want f's error", err)
			}
		})
	}
	all.Wait()
}
