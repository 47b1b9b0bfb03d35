package kept

import (
	"errors"
	"runtime"
	"sync"

	"github.com/caissonrun/caisson/keeper"
)

// links are the connections to keepers that an engine has open. One is closed
// with its sandbox, with the engine, or when nobody has the sandbox any more.
type links struct {
	mu   sync.Mutex
	open map[*keeper.Client]bool
	done bool
}

// add begins to look after a sandbox's connection.
func (l *links) add(s *sandbox) {
	if s.keeper() == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		s.keeper().Close()
		return
	}
	if l.open == nil {
		l.open = map[*keeper.Client]bool{}
	}
	l.open[s.keeper()] = true
	runtime.AddCleanup(s, func(c *keeper.Client) { l.drop(c) }, s.keeper())
}

// drop closes a connection. It can be called again.
func (l *links) drop(c *keeper.Client) {
	l.mu.Lock()
	delete(l.open, c)
	l.mu.Unlock()
	c.Close()
}

// close closes all connections, and those that are still to come.
func (l *links) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
	var all []error
	for c := range l.open {
		all = append(all, c.Close())
	}
	l.open = nil
	return errors.Join(all...)
}
