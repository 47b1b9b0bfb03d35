package agent

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// rootOption is what the kernel's command line names the disk by that a machine
	// has its own system on, and initOption what is the first process there: without
	// it the agent stays that.
	rootOption = "caisson.root="
	initOption = "caisson.init="
	// newRoot is where the disk is mounted until it is everything's root.
	newRoot = "/root"
	// rootPatience is how long the disk may take to be there.
	rootPatience = 30 * time.Second
)

// enterRoot makes the disk that the kernel's command line names the root of
// everything, in place of the initramfs, and starts the system there, if that has
// a first process of its own. It then does not return.
func enterRoot() error {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	device, program := rootWords(string(line))
	if device == "" {
		return nil
	}
	if err := mountRoot(device); err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	if program == "" {
		return nil
	}
	// Nothing of the agent's is left to it.
	signal.Reset()
	unix.Umask(0o022)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0)
	return fmt.Errorf("%s: %w", program, unix.Exec(program, []string{program}, []string{"HOME=/", "TERM=linux", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}))
}

// rootWords finds the disk and the first process.
func rootWords(line string) (device, program string) {
	for _, word := range strings.Fields(line) {
		if name, ok := strings.CutPrefix(word, rootOption); ok {
			device = name
		}
		if name, ok := strings.CutPrefix(word, initOption); ok {
			program = name
		}
	}
	return device, program
}

// mountRoot mounts the disk, moves there what is mounted already, and goes
// there itself.
func mountRoot(device string) error {
	loadModules(diskModules)
	for deadline := time.Now().Add(rootPatience); !exists(device) && time.Now().Before(deadline); {
		time.Sleep(pollPause)
	}
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, newRoot, "ext4", unix.MS_NOATIME, ""); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run"} {
		to := filepath.Join(newRoot, dir)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(dir, to, "", unix.MS_MOVE, ""); err != nil {
			return err
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}
