//go:build unix && !linux

package wasm

import (
	"errors"
	"os"

	"github.com/caissonrun/caisson"
)

const mapNoReserve = 0

// become has nothing to do where this process is the user already, and no way
// to where it is not.
func become(uid, _ int) error {
	if uid != os.Geteuid() {
		return errors.New("this system has no user of files for each thread: run as the user that the work folder belongs to")
	}
	return nil
}

// confine does nothing here.
func confine(int64) (undo func(), err error) { return func() {}, nil }

// A share bounds nothing here.
type share struct{}

func newShare(name string, _ caisson.CPUs) (*share, error) {
	if name == "" {
		return nil, nil
	}
	return nil, canShare()
}

func (*share) join() error { return nil }

func (*share) close() error { return nil }

func canShare() error { return unsupported("this system has no control groups") }
