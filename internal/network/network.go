// Package network makes networks for sandboxes: a network namespace of its own
// for a sandbox or for several that share it, attached by name to the networks
// that the operator has configured for CNI plugins, with ports published on the
// host, and the contents of resolv.conf and hosts that go with it.
//
// A namespace belongs to the host's user namespace, not to that of a sandbox in
// it: nobody inside has rights over it, so nobody inside can add a device, set
// a route or change a filter, whatever user it is there.
//
// Everything is named by a Record, which the caller writes down durably before
// Create makes the first thing that it names. Remove undoes Create from any
// state, also after a reboot, as often as it is called.
//
// It needs Linux and root; elsewhere Usable says why not.
package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
)

// Patience is how long a plugin may take to attach or detach a sandbox, where
// Options says nothing else.
const Patience = 30 * time.Second

// Defaults of Options.
const (
	DefaultConfigDir = "/etc/cni/net.d"
	DefaultSubnet    = "10.213.0.0/16"
)

// DefaultPluginDirs returns where CNI plugins are looked for: where they are
// installed by hand, and where distributions put them.
func DefaultPluginDirs() []string {
	return []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}
}

// Options says where things are. Runtime and Installation are required.
type Options struct {
	// Runtime is a folder of this package's own below the runtime folder, mode
	// 0700; what is in it is gone after a reboot.
	Runtime string
	// Ports is the folder of reserved ports, for all that publish ports of this host;
	// as Runtime, it is gone after a reboot. Empty: one in Runtime.
	Ports string
	// Installation separates what Sweep may remove.
	Installation string
	// ConfigDir has the operator's networks (*.conflist, *.conf, *.json). Empty:
	// DefaultConfigDir.
	ConfigDir string
	// PluginDirs are searched for plugins in order. Empty: DefaultPluginDirs.
	PluginDirs []string
	// Subnet is the private IPv4 network of which sandboxes on the network
	// "default" get addresses. Empty: DefaultSubnet.
	Subnet string
	// VPNs are networks that lead through a VPN, by name: configurations of OpenVPN's
	// client, absolute paths.
	VPNs map[string]string
	// Patience bounds each call of a plugin. Zero: Patience.
	Patience time.Duration
}

// A Spec says what a namespace is to have.
type Spec struct {
	// ID names it, uniquely on this host: the sandbox's, or that of a shared
	// network.
	ID      string
	Network caisson.Network
	Ports   []caisson.Port
	DNS     *caisson.DNS
	// Names are those of sandboxes that share it. They resolve to its loopback
	// address.
	Names []string
	// User says that whoever has the sandbox makes the network default in user space
	// (package usernet): there is no namespace, and nobody needs rights. Ports are
	// reserved all the same.
	User bool
}

// A Record names everything that belongs to a namespace. Plan makes it; it goes
// into a durable handle before Create.
type Record struct {
	ID string `json:"id"`
	// Folder holds the namespace itself and what is known of it.
	Folder      string       `json:"folder"`
	PluginDirs  []string     `json:"plugin_dirs,omitempty"`
	Attachments []Attachment `json:"attachments,omitempty"`
	DNS         *caisson.DNS `json:"dns,omitempty"`
	Names       []string     `json:"names,omitempty"`
	// Owner is what ports are reserved for.
	Owner string `json:"owner"`
	// Ports is Options.Ports.
	Ports    string           `json:"ports,omitempty"`
	User     bool             `json:"user,omitempty"` // Spec.User
	Patience caisson.Duration `json:"patience,omitempty"`
}

// An Attachment is a network that a namespace is attached to.
type Attachment struct {
	Name      string            `json:"name"`
	Interface string            `json:"interface"` // inside
	File      string            `json:"file"`      // its configuration
	Plugin    string            `json:"plugin"`    // path of the first one, which attaches
	Config    json.RawMessage   `json:"config"`    // as it was read: detaching needs the same
	Args      map[string]string `json:"args,omitempty"`
	Aliases   []string          `json:"aliases,omitempty"`
	Ports     []caisson.Port    `json:"ports,omitempty"` // with all host ports once it is there
	// Default says that it is the network "default", which has filters.
	Default bool `json:"default,omitempty"`
	// VPN says that it leads through a VPN, of which File is the configuration.
	VPN bool `json:"vpn,omitempty"`

	// Tried says that plugins may have attached something.
	Tried bool `json:"tried,omitempty"`
	// What the plugins answered.
	Addresses []string     `json:"addresses,omitempty"`
	MAC       string       `json:"mac,omitempty"`
	DNS       *caisson.DNS `json:"dns,omitempty"`
}

// Path returns where the namespace is bound.
func (r *Record) Path() string { return filepath.Join(r.Folder, "ns") }

// folder is where the record of an id lies.
func (o *Options) folder(id string) string {
	return filepath.Join(o.Runtime, "namespaces", o.Installation, id)
}

func (o *Options) configDir() string {
	if o.ConfigDir == "" {
		return DefaultConfigDir
	}
	return o.ConfigDir
}

func (o *Options) pluginDirs() []string {
	if len(o.PluginDirs) == 0 {
		return DefaultPluginDirs()
	}
	return o.PluginDirs
}

// Plan finds out what a namespace will need. It makes nothing.
//
// Errors: ErrNotFound if there is no network of a name; ErrInvalid;
// ErrUnsupported if a network can't do what is asked for, or a plugin of it is
// not installed.
func (o *Options) Plan(spec *Spec) (*Record, error) {
	r := &Record{
		ID: spec.ID, Folder: o.folder(spec.ID), PluginDirs: o.pluginDirs(),
		DNS: spec.DNS, Names: spec.Names,
		Owner: o.Installation + "/" + spec.ID, Ports: o.Ports, User: spec.User, Patience: caisson.Duration(o.Patience),
	}
	if r.Patience <= 0 {
		r.Patience = caisson.Duration(Patience)
	}
	if err := CheckDNS(spec.DNS); err != nil {
		return nil, err
	}
	for _, name := range spec.Names {
		if !nameOK(name) {
			return nil, failure(caisson.ErrInvalid, fmt.Sprintf("name %q", name), errors.New("no host can be called so"))
		}
	}
	if spec.User {
		return r, r.planUser(spec)
	}
	if spec.Network.Mode == caisson.NetworkDefault {
		at, err := o.planDefault()
		if err != nil {
			return nil, err
		}
		r.Attachments = append(r.Attachments, *at)
		return r, r.planPorts(spec.Ports)
	}
	attach, err := attachments(&spec.Network)
	if err != nil {
		return nil, err
	}
	vpn, err := o.planVPN(attach)
	if err != nil {
		return nil, err
	}
	if vpn != nil {
		r.Attachments = append(r.Attachments, *vpn)
		return r, r.planPorts(spec.Ports)
	}
	for i, a := range attach {
		at, err := o.plan(&a, i)
		if err != nil {
			return nil, err
		}
		r.Attachments = append(r.Attachments, *at)
	}
	return r, r.planPorts(spec.Ports)
}

// UserAddress is the address of a sandbox on a network in user space.
const UserAddress = "10.0.2.15/24"

// planUser is the attachment to a network in user space.
func (r *Record) planUser(spec *Spec) error {
	if spec.Network.Mode != caisson.NetworkDefault {
		if len(spec.Ports) > 0 {
			return failure(caisson.ErrUnsupported, "ports", errors.New("the network has no way out of the sandbox; use network default"))
		}
		return failure(caisson.ErrUnsupported, "network", errors.New("without root there is none of a name; use network default"))
	}
	ports, err := checkPorts(spec.Ports)
	r.Attachments = []Attachment{{
		Name: caisson.NetworkDefault, Interface: "eth0", Default: true, Addresses: []string{UserAddress}, Ports: ports,
	}}
	return err
}

// attachments returns the named networks that are asked for.
func attachments(n *caisson.Network) ([]caisson.NetworkAttach, error) {
	var list []caisson.NetworkAttach
	switch n.Mode {
	case "", caisson.NetworkNone, caisson.NetworkAllow:
		// What an allow-list permits comes through the gateway of each sandbox.
		list = n.Attach
	case caisson.NetworkHost:
		return nil, failure(caisson.ErrUnsupported, "network: "+n.Mode, errors.New("it is no network of a name"))
	default:
		list = []caisson.NetworkAttach{{Name: n.Mode}}
	}
	var seen []string
	for _, a := range list {
		item := fmt.Sprintf("network %q", a.Name)
		switch {
		case slices.Contains([]string{caisson.NetworkNone, caisson.NetworkDefault, caisson.NetworkHost, caisson.NetworkAllow}, a.Name):
			return nil, failure(caisson.ErrInvalid, item, errors.New("it can't be one of several; write it alone"))
		case slices.Contains(seen, a.Name):
			return nil, failure(caisson.ErrInvalid, item, errors.New("named twice"))
		}
		seen = append(seen, a.Name)
		if err := checkArgs(item, a.Args); err != nil {
			return nil, err
		}
		for _, alias := range a.Aliases {
			if !nameOK(alias) {
				return nil, failure(caisson.ErrInvalid, item+": aliases", fmt.Errorf("%q: no host can be called so", alias))
			}
		}
	}
	return list, nil
}

// checkArgs keeps arguments to what CNI_ARGS can carry.
func checkArgs(item string, args map[string]string) error {
	for name, value := range args {
		if name == "" || strings.ContainsAny(name, ";=\x00\n") || strings.ContainsAny(value, ";\x00\n") {
			return failure(caisson.ErrInvalid, item+": args", fmt.Errorf("%q: a name and a value without \";\" are wanted", name+"="+value))
		}
	}
	return nil
}

// ParseAttach reads a network in rkt's form, "NAME" or "NAME:ARG=VALUE;...".
func ParseAttach(text string) (caisson.NetworkAttach, error) {
	name, rest, more := strings.Cut(text, ":")
	a := caisson.NetworkAttach{Name: name}
	if name == "" || more && rest == "" {
		return a, failure(caisson.ErrInvalid, fmt.Sprintf("network %q", text), errors.New("want NAME or NAME:ARG=VALUE;ARG=VALUE"))
	}
	if !more {
		return a, nil
	}
	a.Args = make(map[string]string)
	for pair := range strings.SplitSeq(rest, ";") {
		key, value, ok := strings.Cut(pair, "=")
		if _, twice := a.Args[key]; !ok || key == "" || twice {
			return a, failure(caisson.ErrInvalid, fmt.Sprintf("network %q", text), fmt.Errorf("%q: want ARG=VALUE, each once", pair))
		}
		a.Args[key] = value
	}
	return a, nil
}

// Alone reports whether a network has rules for what programs of the namespace send,
// of which those for frames would know nothing.
func (a *Attachment) Alone() bool { return a.Default || a.VPN }

// Addresses returns the addresses that others on its networks reach the
// namespace by, in order, without the lengths of prefixes.
func (r *Record) Addresses() []netip.Addr {
	var list []netip.Addr
	for _, a := range r.Attachments {
		list = append(list, a.addresses()...)
	}
	return list
}

func (a *Attachment) addresses() []netip.Addr {
	var list []netip.Addr
	for _, text := range a.Addresses {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			list = append(list, prefix.Addr())
		}
	}
	return list
}

// failure is an error whose kind is decided here.
func failure(kind caisson.Kind, item string, err error) error {
	return &caisson.Error{Op: caisson.OpCreate, Item: item, Kind: kind, Err: err}
}

// nearby are the IPv4 networks that are not the outside. There is no IPv6.
var nearby = []string{
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
}

// Near reports whether an IPv4 address is none of the outside: private, link-local,
// of the host itself or of several.
func Near(addr netip.Addr) bool {
	return slices.ContainsFunc(nearby, func(n string) bool { return netip.MustParsePrefix(n).Contains(addr) })
}
