// The inside program runs in the sandboxes of the conformance suite, says what
// it sees, and does what well- and ill-behaved tasks do. It is static and
// needs neither a shell nor any file. Package act has its commands.
//
// The runtime keeps files of its control group open, to follow its limit of
// processors. Here that would look like an inherited descriptor.
//
//go:debug containermaxprocs=0
package main
