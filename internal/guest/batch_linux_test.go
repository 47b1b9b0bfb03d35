package guest_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest"
)

// TestBatch makes several calls at once, up to the one that fails.
func TestBatch(t *testing.T) {
	c := dial(t, startAgent(t, nil))
	if done, err := c.Do(testContext(t), &guest.Batch{}); done != 0 || err != nil {
		t.Errorf("Do() of nothing = %d, %v", done, err)
	}
	dir := t.TempDir()
	first, last := filepath.Join(dir, "first"), filepath.Join(dir, "last")
	var b guest.Batch
	err := errors.Join(
		b.WriteFile(&guest.File{Path: guest.Name(first), Data: []byte("1")}),
		b.SetRoot("/"), // is for the first process of a machine
		b.WriteFile(&guest.File{Path: guest.Name(last), Data: []byte("2")}),
	)
	if err != nil || b.Len() != 3 || b.Full() {
		t.Fatalf("a batch of %d, %v", b.Len(), err)
	}
	if done, err := c.Do(testContext(t), &b); done != 1 || !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Do() = %d, %v, want 1, ErrUnsupported", done, err)
	}
	if data, err := os.ReadFile(first); string(data) != "1" || err != nil {
		t.Errorf("the file before it says %q, %v", data, err)
	}
	if _, err := os.Lstat(last); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file behind it: %v, want that it was not written", err)
	}
}

// TestBatchFull holds that what is in a batch is bounded.
func TestBatchFull(t *testing.T) {
	var b guest.Batch
	if err := b.WriteFile(&guest.File{Path: guest.Name("relative")}); !errors.Is(err, caisson.ErrInvalid) || b.Len() != 0 {
		t.Errorf("WriteFile() of a relative path = %v, with %d calls", err, b.Len())
	}
	if err := b.WriteFile(&guest.File{Path: guest.Name("/x"), Data: make([]byte, 3<<20)}); err != nil || !b.Full() {
		t.Errorf("WriteFile() of much = %v, and it is full: %v", err, b.Full())
	}
}

// TestFalseBatch has the agent lie about what it has done.
func TestFalseBatch(t *testing.T) {
	for name, said := range map[string]string{
		"less, without a reason": `{"result":{"done":0}}`,
		"more":                   `{"result":{"done":2}}`,
		"all, and an error":      `{"result":{"done":1,"error":{"message":"no"}}}`,
		"less than nothing":      `{"result":{"done":-1,"error":{"message":"no"}}}`,
		"nothing":                `{}`,
	} {
		t.Run(name, func(t *testing.T) {
			c := newFake(t, always(said))
			var b guest.Batch
			if err := b.SetHostname("x"); err != nil {
				t.Fatal(err)
			}
			if done, err := c.Do(context.Background(), &b); done != 0 || !errors.Is(err, caisson.ErrUnavailable) {
				t.Errorf("Do() = %d, %v, want 0, ErrUnavailable", done, err)
			}
		})
	}
}
