//go:build unix

package executor

import (
	"context"
	"sync"
	"time"
)

// pollEvery is how often a process looks at what others have written.
const pollEvery = 100 * time.Millisecond

// maxNews bounds how many channels a hub holds: of tasks that nothing happens to
// any more, nobody takes them away.
const maxNews = 4096

// A hub tells goroutines of this process at once what they would otherwise see
// at their next look. Its zero value is ready.
type hub struct {
	mu   sync.Mutex
	news map[string]chan struct{} // by task; "" for any
}

// wait returns a channel that is closed when something happens to the task.
func (h *hub) wait(task string) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.news == nil || len(h.news) > maxNews {
		for _, ch := range h.news {
			close(ch) // a look too many harms nobody
		}
		h.news = make(map[string]chan struct{})
	}
	if h.news[task] == nil {
		h.news[task] = make(chan struct{})
	}
	return h.news[task]
}

// wake says that something has happened to the task.
func (h *hub) wake(task string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range []string{task, ""} {
		if ch := h.news[name]; ch != nil {
			close(ch)
			delete(h.news, name)
		}
	}
}

// pauseFor waits for news, which may be nil, or for the time to look again. The
// channel must be from before what the caller has just looked at.
func pauseFor(ctx context.Context, news <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-news:
	case <-timer.C:
	}
	return nil
}
