package kept

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/caissonrun/caisson"
)

func TestSlots(t *testing.T) {
	runtime := t.TempDir()
	o := New(&Options{Engine: "one", Runtime: runtime, Installation: "a", IDs: Range{Base: 100000, Count: 31, Each: 3}})
	var mu sync.Mutex
	var taken []int
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			slot, err := o.takeSlot(t.Context(), fmt.Sprintf("s%d", i))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			taken = append(taken, slot)
		})
	}
	all.Wait()
	slices.Sort(taken)
	if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}; !slices.Equal(taken, want) {
		t.Errorf("slots %v, want %v", taken, want)
	}
	if _, err := o.takeSlot(t.Context(), "more"); !errors.Is(err, caisson.ErrExhausted) {
		t.Errorf("one more = %v, want ErrExhausted", err)
	}
	if err := errors.Join(o.freeSlot("b", "s3"), o.freeSlot("a", "absent")); err != nil {
		t.Error(err)
	}
	if _, err := o.takeSlot(t.Context(), "more"); !errors.Is(err, caisson.ErrExhausted) {
		t.Errorf("another installation's sandbox freed a slot: %v", err)
	}
	for range 2 {
		if err := o.freeSlot("a", "s3"); err != nil {
			t.Error(err)
		}
	}
	if _, err := o.takeSlot(t.Context(), "more"); err != nil {
		t.Error(err)
	}
	freed, err := o.freeSlots(func(string) bool { return true })
	if err != nil || len(freed) != 10 {
		t.Errorf("freeSlots = %v, %v", freed, err)
	}
	if entries, err := os.ReadDir(runtime); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
