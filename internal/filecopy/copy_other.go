//go:build !linux

package filecopy

import (
	"errors"
	"os"
)

func clone(*os.File, *os.File) error { return errors.ErrUnsupported }

func nextData(_ *os.File, at, size int64) (data, end int64, err error) { return at, size, nil }

func copyRange(_, _ *os.File, _, _ int64) (int64, error) { return 0, errors.ErrUnsupported }
