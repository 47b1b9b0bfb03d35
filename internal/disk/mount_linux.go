package disk

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// busyTime is how long a file system may be in use when it is unmounted.
	// Then it is detached: it goes when its last user does.
	busyTime = 2 * time.Second
	busyWait = 5 * time.Millisecond
)

// canMount returns why this process can't mount, or nil.
func canMount() error {
	fd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("this user can't mount file systems: %w", err)
	}
	return unix.Close(fd)
}

// A mounted is one line of /proc/self/mountinfo.
type mounted struct{ kind, source string }

// mountsAt returns what is mounted on dir, the topmost last.
func mountsAt(dir string) ([]mounted, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var list []mounted
	for line := range bytes.Lines(data) {
		before, after, _ := strings.Cut(strings.TrimSpace(string(line)), " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if len(fields) > 4 && len(rest) > 1 && unescape(fields[4]) == dir {
			list = append(list, mounted{rest[0], unescape(rest[1])})
		}
	}
	return list, nil
}

// unescape undoes the octal escapes of /proc/self/mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// unmount unmounts what is on top of dir as long as that is ours.
func unmount(ctx context.Context, dir string, ours func(mounted) bool) error {
	for deadline := time.Now().Add(busyTime); ; {
		list, err := mountsAt(dir)
		if err != nil {
			return err
		}
		if len(list) == 0 || !ours(list[len(list)-1]) {
			return nil
		}
		flags := unix.UMOUNT_NOFOLLOW
		if ctx.Err() != nil || time.Now().After(deadline) {
			flags |= unix.MNT_DETACH
		}
		switch err := unix.Unmount(dir, flags); err {
		case nil:
		case unix.EBUSY:
			time.Sleep(busyWait)
		default:
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
}
