package oci

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/cleanup"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/network"
)

var (
	_ engine.Networker     = (*Engine)(nil)
	_ engine.NetworkLister = (*Engine)(nil)
)

// joined is what networks give a sandbox; nil: it has none but loopback, or
// the host's.
type joined struct {
	record *network.Record // with addresses, once it is there
}

// apply has the sandbox made in the network namespace.
func (j *joined) apply(box *isolate.Spec) {
	if j != nil {
		box.NetNS = j.record.Path()
	}
}

// networks is where networks are found and kept.
func (o *Options) networks() *network.Options {
	return &network.Options{
		Runtime: filepath.Join(o.Runtime, kept.NetworksDir), Ports: o.Ports, Installation: o.Installation,
		ConfigDir: o.CNIConfigDir, PluginDirs: o.CNIPluginDirs, Subnet: o.DefaultSubnet, VPNs: o.VPNs,
	}
}

// netFeatures says which networks there are.
func (f *found) netFeatures(out *engine.Features) {
	f.net.Features(out)
	out.Networks.Shared = f.net.Broken == nil
}

// netMissing says why what is not there is not.
func (f *found) netMissing(o *Options, add func(what, why, do string)) {
	f.net.Missing("engine.oci", o.CNIConfigDir, add, engine.WhatSharedNets)
}

// joins prepares a sandbox's network: the shared one that it names, one of its
// own if it asks for more than loopback, or none.
func (e *Engine) joins(ctx context.Context, spec *engine.Spec, set *setting, p *kept.Plan) error {
	var d kept.NetworkData
	switch {
	case spec.SharedNetwork != "":
		rec, err := e.sharedNetwork(ctx, spec.SharedNetwork)
		if err != nil {
			return err
		}
		d.Shared, set.joined = spec.SharedNetwork, &joined{rec}
	case len(spec.Ports) > 0 || kept.Attaches(&spec.Network):
		rec, err := e.opts.networks().Plan(&network.Spec{ID: spec.ID, Network: spec.Network, Ports: spec.Ports, DNS: spec.DNS})
		if err != nil {
			return err
		}
		d.Network, set.joined = rec, &joined{rec}
		p.Prepare = func(ctx context.Context, _ int, undo *cleanup.List) error {
			undo.AddContext(rec.Remove)
			return kept.Plain(rec.Create(ctx))
		}
	default:
		return nil
	}
	var err error
	p.Record.Data, err = json.Marshal(&d)
	return err
}

// sharedNetwork returns the record of a network that is there.
//
// Errors: ErrNotFound if it is gone.
func (e *Engine) sharedNetwork(ctx context.Context, dir string) (*network.Record, error) {
	rec, err := networkAt(dir)
	if err != nil {
		return nil, err
	}
	if err := rec.Check(ctx); err != nil {
		return nil, err
	}
	return rec.Load()
}

// networkAt reads the record of a shared network.
func networkAt(dir string) (*network.Record, error) {
	h, err := engine.ReadHandle(dir, Name)
	if err != nil {
		return nil, err
	}
	rec := new(network.Record)
	if err := json.Unmarshal(h.Data, rec); err != nil || rec.Folder == "" {
		return nil, &caisson.Error{Op: caisson.OpRecover, Item: dir, Kind: caisson.ErrInvalid, Err: errors.Join(errors.New("not a network's handle"), err)}
	}
	return rec, nil
}

// remove detaches a sandbox from its networks. It can be called again.
func (e *Engine) remove(ctx context.Context, sandbox string, rec *kept.Record) error {
	return kept.RemoveNetworks(ctx, e.opts.networks(), sandbox, rec)
}

// MakeNetwork implements engine.Networker: a network namespace that sandboxes
// share, so that all have one loopback address and one set of networks.
func (e *Engine) MakeNetwork(ctx context.Context, spec *engine.NetworkSpec) (err error) {
	if err := e.boxes.Open(ctx, caisson.OpCreate); err != nil {
		return err
	}
	f, err := e.facts()
	if err != nil {
		return err
	}
	features := e.opts.features(f)
	like := &engine.Spec{Args: []string{"-"}, RootFS: &engine.RootFS{Path: "/"}, Network: spec.Network, DNS: spec.DNS, Ports: spec.Ports, SharedNetwork: spec.Dir}
	if err := features.Check(like); err != nil {
		return err
	}
	if spec.Network.Mode == caisson.NetworkHost {
		return kept.Invalid("network: host", errors.New("it is shared by everybody already"))
	}
	rec, err := e.opts.networks().Plan(&network.Spec{
		ID: spec.ID, Network: spec.Network, Ports: spec.Ports, DNS: spec.DNS, Names: spec.Names,
	})
	if err != nil {
		return err
	}
	// The handle names all that follows.
	body, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	boot, err := engine.BootID()
	if err != nil {
		return err
	}
	var undo cleanup.List
	defer undo.OnError(ctx, &err)
	undo.Add(func() error { return removeHandle(spec.Dir) })
	if err := engine.WriteHandle(spec.Dir, &engine.Handle{Engine: Name, ID: spec.ID, BootID: boot, Data: body}); err != nil {
		return err
	}
	if err := rec.Create(ctx); err != nil {
		return err
	}
	undo.Release()
	return nil
}

func removeHandle(dir string) error {
	err := os.Remove(filepath.Join(dir, engine.HandleFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// RemoveNetwork implements engine.Networker.
func (e *Engine) RemoveNetwork(ctx context.Context, dir string) error {
	if err := e.boxes.Open(ctx, caisson.OpDestroy); err != nil {
		return err
	}
	rec, err := networkAt(dir)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := rec.Remove(ctx); err != nil {
		return err
	}
	return removeHandle(dir)
}

// Dial implements engine.Networker.
func (e *Engine) Dial(ctx context.Context, dir string, port int) (net.Conn, error) {
	rec, err := e.networkOf(dir)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil, &caisson.Error{Op: caisson.OpExec, Item: dir, Kind: caisson.ErrAborted, Err: errors.New("the sandbox is gone")}
	}
	if err != nil {
		return nil, err
	}
	if rec == nil {
		return nil, kept.Unsupported("network", errors.New("the sandbox's network is its own alone"))
	}
	return network.Dial(ctx, rec.Path(), port)
}

// networkOf returns the network that the sandbox whose handle lies in dir is on,
// or nil where it is on none but its own loopback or the host's.
func (e *Engine) networkOf(dir string) (*network.Record, error) {
	d, err := kept.ReadNetworkData(dir, Name)
	if err != nil {
		return nil, err
	}
	if d.Shared != "" {
		return networkAt(d.Shared)
	}
	return d.Network, nil
}

// Networks implements engine.NetworkLister.
func (e *Engine) Networks(_ context.Context, dir string) ([]engine.Network, error) {
	rec, err := e.networkOf(dir)
	if err != nil {
		return nil, err
	}
	return kept.ListNetworks(rec)
}

// hosts is /etc/hosts.
func (set *setting) hosts(s *engine.Spec, hostname string) []byte {
	var record *network.Record
	if set.joined != nil {
		record = set.joined.record
	}
	return append(network.Hosts(hostname, record), kept.GatewayHosts(s.Gateway)...)
}

// resolvConf is /etc/resolv.conf, unless the image's own stays.
func (set *setting) resolvConf(s *engine.Spec) ([]byte, bool) {
	if s.DNS == nil && s.Network.Mode == caisson.NetworkHost {
		return set.resolv, true
	}
	if g := s.Gateway; g != nil && g.Resolver != "" {
		only := caisson.DNS{Servers: []string{g.Resolver}}
		if s.DNS != nil {
			only.Search, only.Options = s.DNS.Search, s.DNS.Options
		}
		contents, _ := network.Resolv(&only, nil, nil, false)
		return contents, true
	}
	var said *caisson.DNS
	outside := s.Network.Mode == caisson.NetworkHost
	if set.joined != nil {
		said = set.joined.record.FoundDNS()
		outside = outside || len(set.joined.record.Attachments) > 0
	}
	contents, keep := network.Resolv(s.DNS, said, set.resolv, outside)
	return contents, !keep
}
