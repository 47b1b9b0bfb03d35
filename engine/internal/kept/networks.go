package kept

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/network"
)

// NetworksDir is the folder, in an engine's runtime folder, of what package
// network keeps. No installation can be called so.
const NetworksDir = "networks.d"

// NetworkData is what the handle of a sandbox says of networks: Record.Data.
type NetworkData struct {
	// Network is the sandbox's own, which goes with it; nil: none.
	Network *network.Record `json:"network,omitempty"`
	// Shared is the NetworkSpec.Dir of the one that it has joined.
	Shared string `json:"shared,omitempty"`
}

// Nets is what a look at the host has found out about networks.
type Nets struct {
	Broken error    // why no namespace can be made for others
	Closed error    // why there is no network default
	Names  []string // networks that can be attached to
	Ports  bool     // one of them publishes ports
	Unread []error  // configurations that can't be used
}

// FindNets looks for networks. Thorough also makes a namespace, with filters;
// otherwise it shows whether that works when it is needed.
func FindNets(ctx context.Context, o *network.Options, root, thorough bool) Nets {
	var n Nets
	if thorough || !root {
		if n.Broken = network.Usable(); n.Broken != nil {
			return n
		}
	}
	n.Closed = o.DefaultUsable(ctx, thorough)
	n.Names, n.Unread = o.Networks()
	n.Ports = slices.ContainsFunc(n.Names, o.Publishes)
	return n
}

// Features says which networks there are.
func (n *Nets) Features(out *engine.Features) {
	out.Networks.Named = len(n.Names) > 0
	out.Networks.Default = n.Broken == nil && n.Closed == nil
	out.Ports = n.Ports || out.Networks.Default
}

// Missing says why what is not there is not. Section is the engine's part of the
// configuration, such as engine.oci, and dir where networks are looked for. More is
// what else there is not without namespaces.
func (n *Nets) Missing(section, dir string, add func(what, why, do string), more ...string) {
	if n.Broken != nil {
		why := cause(n.Broken)
		for _, what := range append([]string{engine.WhatNetwork, engine.WhatNamedNets, engine.WhatPorts}, more...) {
			add(what, why, "run as root")
		}
		return
	}
	if n.Closed != nil {
		add(engine.WhatNetwork, cause(n.Closed), "install CNI's plugins (containernetworking-plugins) and nftables, and see "+section+".default_subnet")
	}
	if dir == "" {
		dir = network.DefaultConfigDir
	}
	if len(n.Names) == 0 {
		why := "no network is configured in " + dir
		if len(n.Unread) > 0 {
			why = strings.ReplaceAll(errors.Join(n.Unread...).Error(), "\n", "; ")
		}
		add(engine.WhatNamedNets, why, "put a CNI configuration there (*.conflist), or set "+section+".cni_config_dir")
	}
	if !n.Ports && n.Closed != nil {
		add(engine.WhatPorts, "no network in "+dir+" has a plugin that publishes ports", "add portmap, with its capability portMappings, to the plugins of one")
	}
}

// cause is an error without what was done.
func cause(err error) string {
	var e *caisson.Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}

// Attaches reports whether a sandbox asks for more than loopback or the host's
// network: for networks of the operator's, or default. What an allow-list permits
// comes through the gateway.
func Attaches(n *caisson.Network) bool {
	switch n.Mode {
	case "", caisson.NetworkNone, caisson.NetworkHost, caisson.NetworkAllow:
		return len(n.Attach) > 0
	}
	return true
}

// Plain is an error of package network's without what was being done, which whoever
// called Create says.
func Plain(err error) error {
	if e, ok := err.(*caisson.Error); ok && e.Op == caisson.OpCreate { //nolint:errorlint // what wraps it says more
		return &caisson.Error{Item: e.Item, Kind: e.Kind, Err: e.Err}
	}
	return err
}

// RemoveNetworks detaches a sandbox from its networks, as Options.Remove. It can be
// called again.
func RemoveNetworks(ctx context.Context, o *network.Options, sandbox string, rec *Record) error {
	if rec.Data == nil && rec.Isolation != "" {
		return nil // its handle says that it has none
	}
	d := new(NetworkData)
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
	return o.Forget(ctx, sandbox)
}

// ReadNetworkData returns what the handle in dir, of an engine's sandbox, says of
// networks.
//
// Errors: as engine.ReadHandle; ErrInvalid.
func ReadNetworkData(dir, engineName string) (*NetworkData, error) {
	h, err := engine.ReadHandle(dir, engineName)
	if err != nil {
		return nil, err
	}
	rec, d := new(Record), new(NetworkData)
	err = json.Unmarshal(h.Data, rec)
	if err == nil && rec.Data != nil {
		err = json.Unmarshal(rec.Data, d)
	}
	if err != nil {
		return nil, &caisson.Error{Op: caisson.OpRecover, Item: dir, Kind: caisson.ErrInvalid, Err: err}
	}
	return d, nil
}

// ListNetworks answers engine.NetworkLister by a sandbox's record, which may be nil.
func ListNetworks(rec *network.Record) ([]engine.Network, error) {
	if rec == nil {
		return nil, nil
	}
	rec, err := rec.Load()
	if err != nil {
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
