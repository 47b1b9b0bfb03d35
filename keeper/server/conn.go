//go:build unix

package server

import (
	"errors"
	"os"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// A conn is one client's connection. Requests are answered one after the
// other, but wait, which is answered when the time comes.
type conn struct {
	k    *keeper
	wire *wire.Conn

	sending sync.Mutex

	// These belong to the connection's goroutine.
	session *session

	// These are guarded by the keeper's mutex.
	owner  bool
	waitID uint32 // of the request for the exit; 0: none
}

// accept serves clients until the listener is closed.
func (k *keeper) accept() {
	for {
		wc, err := k.listener.Accept()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			// Descriptors or memory have run out, for now.
			time.Sleep(50 * time.Millisecond)
			continue
		}
		c := &conn{k: k, wire: wc}
		if !k.admit(c) {
			wc.Close()
			continue
		}
		go c.serve()
	}
}

func (k *keeper) admit(c *conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.conns) >= wire.MaxConns {
		return false
	}
	k.conns[c] = struct{}{}
	return true
}

// serve answers requests until the client goes away, or says what is none.
func (c *conn) serve() {
	defer c.leave()
	if !c.greet() {
		return
	}
	for {
		req := new(wire.Request)
		if err := c.wire.Receive(req, wire.MaxRequest, wire.Patience); err != nil {
			return
		}
		c.handle(req)
	}
}

// greet reads the first request, which must be a greeting.
func (c *conn) greet() bool {
	c.wire.SetReadDeadline(time.Now().Add(wire.Patience))
	req := new(wire.Request)
	if err := c.wire.Receive(req, wire.MaxHello, 0); err != nil || req.Op != wire.OpHello {
		return false
	}
	c.wire.SetReadDeadline(time.Time{})
	c.send(&wire.Reply{ID: req.ID, Version: wire.Version})
	return true
}

// leave is the end of a connection.
func (c *conn) leave() {
	c.wire.Close()
	c.k.forget(c)
	if c.session != nil {
		c.session.hangUp()
	}
}

func (k *keeper) forget(c *conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
	if c.owner {
		k.owners--
		k.follow()
	}
}

// send sends an answer without waiting. A client that does not read loses its
// connection.
func (c *conn) send(reply *wire.Reply, fds ...int) {
	c.sending.Lock()
	defer c.sending.Unlock()
	if err := c.wire.TrySend(reply, fds...); err != nil {
		c.wire.Close()
	}
}

func (c *conn) handle(req *wire.Request) {
	k, reply := c.k, &wire.Reply{ID: req.ID}
	var err error
	switch req.Op {
	case wire.OpStatus:
		reply.Status = k.status()
	case wire.OpOwn:
		err = c.own()
	case wire.OpStart:
		err = k.start()
	case wire.OpWait:
		c.wait(req.ID)
		return
	case wire.OpSignal:
		err = c.signal(req.Signal)
	case wire.OpStop:
		err = c.stop(req)
	case wire.OpPause:
		err = k.pause(true)
	case wire.OpResume:
		err = k.pause(false)
	case wire.OpStats:
		usage, statsErr := k.stats()
		reply.Stats, err = wire.NewUsage(usage), statsErr
	case wire.OpRoot:
		err = c.sendRoot(reply)
		if err == nil {
			return
		}
	case wire.OpSockets:
		err = c.sendSockets(reply)
		if err == nil {
			return
		}
	case wire.OpDo:
		err = c.do(req, reply)
		if err == nil {
			return
		}
	case wire.OpExec:
		c.exec(req)
		return
	case wire.OpAssign:
		err = c.assign(req.Assign)
	case wire.OpDestroy:
		err = k.destroy(func() { c.send(reply) })
		if err == nil {
			return
		}
	default:
		err = failure("", caisson.ErrUnsupported, "this keeper does not know such a request")
	}
	reply.Error = wire.NewFailure(err)
	c.send(reply)
}

// own makes the client one that sees to what follows the exit.
func (c *conn) own() error {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	if c.k.doomed {
		return errDestroyed("")
	}
	if !c.owner {
		c.owner = true
		c.k.owners++
	}
	return nil
}

// wait answers when the exit is durable. A later wait takes an earlier one's
// place.
func (c *conn) wait(id uint32) {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	c.waitID = id
	if c.k.exit != nil {
		c.tellExit(c.k.exit)
	}
}

// tellExit answers wait. The caller holds the keeper's mutex.
func (c *conn) tellExit(exit *caisson.Exit) {
	if c.waitID != 0 {
		c.send(&wire.Reply{ID: c.waitID, Exit: exit})
		c.waitID = 0
	}
}

func (c *conn) signal(number int) error {
	if c.session != nil {
		return c.session.signal(number)
	}
	return c.k.signal(number)
}

// stop checks what the client asks for: the reason ends in the exit.
func (c *conn) stop(req *wire.Request) error {
	switch req.Reason {
	case caisson.ReasonTimeout, caisson.ReasonStopped, caisson.ReasonKilled, caisson.ReasonCancelled,
		caisson.ReasonPolicy, caisson.ReasonAborted:
	default:
		return failure(caisson.OpSignal, caisson.ErrInvalid, "a stop has no such reason")
	}
	if req.Signal < 0 || req.Signal > maxSignal {
		return failure(caisson.OpSignal, caisson.ErrInvalid, "there is no such signal")
	}
	return c.k.stopProgram(req.Reason, req.Signal, req.Grace.Std())
}

func (c *conn) sendRoot(reply *wire.Reply) error {
	root, err := c.k.root()
	if err != nil {
		return err
	}
	defer root.Close()
	c.send(reply, int(root.Fd()))
	return nil
}
