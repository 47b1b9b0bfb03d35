package network

import "net/netip"

// A Link is what a card of a virtual machine has in place of a device of the
// namespace, whose frames are its own.
type Link struct {
	Tap       string   `json:"tap"` // the device in the namespace that frames go through
	MAC       string   `json:"mac"`
	MTU       int      `json:"mtu"`
	Addresses []string `json:"addresses,omitempty"` // with the length of their prefix
	Routes    []Route  `json:"routes,omitempty"`    // of IPv4, all of them
	Gateways  []string `json:"gateways,omitempty"`  // of IPv6
}

// A Route says by whom a network is reached.
type Route struct {
	To netip.Prefix `json:"to"`
	By netip.Addr   `json:"by,omitzero"` // the zero value: it is on the link itself
}
