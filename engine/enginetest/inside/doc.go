// The inside program runs in the sandboxes of the conformance suite, says what
// it sees, and does what well- and ill-behaved tasks do. It is static and
// needs neither a shell nor any file. Package act has its commands.
package main
