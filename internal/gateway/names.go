package gateway

import (
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// Bounds of what a task can make the gateway remember: names below an allowed
// domain, and names that are not allowed.
const (
	maxBelow  = 4096
	maxDenied = 1024
)

// names gives each name that is looked up inside an address of nameAddrs, so
// that a connection tells by its address which name it is for. The same name has
// the same address in another process too, but for rare collisions.
//
// Names that there is no room for share one address. What a connection to that
// address, or to one that this process has not given, is for is told by TLS and
// HTTP themselves.
type names struct {
	mu     sync.Mutex
	byName map[string]netip.Addr
	byAddr map[netip.Addr]string
	below  int
	denied map[string]bool // whether a connection to it was tried, too
	others int             // lookups of names not allowed for which there was no room
}

// sharedAddr is that of names that there is no room for.
var sharedAddr = nth(nameAddrs, 0xfffe)

// newNames returns a table in which the names of exact rules have their place
// before any other.
func newNames(exact []string) *names {
	n := &names{byName: map[string]netip.Addr{}, byAddr: map[netip.Addr]string{}, denied: map[string]bool{}}
	exact = slices.Clone(exact)
	slices.Sort(exact)
	for _, name := range exact {
		n.give(name)
	}
	return n
}

// address returns the address of a name, and remembers it.
func (n *names) address(name string, allowed bool) netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	if addr, ok := n.byName[name]; ok {
		return addr
	}
	switch {
	case allowed && n.below < maxBelow:
		n.below++
	case !allowed && len(n.denied) < maxDenied:
		n.denied[name] = false
	case !allowed:
		n.others++
		return sharedAddr
	default:
		return sharedAddr
	}
	return n.give(name)
}

// give finds a free address, beginning at the one that the name hashes to.
func (n *names) give(name string) netip.Addr {
	if addr, ok := n.byName[name]; ok {
		return addr
	}
	hash := fnv.New32a()
	hash.Write([]byte(name))
	for i := int(hash.Sum32()); ; i++ {
		addr := nth(nameAddrs, i&0xffff)
		_, taken := n.byAddr[addr]
		if !taken && addr != sharedAddr && addr != nameAddrs.Addr() {
			n.byName[name], n.byAddr[addr] = addr, name
			return addr
		}
	}
}

// name returns what an address of nameAddrs stands for, if that is known.
func (n *names) name(addr netip.Addr) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name, ok := n.byAddr[addr]
	return name, ok
}

// tried remembers that there was more than a lookup of a name.
func (n *names) tried(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.denied[name]; ok {
		n.denied[name] = true
	}
}

// onlyLookedUp returns the names that were not allowed and that nobody tried to
// connect to at a port that the gateway sees, and how many others there were.
func (n *names) onlyLookedUp() (list []string, others int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(n.denied)) {
		if !n.denied[name] {
			list = append(list, name)
		}
	}
	return list, n.others
}
