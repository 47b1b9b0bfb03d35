//go:build unix

package server

import (
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// A Doer is a Box that does what the keeper knows nothing of: between an engine
// and its own box there are requests of their own (keeper.Client.Do).
type Doer interface {
	// Do answers a request, at any time from the box's opening to its close, several
	// at once. Result is JSON, or nil. Files are handed over and closed here.
	//
	// Close does not wait for it, so it has to end by that: with an error.
	Do(op string, params json.RawMessage) (result json.RawMessage, files []*os.File, err error)
}

// do answers a request to the box. Each client has a connection of its own for it
// (keeper.Client.Do), so one that takes long holds up nobody.
func (c *conn) do(req *wire.Request, reply *wire.Reply) error {
	if len(req.Params) > wire.MaxParams {
		return failure("", caisson.ErrInvalid, fmt.Sprintf("a request with more than %d bytes", wire.MaxParams))
	}
	box, err := c.k.doer()
	if err != nil {
		return err
	}
	if c.k.doing.Add(1) > wire.MaxDoing {
		c.k.doing.Add(-1)
		return failure("", caisson.ErrExhausted, fmt.Sprintf("%d requests are under way already", wire.MaxDoing))
	}
	result, files, err := box.Do(req.Name, req.Params)
	c.k.doing.Add(-1)
	defer closeFiles(files)
	switch {
	case err != nil:
		return err
	case len(result) > wire.MaxResult || len(files) > isolate.MaxSockets:
		return failure("", caisson.ErrInternal, fmt.Sprintf("an answer of %d bytes and %d files", len(result), len(files)))
	}
	reply.Result = result
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
		// The client waits for them with its runtime's poller.
		unix.SetNonblock(fds[i], true)
	}
	c.send(reply, fds...)
	return nil
}

// doer returns the box if it answers requests.
func (k *keeper) doer() (d Doer, err error) {
	err = k.use(func() error {
		var ok bool
		if d, ok = k.box.(Doer); !ok {
			return failure("", caisson.ErrUnsupported, "the sandbox has no requests of its own")
		}
		return nil
	})
	return d, err
}
