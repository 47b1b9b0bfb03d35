//go:build !linux

// Hello is the init of a Linux guest; elsewhere it does nothing.
package main

func main() {}
