// Package machine makes virtual machines run: it finds a Linux kernel and the
// modules that a guest needs of it, writes the initramfs that a guest begins
// with, finds out what a QEMU can do, builds its command line, talks to it, and
// tries which kinds of machine really boot here.
//
// It knows nothing of tasks, images or the guest agent's protocol: the engine
// does. Nothing in it needs root. What a guest or its QEMU says is hostile input
// and bounded; the kernel, its modules and the QEMU program are the operator's
// and trusted.
//
// It needs QEMU 5.2 or later for x86-64. Machines run on Linux; elsewhere the
// package compiles, and machines of type tcg may work.
package machine
