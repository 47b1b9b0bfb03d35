package disk

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

const (
	// probeSize is small because it is written, and large enough for ext4.
	probeSize = caisson.MiB
	// probeTime is for one method; a loop device takes some 30 ms.
	probeTime = 10 * time.Second
)

// methods are tried in this order.
var methods = []method{
	{MethodQuota, quotaUsable, quotaPlan, quotaMake, quotaUndo},
	{MethodLoop, loopUsable, loopPlan, loopMake, loopUndo},
	{MethodTmpfs, tmpfsUsable, tmpfsPlan, tmpfsMake, tmpfsUndo},
}

// isFull reports whether err says that there is no room left.
func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// exhausted gives an error that is about the host's room its kind.
func exhausted(item string, err error) error {
	if isFull(err) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EBUSY) {
		return &caisson.Error{Item: item, Kind: caisson.ErrExhausted, Err: err}
	}
	return fmt.Errorf("%s: %w", item, err)
}

// sameOwner gives what is mounted on dir the owner and mode that dir had.
func sameOwner(dir string, before os.FileInfo) error {
	st := before.Sys().(*syscall.Stat_t)
	return errors.Join(os.Chown(dir, int(st.Uid), int(st.Gid)), os.Chmod(dir, before.Mode()))
}
