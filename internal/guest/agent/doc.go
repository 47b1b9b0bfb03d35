// Package agent is the program in a virtual machine that does what the host asks:
// it starts programs, moves files and listens for the host, by the protocol of
// package wire. As the guest's first process it also makes of a bare kernel a place
// where programs run, and reaps what they leave behind.
//
// Nothing here protects the guest from its programs, which may be root there: what
// isolates is the machine. The host takes nothing that an agent says for granted.
//
// It is for Linux; see docs/guest.md.
package agent
