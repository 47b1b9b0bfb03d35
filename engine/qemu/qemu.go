// Package qemu runs tasks in virtual machines: an image's root file system
// under a kernel of its own, or the disk of a whole machine.
//
// A keeper, which is this program's own subcommand, starts QEMU in a sandbox of
// package isolate and talks to the agent in the guest (internal/guest). When
// the keeper ends, QEMU ends with it.
//
// What it is for users stands in doc.md.
package qemu

// Name is the engine's name.
const Name = "qemu"
