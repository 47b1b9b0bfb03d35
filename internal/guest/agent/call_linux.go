package agent

import (
	"encoding/json"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
)

// call begins to serve a call of the host's.
func (s *session) call(c *wire.Call) {
	if c.Request.Op == wire.OpAttach {
		// What it carries has to be known before the next frame comes.
		s.attach(c)
		return
	}
	go s.handle(c)
}

// handle serves a call.
func (s *session) handle(c *wire.Call) {
	switch c.Request.Op {
	case wire.OpSpawn:
		s.spawn(c)
	case wire.OpListen:
		s.listen(c)
	case wire.OpGet, wire.OpPut, wire.OpList, wire.OpOpen:
		s.transfer(c)
	default:
		result, err := s.answer(c)
		_ = c.End(result, err)
	}
}

// params reads what a call is to be done with.
func params[T any](c *wire.Call) (*T, error) {
	p := new(T)
	if err := json.Unmarshal(c.Request.Params, p); err != nil {
		return nil, &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("%s: %w", c.Request.Op, err)}
	}
	return p, nil
}

// with calls f with what the call is to be done with.
func with[T any](c *wire.Call, f func(*T) error) (any, error) {
	p, err := params[T](c)
	if err != nil {
		return nil, err
	}
	return nil, f(p)
}

// answer serves a call that has one answer and no streams.
func (s *session) answer(c *wire.Call) (any, error) {
	switch c.Request.Op {
	case wire.OpPing:
		return nil, nil
	case wire.OpInfo:
		return s.info()
	case wire.OpSetup:
		return with(c, s.setUp)
	case wire.OpBatch:
		return s.batch(c)
	case wire.OpPrograms:
		return s.running(), nil
	case wire.OpForget:
		return with(c, s.forget)
	case wire.OpSignal:
		return with(c, s.signal)
	case wire.OpResize:
		return with(c, s.resize)
	case wire.OpFlush:
		return s.flush(c)
	case wire.OpKill, wire.OpFreeze, wire.OpContinue, wire.OpHalt, wire.OpAlive, wire.OpStats:
		return s.all(c.Request.Op)
	case wire.OpStat, wire.OpLstat, wire.OpReadLink:
		return s.look(c)
	}
	return s.system(c)
}

// batch serves wire.OpBatch. What is in it has no answers but errors.
func (s *session) batch(c *wire.Call) (any, error) {
	p, err := params[wire.Batch](c)
	if err != nil {
		return nil, err
	}
	for i, r := range p.Calls {
		one := &wire.Call{Request: r}
		if r.Op == wire.OpSetup {
			_, err = with(one, s.setUp)
		} else {
			_, err = s.system(one)
		}
		if err != nil {
			return &wire.Batched{Done: i, Error: wire.NewFailure(err)}, nil
		}
	}
	return &wire.Batched{Done: len(p.Calls)}, nil
}

// system serves a call that is about the guest itself.
func (s *session) system(c *wire.Call) (any, error) {
	switch c.Request.Op {
	case wire.OpModule:
		return with(c, func(p *wire.Path) error { return loadModule(string(p.Path), p.Params) })
	case wire.OpMount:
		return with(c, s.mount)
	case wire.OpUnmount:
		return with(c, s.unmount)
	case wire.OpRoot:
		return with(c, s.setRoot)
	case wire.OpClock:
		return with(c, s.setClock)
	case wire.OpHostname:
		return with(c, func(p *wire.Path) error { return unix.Sethostname(p.Path) })
	case wire.OpNetwork:
		return with(c, configure)
	case wire.OpSeed:
		return with(c, s.reseed)
	case wire.OpWrite:
		return with(c, s.writeFile)
	case wire.OpLookup:
		return s.lookup(c)
	case wire.OpHosts:
		return with(c, s.setHosts)
	case wire.OpIdentity:
		return with(c, s.identify)
	case wire.OpSync:
		unix.Sync()
		return nil, nil
	case wire.OpPowerOff:
		return with(c, s.powerOff)
	}
	return nil, &caisson.Error{
		Kind: caisson.ErrUnsupported, Err: fmt.Errorf("this agent knows no %q", c.Request.Op),
	}
}

// setUp serves wire.OpSetup.
func (s *session) setUp(p *wire.Setup) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.box != nil {
		return errSetUp
	}
	_, err := s.setup(p)
	return err
}

// all serves calls that are about everything that runs.
func (s *session) all(op string) (any, error) {
	box, err := s.sandbox()
	if err != nil {
		return nil, err
	}
	switch op {
	case wire.OpKill:
		return nil, box.Kill()
	case wire.OpFreeze:
		return nil, box.Freeze(true)
	case wire.OpHalt:
		return nil, box.Halt()
	case wire.OpContinue:
		return nil, box.Freeze(false)
	case wire.OpAlive:
		return box.Alive(), nil
	}
	return s.stats(box)
}
