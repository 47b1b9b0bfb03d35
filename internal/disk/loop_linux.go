package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

const (
	loopControl = "/dev/loop-control"
	// mountFlags keep what a task puts there from being more than files.
	mountFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOATIME
	// smallImage is the size below which blocks of 1 KiB and a file for every
	// 4 KiB make better use of the room.
	smallImage = 16 * caisson.MiB
	// leastImage is the least that mkfs.ext4 makes something useful of.
	leastImage = 128 * caisson.KiB
	// Another process may take the free device that was found, so it is tried
	// again, and for a while also when there is none.
	loopTries = 200
	loopWait  = 10 * time.Millisecond
)

// loopUsable looks for what is needed; only trying shows whether it works.
func loopUsable(string) error {
	if err := canMount(); err != nil {
		return err
	}
	f, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("loop devices: %w", err)
	}
	f.Close()
	_, err = mkfs()
	return err
}

// mkfs returns where mkfs.ext4 is, also for users whose PATH lacks the folders
// of administrators.
func mkfs() (string, error) {
	for _, name := range []string{"mkfs.ext4", "/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("mkfs.ext4 is not installed (package e2fsprogs)")
}

func loopPlan(p *Place) error {
	if p.Size < leastImage {
		return &caisson.Error{
			Item: "disk limit", Kind: caisson.ErrInvalid,
			Err: fmt.Errorf("%s: too small, the least is %s", p.Size, leastImage),
		}
	}
	p.Image = p.Dir + ".img"
	return nil
}

// loopMake makes a file system in a sparse file and mounts it over the folder.
func loopMake(ctx context.Context, p *Place) error {
	before, err := os.Stat(p.Dir)
	if err != nil {
		return err
	}
	image, err := os.OpenFile(p.Image, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer image.Close()
	if err := image.Truncate(int64(p.Size)); err != nil {
		return exhausted(p.Image, err)
	}
	if err := format(ctx, p); err != nil {
		return err
	}
	device, err := attach(ctx, image)
	if err != nil {
		return err
	}
	// The device frees itself when its last user is gone: this descriptor if
	// the mount fails, the mount otherwise.
	defer device.Close()
	if err := unix.Mount(device.Name(), p.Dir, "ext4", mountFlags, "discard,noinit_itable"); err != nil {
		return exhausted("mount "+p.Image, err)
	}
	if err := os.Remove(filepath.Join(p.Dir, "lost+found")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return sameOwner(p.Dir, before)
}

// format makes the file system: without a journal, because nothing in it
// outlives a crash of the host, and without room kept back for root.
func format(ctx context.Context, p *Place) error {
	path, err := mkfs()
	if err != nil {
		return err
	}
	block, perFile := "4096", "16384"
	if p.Size < smallImage {
		block, perFile = "1024", "4096"
	}
	cmd := exec.CommandContext(ctx, path, "-q", "-F", "-m", "0", "-b", block, "-i", perFile,
		"-O", "^has_journal,^resize_inode", "-E", "nodiscard,lazy_itable_init=1", "--", p.Image)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "MKE2FS_CONFIG=/dev/null"}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("mkfs.ext4: %w: %s", err, strings.Join(strings.Fields(said.String()), " "))
	}
	return nil
}

// attach gives a file a free loop device, which frees itself after use.
func attach(ctx context.Context, image *os.File) (*os.File, error) {
	control, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	var last error
	for range loopTries {
		device, err := attachOnce(control, image)
		if err == nil {
			return device, nil
		}
		last = err
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(loopWait):
		}
	}
	return nil, &caisson.Error{Item: "loop device", Kind: caisson.ErrExhausted, Err: last}
}

// attachOnce takes one device. It fails when another process was quicker.
func attachOnce(control, image *os.File) (*os.File, error) {
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("find a free one: %w", err)
	}
	device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(image.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	copy(config.Info.File_name[:len(config.Info.File_name)-1], image.Name())
	if err := unix.IoctlLoopConfigure(int(device.Fd()), &config); err != nil {
		device.Close()
		return nil, fmt.Errorf("%s: %w", device.Name(), err)
	}
	return device, nil
}

// loopUndo unmounts the image and removes it.
func loopUndo(ctx context.Context, p *Place) error {
	err := unmount(ctx, p.Dir, func(m mounted) bool {
		return m.kind == "ext4" && backs(m.source, p.Image)
	})
	if err != nil {
		return err
	}
	if err := os.Remove(p.Image); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// backs reports whether image is the file behind a loop device.
func backs(device, image string) bool {
	name := filepath.Join("/sys/block", filepath.Base(device), "loop/backing_file")
	file, err := os.ReadFile(name)
	if err != nil {
		return false
	}
	// A file that was removed already is shown with a note.
	return strings.TrimSuffix(strings.TrimSuffix(string(file), "\n"), " (deleted)") == image
}
