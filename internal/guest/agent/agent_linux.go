package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/internal/guest/wire"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/once"
)

const (
	// maxMessage is more than the kernel takes as arguments and environment.
	maxMessage = 8 << 20
	// maxCalls is how many calls the host may have open.
	maxCalls = 1024
)

// A port is what leads to the host.
type port interface {
	io.ReadWriter
	SetDeadline(t time.Time) error
}

// An agent serves one host at a time.
type agent struct {
	init    bool       // it is the guest's first process
	service bool       // it was started by a machine's own system
	once    once.Files // secrets that nobody has read

	announced bool // of serveForever's goroutine

	mu       sync.Mutex
	boot     wire.Nonce
	box      *isolate.Box
	group    bool     // programs are in a control group
	root     string   // of programs, as this process sees it
	first    []string // what was mounted before that was named
	view     *os.File // the mount namespace of programs; nil: this process's
	programs map[uint64]*program
	nextID   uint64
}

func newAgent() *agent {
	a := &agent{init: os.Getpid() == 1, root: "/", programs: map[uint64]*program{}}
	a.renew()
	return a
}

// machine reports whether there is a machine that is the agent's own.
func (a *agent) machine() bool { return a.init || a.service }

// renew makes this another agent than the one that it is a copy of.
func (a *agent) renew() {
	a.mu.Lock()
	defer a.mu.Unlock()
	// It never fails.
	_, _ = rand.Read(a.boot[:])
}

// serve serves one session after another, until the port has no more.
func (a *agent) serve(p port) error {
	r := wire.NewReader(p)
	var hello *wire.Hello
	for {
		if hello == nil {
			f, err := r.Greeting(wire.KindHello)
			if err != nil {
				return err
			}
			if h, err := wire.ParseHello(f.Body); err == nil {
				hello = &h
			}
			continue
		}
		hello = a.session(p, r, *hello)
	}
}

// errAnother says that another session has begun.
var errAnother = errors.New("the host begins anew")

// A session is one host's.
type session struct {
	*agent
	mux   *wire.Mux
	hello wire.Hello
	next  *wire.Hello // of the session that follows at once
}

// session serves one session and returns the greeting of the next one, if that is
// what has ended it.
func (a *agent) session(p port, r *wire.Reader, hello wire.Hello) *wire.Hello {
	s := &session{agent: a, hello: hello}
	s.mux = wire.NewMux(p, wire.MuxOptions{
		Agent: true, MaxMessage: maxMessage, MaxCalls: maxCalls, Serve: s.call, Greeting: s.greeted,
	})
	s.welcome()
	// A write may wait for a host that is gone. Where the port knows no deadlines, the
	// next host has it go on.
	_ = s.mux.Run(r, func() { _ = p.SetDeadline(time.Unix(1, 0)) })
	_ = p.SetDeadline(time.Time{})
	a.leave(s)
	return s.next
}

// welcome answers the greeting.
func (s *session) welcome() {
	s.mu.Lock()
	boot := s.boot
	s.mu.Unlock()
	s.mux.Greet(nil, s.hello.Answer(boot).Frame())
}

// greeted handles a greeting within the session. The host repeats its own until it
// has the answer.
func (s *session) greeted(f *wire.Frame) error {
	if f.Kind != wire.KindHello {
		return errors.New("a welcome from the host")
	}
	h, err := wire.ParseHello(f.Body)
	switch {
	case err != nil:
		return err
	case h == s.hello:
		s.welcome()
		return nil
	}
	s.next = &h
	return errAnother
}

// leave ends what a session has begun and not asked to be kept.
func (a *agent) leave(s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, p := range a.programs {
		if p.session == s && !p.keep {
			p.hangUp()
			delete(a.programs, id)
		}
	}
}

// sandbox returns what programs run in.
func (a *agent) sandbox() (*isolate.Box, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.box != nil {
		return a.box, nil
	}
	return a.setup(&wire.Setup{})
}

// setup makes what programs run in. The caller holds mu.
func (a *agent) setup(s *wire.Setup) (*isolate.Box, error) {
	spec := &isolate.Spec{
		ID: "guest", None: true, User: s.User, Caps: s.Caps, Files: s.Files, Limits: s.Limits, Cgroup: s.Group,
	}
	if a.machine() {
		spec.Machine = &isolate.Machine{Privileged: s.Privileged}
		if a.root != "/" && a.view == nil {
			ns, err := (&view{root: a.root, privileged: s.Privileged, shm: s.Shm, first: a.first}).open()
			if err != nil {
				return nil, err
			}
			a.view = ns
		}
		if a.view != nil {
			spec.Machine.Mounts = procPath(int(a.view.Fd()))
		}
	}
	box, err := isolate.Start(spec)
	if err != nil {
		return nil, err
	}
	a.box, a.group = box, s.Group != nil
	return box, nil
}

// info answers wire.OpInfo.
func (a *agent) info() (any, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return &wire.Info{
		Version: fmt.Sprint(wire.Version), Kernel: unix.ByteSliceToString(u.Release[:]), PID: os.Getpid(),
		Cgroups: err == nil, Root: a.root,
	}, nil
}
