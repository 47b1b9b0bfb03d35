//go:build !linux

package enginetest

import "testing"

// adopt does nothing: only Linux lets a process be given its descendants.
func adopt(testing.TB) func() { return func() {} }

// system adds nothing: other systems tell nothing without privileges.
func (s *suite) system(snapshot) {}
