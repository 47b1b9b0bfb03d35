package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

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

// networksDir is the folder, in the runtime folder, of what package network
// keeps. No installation can be called so.
const networksDir = "networks.d"

// A data is what the handle of a sandbox says of networks.
type data struct {
	// Network is the sandbox's own, which goes with it; nil: none.
	Network *network.Record `json:"network,omitempty"`
	// Shared is the NetworkSpec.Dir of the one that it has joined.
	Shared string `json:"shared,omitempty"`
}

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
		Runtime: filepath.Join(o.Runtime, networksDir), Installation: o.Installation,
		ConfigDir: o.CNIConfigDir, PluginDirs: o.CNIPluginDirs, Subnet: o.DefaultSubnet,
	}
}

// netFound is what a look at the host has found out about networks.
type netFound struct {
	broken error    // why no namespace can be made for others
	closed error    // why there is no network default
	names  []string // networks that can be attached to
	ports  bool     // one of them publishes ports
	unread []error  // configurations that can't be used
}

// findNetworks looks for networks. Thorough also makes a namespace, with filters;
// otherwise it shows whether that works when it is needed.
func (o *Options) findNetworks(ctx context.Context, root, thorough bool) netFound {
	var f netFound
	if thorough || !root {
		if f.broken = network.Usable(); f.broken != nil {
			return f
		}
	}
	n := o.networks()
	f.closed = n.DefaultUsable(ctx, thorough)
	f.names, f.unread = n.Networks()
	f.ports = slices.ContainsFunc(f.names, n.Publishes)
	return f
}

// features says which networks there are.
func (f *netFound) features(out *engine.Features) {
	out.Networks.Named = len(f.names) > 0
	out.Networks.Shared = f.broken == nil
	out.Networks.Default = f.broken == nil && f.closed == nil
	out.Ports = f.ports || out.Networks.Default
}

// missing says why what is not there is not.
func (f *netFound) missing(o *Options, add func(what, why, do string)) {
	cause := func(err error) string {
		var e *caisson.Error
		if errors.As(err, &e) && e.Err != nil {
			return e.Err.Error()
		}
		return err.Error()
	}
	if f.broken != nil {
		why := cause(f.broken)
		for _, what := range []string{engine.WhatNetwork, engine.WhatNamedNets, engine.WhatSharedNets, engine.WhatPorts} {
			add(what, why, "run as root")
		}
		return
	}
	if f.closed != nil {
		add(engine.WhatNetwork, cause(f.closed), "install CNI's plugins (containernetworking-plugins) and nftables, and see engine.oci.default_subnet")
	}
	dir := o.CNIConfigDir
	if dir == "" {
		dir = network.DefaultConfigDir
	}
	if len(f.names) == 0 {
		why := "no network is configured in " + dir
		if len(f.unread) > 0 {
			why = strings.ReplaceAll(errors.Join(f.unread...).Error(), "\n", "; ")
		}
		add(engine.WhatNamedNets, why, "put a CNI configuration there (*.conflist), or set engine.oci.cni_config_dir")
	}
	if !f.ports && f.closed != nil {
		add(engine.WhatPorts, "no network in "+dir+" has a plugin that publishes ports", "add portmap, with its capability portMappings, to the plugins of one")
	}
}

// joins prepares a sandbox's network: the shared one that it names, one of its
// own if it asks for more than loopback, or none.
func (e *Engine) joins(ctx context.Context, spec *engine.Spec, set *setting, p *kept.Plan) error {
	var d data
	switch {
	case spec.SharedNetwork != "":
		rec, err := e.sharedNetwork(ctx, spec.SharedNetwork)
		if err != nil {
			return err
		}
		d.Shared, set.joined = spec.SharedNetwork, &joined{rec}
	case len(spec.Ports) > 0 || attaches(&spec.Network):
		rec, err := e.opts.networks().Plan(&network.Spec{ID: spec.ID, Network: spec.Network, Ports: spec.Ports, DNS: spec.DNS})
		if err != nil {
			return err
		}
		d.Network, set.joined = rec, &joined{rec}
		p.Prepare = func(ctx context.Context, _ int, undo *cleanup.List) error {
			undo.AddContext(rec.Remove)
			return plain(rec.Create(ctx))
		}
	default:
		return nil
	}
	var err error
	p.Record.Data, err = json.Marshal(&d)
	return err
}

// plain is an error without what was being done, which whoever called Create
// says.
func plain(err error) error {
	if e, ok := err.(*caisson.Error); ok && e.Op == caisson.OpCreate { //nolint:errorlint // what wraps it says more
		return &caisson.Error{Item: e.Item, Kind: e.Kind, Err: e.Err}
	}
	return err
}

// attaches reports whether networks of the operator's are named. What an
// allow-list permits comes through the gateway.
func attaches(n *caisson.Network) bool {
	switch n.Mode {
	case "", caisson.NetworkNone, caisson.NetworkHost, caisson.NetworkAllow:
		return len(n.Attach) > 0
	}
	return true
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
	if rec.Data == nil && rec.Isolation != "" {
		return nil // its handle says that it has none
	}
	d := new(data)
	if rec.Data != nil {
		if err := json.Unmarshal(rec.Data, d); err != nil {
			return fmt.Errorf("networks: %w", err)
		}
	}
	switch {
	case d.Network != nil:
		return d.Network.Remove(ctx)
	case d.Shared != "":
		return nil // it belongs to whoever made it
	}
	return e.opts.networks().Forget(ctx, sandbox)
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
	h, err := engine.ReadHandle(dir, Name)
	if err != nil {
		return nil, err
	}
	rec, d := new(kept.Record), new(data)
	if err := json.Unmarshal(h.Data, rec); err != nil {
		return nil, &caisson.Error{Op: caisson.OpRecover, Item: dir, Kind: caisson.ErrInvalid, Err: err}
	}
	if rec.Data != nil {
		if err := json.Unmarshal(rec.Data, d); err != nil {
			return nil, &caisson.Error{Op: caisson.OpRecover, Item: dir, Kind: caisson.ErrInvalid, Err: err}
		}
	}
	if d.Shared != "" {
		return networkAt(d.Shared)
	}
	return d.Network, nil
}

// Networks implements engine.NetworkLister.
func (e *Engine) Networks(_ context.Context, dir string) ([]engine.Network, error) {
	rec, err := e.networkOf(dir)
	if err != nil || rec == nil {
		return nil, err
	}
	if rec, err = rec.Load(); err != nil {
		return nil, err
	}
	var list []engine.Network
	for _, a := range rec.Attachments {
		list = append(list, engine.Network{
			Name: a.Name, Config: a.File, Plugin: a.Plugin, Interface: a.Interface, MAC: a.MAC,
			Addresses: a.Addresses, Args: a.Args, Ports: a.Ports,
		})
	}
	return list, nil
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
