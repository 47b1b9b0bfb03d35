//go:build unix && !linux

package selftest

import "errors"

// memoryHolds needs Linux's /proc.
func memoryHolds(int, string) (bool, error) { return false, errors.ErrUnsupported }
