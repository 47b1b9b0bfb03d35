//go:build !linux

package main

import "os/exec"

// runHidden runs cmd.
func runHidden(cmd *exec.Cmd) ([]byte, error) { return cmd.CombinedOutput() }
