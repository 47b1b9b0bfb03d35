//go:build unix && !linux

package qemu

import "os"

// carryTerminal is not reached: there are no terminals to stand for others here.
func (p *program) carryTerminal(slave *os.File) { slave.Close() }
