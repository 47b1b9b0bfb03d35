// Package wire is what the host and the agent in a virtual machine say to each
// other, over one stream of bytes that has no boundaries, may begin with what is
// left of an earlier conversation, and may be reset: docs/guest.md describes it.
//
// The stream carries frames with a checksum. A session begins with a greeting that
// has a nonce. In it either side makes calls, each with a result and with streams
// of its own, and each stream has a window: who does not read holds up nobody
// else, and what a side keeps for the other one is bounded. Whatever breaks a rule
// ends the session.
package wire
