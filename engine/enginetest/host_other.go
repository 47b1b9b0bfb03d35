//go:build !linux

package enginetest

import (
	"errors"
	"os"
)

// smallDisk needs a tmpfs.
func (t *T) smallDisk(int64) string {
	t.Fatalf("only Linux has a tmpfs")
	return ""
}

// mountTmpfs needs one too.
func (t *T) mountTmpfs(string, int64) { t.Fatalf("only Linux has a tmpfs") }

// locked needs flock.
func locked(string) (bool, error) { return false, errors.ErrUnsupported }

// owned can't be told without the system's own structures.
func (t *T) owned(string) {}

// nextData returns where the next contents of a file are.
func nextData(_ *os.File, at int64) (int64, error) { return at, nil }
