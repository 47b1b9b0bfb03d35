package network

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/caissonrun/caisson"
)

// vpnDevice is the device of a VPN in a namespace.
const vpnDevice = "tun0"

// planVPN is the attachment to a network that leads through a VPN, if there is one of
// that name.
func (o *Options) planVPN(attach []caisson.NetworkAttach) (*Attachment, error) {
	at := slices.IndexFunc(attach, func(a caisson.NetworkAttach) bool { return o.VPNs[a.Name] != "" })
	if at < 0 {
		return nil, nil
	}
	a := attach[at]
	item := fmt.Sprintf("network %q", a.Name)
	switch {
	case len(attach) > 1:
		return nil, failure(caisson.ErrInvalid, item, errors.New("it can't be one of several: all that leaves the sandbox goes through its VPN"))
	case len(a.Args) > 0, len(a.Aliases) > 0:
		return nil, failure(caisson.ErrUnsupported, item, errors.New("a VPN takes neither args nor aliases"))
	}
	if err := VPNUsable(); err != nil {
		return nil, err
	}
	if err := checkVPNFile(a.Name, o.VPNs[a.Name]); err != nil {
		return nil, err
	}
	return &Attachment{Name: a.Name, Interface: vpnDevice, File: o.VPNs[a.Name], VPN: true}, nil
}

// vpns are the names of networks that lead through a VPN, and why there are none.
func (o *Options) vpns() (names []string, broken []error) {
	if len(o.VPNs) == 0 {
		return nil, nil
	}
	if err := VPNUsable(); err != nil {
		return nil, []error{err}
	}
	return slices.Sorted(maps.Keys(o.VPNs)), nil
}
