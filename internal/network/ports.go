package network

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
)

// localhost is where a port is published if nothing else is said.
const localhost = "127.0.0.1"

// The protocols of a port.
const (
	tcp = "tcp"
	udp = "udp"
)

// portTries is how many free ports are tried where any will do: each may be
// taken by somebody else in between.
const portTries = 20

// ParsePort reads a port of the inside: "80", or as images label them, "80-tcp"
// or "80/tcp".
//
// Errors: ErrInvalid.
func ParsePort(text string) (port int, protocol string, err error) {
	number, protocol, _ := strings.Cut(strings.Replace(text, "/", "-", 1), "-")
	if protocol == "" {
		protocol = tcp
	}
	port, err = strconv.Atoi(number)
	if err != nil || port < 1 || port > 65535 || protocol != tcp && protocol != udp {
		return 0, "", failure(caisson.ErrInvalid, fmt.Sprintf("port %q", text), errors.New(`want a number of 1 to 65535, or one with its protocol, such as "80-tcp"`))
	}
	return port, protocol, nil
}

// planPorts gives the ports to the first network that can publish them.
func (r *Record) planPorts(ports []caisson.Port) error {
	list, err := checkPorts(ports)
	if err != nil || len(list) == 0 {
		return err
	}
	for i := range r.Attachments {
		a := &r.Attachments[i]
		if a.can("portMappings") {
			a.Ports = list
			return nil
		}
	}
	why := "the network has no way out of the sandbox; name one that publishes ports"
	if len(r.Attachments) > 0 {
		why = fmt.Sprintf("the configuration of network %q has no plugin with the capability portMappings, such as portmap", r.Attachments[0].Name)
	}
	return failure(caisson.ErrUnsupported, "ports", errors.New(why))
}

// checkPorts returns ports with their defaults.
//
// Errors: ErrInvalid.
func checkPorts(ports []caisson.Port) ([]caisson.Port, error) {
	var list []caisson.Port
	taken := make(map[string]bool)
	for _, p := range ports {
		p, err := fill(p)
		if err != nil {
			return nil, err
		}
		key := reservation(&p)
		if p.HostPort != 0 && taken[key] {
			return nil, failure(caisson.ErrInvalid, "ports", fmt.Errorf("%s is asked for twice", portName(&p)))
		}
		taken[key] = true
		list = append(list, p)
	}
	return list, nil
}

// fill returns a port with its defaults.
//
// Errors: ErrInvalid.
func fill(p caisson.Port) (caisson.Port, error) {
	if p.HostIP == "" {
		p.HostIP = localhost
	}
	if p.Protocol == "" {
		p.Protocol = tcp
	}
	addr, err := netip.ParseAddr(p.HostIP)
	switch {
	// A zone may be any text, and the address becomes part of a file's name.
	case err != nil, addr.Zone() != "":
		return p, failure(caisson.ErrInvalid, "ports", fmt.Errorf("host_ip %q is no address", p.HostIP))
	case p.Protocol != tcp && p.Protocol != udp:
		return p, failure(caisson.ErrInvalid, "ports", fmt.Errorf("protocol %q is neither tcp nor udp", p.Protocol))
	case p.Port < 1 || p.Port > 65535 || p.HostPort < 0 || p.HostPort > 65535:
		return p, failure(caisson.ErrInvalid, "ports", fmt.Errorf("%d to %d: ports are 1 to 65535", p.HostPort, p.Port))
	}
	p.HostIP = addr.String()
	return p, nil
}

// reservation is the file by which a port of the host is reserved.
func reservation(p *caisson.Port) string {
	return fmt.Sprintf("%s-%s-%d", p.Protocol, strings.ReplaceAll(p.HostIP, ":", "_"), p.HostPort)
}

// portName is what a port is called in messages.
func portName(p *caisson.Port) string {
	return fmt.Sprintf("port %s/%s", netip.AddrPortFrom(netip.MustParseAddr(p.HostIP), uint16(p.HostPort)), p.Protocol)
}

// portsDir is where ports are reserved, for all installations that share a
// runtime folder: a link for each, which names its owner.
func (r *Record) portsDir() string {
	// Folder is RUNTIME/namespaces/INSTALLATION/ID.
	if r.Ports != "" {
		return r.Ports
	}
	return filepath.Join(r.base(), "ports")
}

// base is Options.Runtime.
func (r *Record) base() string { return filepath.Join(r.Folder, "..", "..", "..") }
