// Package gateway serves the sockets of a sandbox that lead out of it: proxies
// to services of the operator's, allow-lists of hosts, and secrets that are put
// into requests on the way to one host (docs/decisions/0016).
//
// It is the only way out that a sandbox with such a network has, and so a
// boundary: whatever arrives at a socket is hostile. There is no packet filter
// and no proxy variable to get around. A connection tells by the address that it
// was made to where it wants to go; names get addresses of their own from the
// resolver, which asks nobody outside for a name that is not allowed. Then
//
//   - the connection goes to an address that was looked up here, checked, and
//     pinned: what a name leads to does not change between check and use, and is
//     never a private network, unless the address itself is allowed;
//   - TLS must ask for the name that was allowed (SNI), and plain HTTP must name
//     it in every request (Host), because one address serves many names;
//   - TLS is passed on as it is, end to end, but for brokered secrets, whose
//     host's TLS ends here.
//
// What it can't see is what is said inside of TLS that it passes on: a server
// that serves an allowed name and others may answer for the others.
//
// Memory, connections and the tables of names are bounded; handshakes have
// deadlines; a handler that panics ends its request and nothing else.
package gateway
