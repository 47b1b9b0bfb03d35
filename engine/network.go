package engine

import (
	"context"
	"net"

	"github.com/caissonrun/caisson"
)

// A Networker is an Engine that can make a network that several sandboxes
// share, those of one attempt's steps: they reach each other on it by name,
// and its owner reaches their ports. Features.Networks.Shared says whether
// that works here; where it does not, MakeNetwork is ErrUnsupported.
type Networker interface {
	// MakeNetwork makes the network that spec describes, before any sandbox is
	// on it. The handle that it writes to spec.Dir first names all that it
	// makes. ctx bounds the call; if it fails nothing is left.
	//
	// A sandbox whose Spec.SharedNetwork is spec.Dir is put on it by Create.
	// Sweep spares the network if spec.ID is among the live ids.
	//
	// Errors: as for Create of a sandbox with the same Network, Ports and DNS.
	MakeNetwork(ctx context.Context, spec *NetworkSpec) error
	// RemoveNetwork removes the network whose NetworkSpec.Dir is dir, once no
	// sandbox is on it any more. It works from any state and again and again,
	// also for a network that a crash or a reboot has ended: where there is
	// nothing it is nil.
	//
	// Errors: anything that is left behind, by name. The caller may try again.
	RemoveNetwork(ctx context.Context, dir string) error
	// Dial connects to a TCP port of the sandbox whose Spec.Dir is dir, as one
	// on the same network would, whatever else is allowed to reach it.
	//
	// Errors: ErrAborted if the sandbox or its network is gone; ErrUnavailable
	// if nothing listens there.
	Dial(ctx context.Context, dir string, port int) (net.Conn, error)
}

// A NetworkSpec says what MakeNetwork has to make.
type NetworkSpec struct {
	// ID names the network, uniquely on this host and among sandboxes too; its
	// form is that of Spec.ID. Dir is as Spec.Dir.
	ID  string `json:"id"`
	Dir string `json:"dir"`
	// Task and Attempt are for labels and messages.
	Task    string `json:"task"`
	Attempt int    `json:"attempt"`

	// Network and DNS are those of every sandbox on it. Its mode is not host.
	Network caisson.Network `json:"network,omitzero"`
	DNS     *caisson.DNS    `json:"dns,omitempty"`
	// Ports are what one of the sandboxes will have as Spec.Ports. An engine
	// whose sandboxes share one address publishes them with the network,
	// another one with the sandbox.
	Ports []caisson.Port `json:"ports,omitempty"`
	// Names are all names by which sandboxes on it will be reached, see
	// Spec.Names.
	Names []string `json:"names,omitempty"`
}

// A NetworkLister is an Engine that tells how a sandbox is attached to its
// networks. It belongs to no field of Features: it is for people.
type NetworkLister interface {
	// Networks lists what the live sandbox whose Spec.Dir is dir is attached
	// to, in order; nothing where it has a loopback device at most. Errors:
	// ErrNotFound if there is no such sandbox.
	Networks(ctx context.Context, dir string) ([]Network, error)
}

// A Network is one attachment of a sandbox to a network. What an engine does
// not know is empty.
type Network struct {
	Name      string            `json:"name"`
	Config    string            `json:"config,omitempty"`    // path of the file that configures it
	Plugin    string            `json:"plugin,omitempty"`    // path of the program that attaches it, or the driver's name
	Interface string            `json:"interface,omitempty"` // inside
	MAC       string            `json:"mac,omitempty"`
	Addresses []string          `json:"addresses,omitempty"` // with the length of their prefix
	Args      map[string]string `json:"args,omitempty"`      // as the task gave them
	// Ports are those that are published through it, with the host's side
	// filled in.
	Ports []caisson.Port `json:"ports,omitempty"`
}
