package gateway

import (
	"slices"
	"sync"

	"github.com/caissonrun/caisson"
)

// blocked remembers what programs might not reach: the first hundred different
// things with their counts, and how often it was anything else.
type blocked struct {
	tell func(caisson.Blocked)

	mu    sync.Mutex
	list  []caisson.Blocked
	index map[caisson.Blocked]int // by all but the count
	rest  int
}

func newBlocked(tell func(caisson.Blocked)) *blocked {
	if tell == nil {
		tell = func(caisson.Blocked) {}
	}
	return &blocked{tell: tell, index: map[caisson.Blocked]int{}}
}

// add counts one try. What is told first is told under the lock, so that it is
// told in order.
func (b *blocked) add(host string, port uint16, why string) {
	key := caisson.Blocked{Host: clip(host), Port: int(port), Why: clip(why)}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i, ok := b.index[key]; ok {
		b.list[i].Count++
		return
	}
	if len(b.list) >= caisson.MaxBlocked {
		b.rest++
		return
	}
	b.index[key] = len(b.list)
	first := key
	first.Count = 1
	b.list = append(b.list, first)
	b.tell(first)
}

// more counts tries of which nothing is remembered.
func (b *blocked) more(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest += n
}

func (b *blocked) all() ([]caisson.Blocked, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.list), b.rest
}
