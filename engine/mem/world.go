package mem

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/caissonrun/caisson"
)

// A World is what the sandboxes of mem engines live in: it stands for the
// host. Engines that share one find each other's sandboxes, as the engine of
// a restarted program finds those of the one before.
type World struct {
	mu   sync.Mutex
	live map[string]*box // by Spec.ID
	lans map[string]*lan // shared networks, by NetworkSpec.ID
}

// NewWorld returns an empty world.
func NewWorld() *World { return &World{live: make(map[string]*box), lans: make(map[string]*lan)} }

// End has the program of the sandbox id end in this way, whatever it does; see
// Fault.Exit. It reports whether there is such a sandbox.
func (w *World) End(id string, exit caisson.Exit) bool {
	w.mu.Lock()
	b := w.live[id]
	w.mu.Unlock()
	if b == nil {
		return false
	}
	b.end(exit)
	return true
}

// Live returns the ids of all sandboxes and shared networks, sorted.
func (w *World) Live() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := make([]string, 0, len(w.live))
	for id := range w.live {
		ids = append(ids, id)
	}
	for id := range w.lans {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// add makes b live, if its id is free and there is room.
func (w *World) add(b *box, most int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.live[b.spec.ID] != nil || w.lans[b.spec.ID] != nil {
		return failure(caisson.OpCreate, b, caisson.ErrExists, "a sandbox of this id lives")
	}
	count := 0
	for _, other := range w.live {
		if other.installation == b.installation {
			count++
		}
	}
	if most > 0 && count >= most {
		return failure(caisson.OpCreate, b, caisson.ErrExhausted, fmt.Sprintf("%d sandboxes live, no more can", count))
	}
	w.live[b.spec.ID] = b
	return nil
}

// remove ends b's life in the world.
func (w *World) remove(b *box) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.live[b.spec.ID] == b {
		delete(w.live, b.spec.ID)
	}
}

// find returns the live sandbox whose folder is dir.
func (w *World) find(id, dir string) *box {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b := w.live[id]; b != nil && b.spec.Dir == dir {
		return b
	}
	return nil
}

// of returns the live sandboxes of an installation, by id.
func (w *World) of(installation string) []*box {
	w.mu.Lock()
	defer w.mu.Unlock()
	var boxes []*box
	for _, b := range w.live {
		if b.installation == installation {
			boxes = append(boxes, b)
		}
	}
	slices.SortFunc(boxes, func(a, b *box) int { return strings.Compare(a.spec.ID, b.spec.ID) })
	return boxes
}
