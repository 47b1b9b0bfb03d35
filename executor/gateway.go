//go:build unix

package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/gateway"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/keeper/redact"
)

// A task's proxies, allow-list and brokered secrets are served by whoever attends
// to it: at sockets inside of its sandboxes, which outlive any attendant. Another
// one takes them up where the first was, with the same placeholders and the same
// authority, which are kept with the task's secrets.

// trustFile is where, in the sandbox, the certificates are that its programs are
// to believe where a secret is brokered.
const trustFile = "/run/caisson/trust.pem"

// gated reports whether somebody on this host has to serve the task's sandboxes.
func (r *record) gated() bool {
	return r.Task.Network.Mode == caisson.NetworkAllow || len(r.Task.Network.Allow) > 0 ||
		len(r.Task.Proxies) > 0 || len(brokered(r.Task)) > 0
}

// brokered lists the names of secrets that never enter the sandbox, sorted.
func brokered(task *caisson.Task) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(task.Secrets)) {
		if task.Secrets[name].Broker != nil {
			names = append(names, name)
		}
	}
	return names
}

// A brokerage is what a task's programs have instead of brokered secrets, and
// what they are to trust. Every attendant of the task has the same.
type brokerage struct {
	Placeholders map[string]string `json:"placeholders"`
	// Authority is certificate and key in PEM. Empty: no secret goes by TLS.
	Authority []byte `json:"authority,omitempty"`
}

// brokerageKey is the brokerage's name among a task's secrets. No secret of a
// document has such a name.
const brokerageKey = "broker age"

// newBrokerage makes the brokerage of a task, or nil where it needs none.
//
// Errors: ErrInvalid for a host that can't be.
func newBrokerage(task *caisson.Task) (*brokerage, error) {
	b := &brokerage{Placeholders: make(map[string]string)}
	var hosts []string
	for _, name := range brokered(task) {
		b.Placeholders[name] = gateway.NewPlaceholder()
		if host := task.Secrets[name].Broker.Host; !strings.HasPrefix(host, "http://") {
			hosts = append(hosts, host)
		}
	}
	if len(b.Placeholders) == 0 {
		return nil, nil
	}
	if len(hosts) == 0 {
		return b, nil
	}
	authority, err := gateway.NewAuthority(hosts)
	if err != nil {
		return nil, err
	}
	b.Authority = authority.PEM()
	return b, nil
}

// withBrokerage returns the values that are kept for a task.
func withBrokerage(values map[string][]byte, b *brokerage) (map[string][]byte, error) {
	if b == nil {
		return values, nil
	}
	data, err := json.Marshal(b)
	if err != nil {
		return nil, stateError("secrets", caisson.ErrInternal, err)
	}
	values = maps.Clone(values)
	values[brokerageKey] = data
	return values, nil
}

// takeBrokerage takes the brokerage out of the values that were kept.
func takeBrokerage(values map[string][]byte) (*brokerage, error) {
	data, ok := values[brokerageKey]
	if !ok {
		return nil, nil
	}
	delete(values, brokerageKey)
	b := new(brokerage)
	return b, json.Unmarshal(data, b)
}

// checkGateway finds out whether the task can have what it wants to reach,
// whatever the engine.
//
// Errors: ErrInvalid; ErrDenied for an upstream that the operator has not
// configured; those of an upstream that can't be used.
func (x *Executor) checkGateway(r *record, sub *Submission) (err error) {
	if !r.gated() {
		return nil
	}
	if r.brokerage, err = newBrokerage(r.Task); err != nil {
		return err
	}
	b := &blueprint{record: r, proxies: x.opts.Proxies, secrets: sub.Secrets}
	_, err = b.policy()
	return err
}

// A Checker is a handler of Options.Proxies that can be told to be out of order
// before a task begins.
type Checker interface {
	http.Handler
	// Check returns why tasks can't use the handler, or nil.
	Check() error
}

// upstream returns the handler that serves a proxy of the task.
func (b *blueprint) upstream(name string) (http.Handler, error) {
	item := "proxies." + name + ".upstream"
	upstream := b.record.Task.Proxies[name].Upstream
	handler := b.proxies[upstream]
	if handler == nil {
		return nil, &caisson.Error{
			Op: caisson.OpValidate, Item: item, Kind: caisson.ErrDenied,
			Err: fmt.Errorf("%q: the operator has configured no such upstream", upstream),
		}
	}
	if c, ok := handler.(Checker); ok {
		if err := c.Check(); err != nil {
			return nil, &caisson.Error{Op: caisson.OpValidate, Item: item, Kind: caisson.KindOf(err), Err: fmt.Errorf("%q: %w", upstream, err)}
		}
	}
	return handler, nil
}

// policy returns what the task's programs may reach besides their network, or
// nil where that is nothing.
func (b *blueprint) policy() (*gateway.Policy, error) {
	if !b.record.gated() {
		return nil, nil
	}
	task := b.record.Task
	p := &gateway.Policy{
		Everything: task.Network.Mode == caisson.NetworkAllow || len(task.Network.Allow) > 0,
		PublicOnly: !b.record.Trusted,
		Proxies:    make(map[string]http.Handler, len(task.Proxies)),
	}
	var err error
	if p.Allow, err = gateway.ParseRules(task.Network.Allow); err != nil {
		return nil, invalid("network.allow", err)
	}
	for _, name := range slices.Sorted(maps.Keys(task.Proxies)) {
		if p.Proxies[name], err = b.upstream(name); err != nil {
			return nil, err
		}
	}
	if err := b.addBrokered(p); err != nil {
		return nil, err
	}
	return p, p.Check()
}

// addBrokered adds the secrets that are put into requests on their way.
func (b *blueprint) addBrokered(p *gateway.Policy) (err error) {
	names := brokered(b.record.Task)
	if len(names) == 0 {
		return nil
	}
	kept := b.record.brokerage
	if kept == nil {
		return stateError("secrets", caisson.ErrNotFound, errors.New("the placeholders are gone, as after a reboot of the host; submit the task again"))
	}
	if len(kept.Authority) > 0 {
		if p.Authority, err = gateway.ParseAuthority(kept.Authority); err != nil {
			return err
		}
	}
	for _, name := range names {
		broker := b.record.Task.Secrets[name].Broker
		p.Brokered = append(p.Brokered, gateway.Brokered{
			Name: name, Placeholder: kept.Placeholders[name], Value: string(b.secrets[name]),
			Host: broker.Host, Header: broker.Header,
		})
	}
	return nil
}

// addGateway asks for the sockets that the task's proxies, allow-list and
// brokered secrets are served at.
func (b *blueprint) addGateway(s *engine.Spec) error {
	p, err := b.policy()
	if p == nil || err != nil {
		return err
	}
	s.Gateway = p.Gateway()
	if s.Gateway == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(p.Proxies)) {
		s.Gateway.For = append(s.Gateway.For, "proxies."+name)
	}
	for _, secret := range p.Brokered {
		s.Gateway.For = append(s.Gateway.For, "secrets."+secret.Name+".broker")
	}
	if p.Authority != nil {
		b.addTrust(s)
	}
	return nil
}

// addTrust has programs find who they are to believe. A variable that the task
// sets itself stays.
func (b *blueprint) addTrust(s *engine.Spec) {
	s.Mounts = append(s.Mounts, engine.Mount{Type: engine.MountBind, Source: b.trust(), Target: trustFile, ReadOnly: true})
	for _, name := range gateway.TrustVariables() {
		_, secret := b.record.Task.Secrets[name]
		if _, set := s.Env[name]; !set && !secret {
			s.Env[name] = trustFile
		}
	}
}

// trust is where the file lies on the host.
func (b *blueprint) trust() string { return filepath.Join(b.attempt.Files(), path.Base(trustFile)) }

// writeTrust writes the certificates that programs are to believe: this host's,
// and the one of the task's own authority. Steps of an attempt have the same.
func (a *attendant) writeTrust(b *blueprint) error {
	kept := a.record.brokerage
	if kept == nil || len(kept.Authority) == 0 {
		return nil
	}
	if there, err := exists(b.trust()); there || err != nil {
		return err
	}
	authority, err := gateway.ParseAuthority(kept.Authority)
	if err != nil {
		return err
	}
	roots, err := gateway.HostRoots()
	if err != nil {
		return &caisson.Error{Op: caisson.OpCreate, Item: "certificates of this host", Kind: caisson.ErrUnavailable, Err: err}
	}
	if err := os.MkdirAll(filepath.Dir(b.trust()), 0o700); err != nil {
		return safefs.Sorted(caisson.OpCreate, b.trust(), err)
	}
	return safefs.Sorted(caisson.OpCreate, b.trust(), atomicfile.Write(b.trust(), authority.Bundle(roots), 0o644))
}

// A gate serves the gateways of an attempt's sandboxes, and collects what they
// blocked.
type gate struct {
	server *gateway.Server
	open   map[string]func() // by folder: ends the serving, and waits for that

	mu   sync.Mutex
	news []caisson.Blocked // that no event tells of yet
}

// serveRunning serves the sandboxes of steps whose programs may run already:
// all that an earlier attendant has served.
func (a *attendant) serveRunning(ctx context.Context) error {
	if !a.record.gated() {
		return nil
	}
	for _, name := range slices.Clone(a.h.order) {
		st := a.steps.find(name)
		if st == nil || !a.h.steps[name].running() {
			continue
		}
		sb, err := a.recover(ctx, st)
		if err != nil {
			return err
		}
		if sb == nil {
			continue
		}
		if err := a.serve(ctx, st, sb); err != nil {
			// It runs, and must not be taken for over.
			return undecided{stepError(st, err)}
		}
	}
	return nil
}

// serve serves a sandbox until the step is over, or ctx.
func (a *attendant) serve(ctx context.Context, st *step, sb engine.Sandbox) error {
	folder := a.folder(st)
	if !a.record.gated() || a.gate != nil && a.gate.open[folder] != nil {
		return nil
	}
	keeper, ok := sb.(engine.Gatekeeper)
	if !ok {
		return cannot(caisson.OpStart, "have its sandboxes served from outside")
	}
	if err := a.openGate(); err != nil {
		return err
	}
	var sockets []engine.OpenSocket
	limited, cancel := context.WithTimeout(ctx, a.x.limits.call)
	defer cancel()
	err := a.x.guard(caisson.OpStart, func() (err error) {
		sockets, err = keeper.Sockets(limited)
		return err
	})
	switch {
	case errors.Is(err, caisson.ErrEnded), errors.Is(err, caisson.ErrAborted):
		return nil // nobody is left to be served
	case err != nil:
		return overtime(ctx, err, caisson.OpStart, a.x.limits.call)
	}
	a.gate.serve(ctx, folder, sockets)
	return nil
}

// openGate makes what serves the attempt's sandboxes.
func (a *attendant) openGate() error {
	if a.gate != nil {
		return nil
	}
	policy, err := a.blueprint().policy()
	if err != nil {
		return err
	}
	g := &gate{open: make(map[string]func())}
	g.server, err = gateway.New(policy, &gateway.Options{
		Lookup: a.x.opts.Lookup, Dial: a.x.opts.Dial, Roots: a.x.opts.Roots, Logger: a.log,
		Blocked: func(b caisson.Blocked) {
			g.mu.Lock()
			g.news = append(g.news, b)
			g.mu.Unlock()
			a.x.hub.wake(a.task.ID)
		},
	})
	if err != nil {
		return err
	}
	a.gate = g
	return nil
}

func (g *gate) serve(ctx context.Context, folder string, sockets []engine.OpenSocket) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.server.Serve(ctx, sockets)
	}()
	g.open[folder] = func() { cancel(); <-done }
}

// unserve ends the serving of a step's sandbox.
func (a *attendant) unserve(folder string) {
	if a.gate == nil || a.gate.open[folder] == nil {
		return
	}
	a.gate.open[folder]()
	delete(a.gate.open, folder)
}

// settleGate ends all serving of an attempt and logs what else was blocked: names
// that were only looked up are known to be that at the end.
func (a *attendant) settleGate() error {
	gate := a.gate
	a.closeGate()
	a.gate = gate
	return a.noteBlocked()
}

// closeGate ends all serving.
func (a *attendant) closeGate() {
	if a.gate == nil {
		return
	}
	for folder := range maps.Clone(a.gate.open) {
		a.unserve(folder)
	}
	a.gate.server.Close()
	a.gate = nil
}

// noteBlocked logs what was blocked since the last time. A name may have been
// made of a secret.
func (a *attendant) noteBlocked() error {
	if a.gate == nil {
		return nil
	}
	a.gate.mu.Lock()
	news := a.gate.news
	a.gate.news = nil
	a.gate.mu.Unlock()
	for _, b := range news {
		if err := a.redactBlocked(&b); err != nil {
			return err
		}
		if len(a.h.blocked) >= caisson.MaxBlocked || a.h.wasBlocked(&b) != nil {
			continue
		}
		b.Count = max(b.Count, 1)
		if err := a.append(&caisson.Event{Type: caisson.EventBlocked, Blocked: &b}, false); err != nil {
			return err
		}
	}
	return nil
}

// redactBlocked takes the values of secrets out of what was blocked. Names are in
// lower case, and so is a secret that one was made of.
func (a *attendant) redactBlocked(b *caisson.Blocked) error {
	const longest = 253 // a name can't be longer
	values := redactable(a.secrets)
	for _, value := range slices.Clone(values) {
		value = bytes.TrimRight(value, "\r\n")
		for _, form := range append(redact.Forms(value), value) {
			if lower := bytes.ToLower(form); len(lower) <= longest && !bytes.Equal(lower, form) {
				values = append(values, lower)
			}
		}
	}
	return redactAll(values, &b.Host, &b.Why)
}

// wasBlocked returns what is known of the same thing, or nil.
func (h *history) wasBlocked(b *caisson.Blocked) *caisson.Blocked {
	for i := range h.blocked {
		if known := &h.blocked[i]; known.Host == b.Host && known.Port == b.Port && known.Why == b.Why {
			return known
		}
	}
	return nil
}

// blocked lists what the attempt was not let reach, with how often as far as
// this attendant knows.
func (a *attendant) blocked() []caisson.Blocked {
	list := slices.Clone(a.h.blocked)
	if a.gate == nil {
		return list
	}
	counted, _ := a.gate.server.Blocked()
	counts := history{blocked: list}
	for _, b := range counted {
		if a.redactBlocked(&b) != nil {
			continue
		}
		if known := counts.wasBlocked(&b); known != nil {
			known.Count = max(known.Count, b.Count)
		}
	}
	return list
}
