package disk

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func tmpfsUsable(string) error { return canMount() }

func tmpfsPlan(*Place) error { return nil }

// tmpfsMake mounts a tmpfs over the folder.
func tmpfsMake(_ context.Context, p *Place) error {
	before, err := os.Stat(p.Dir)
	if err != nil {
		return err
	}
	options := fmt.Sprintf("size=%d", int64(p.Size))
	if err := unix.Mount("caisson", p.Dir, "tmpfs", mountFlags, options); err != nil {
		return exhausted("mount tmpfs", err)
	}
	return sameOwner(p.Dir, before)
}

func tmpfsUndo(ctx context.Context, p *Place) error {
	return unmount(ctx, p.Dir, func(m mounted) bool { return m.kind == "tmpfs" && m.source == "caisson" })
}
