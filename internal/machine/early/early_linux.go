package early

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mount mounts /dev, /proc and /sys.
func Mount() error {
	for _, m := range []struct{ kind, target string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		err := unix.Mount(m.kind, m.target, m.kind, unix.MS_NOSUID|unix.MS_NOEXEC, "")
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// Load loads the modules of the initramfs in their order. It goes on after one
// that can't be, and returns all the errors: a guest may do without some.
func Load() error {
	var errs []error
	for _, dir := range []string{ModulesDir, DisksDir} {
		files, err := filepath.Glob(dir + "/*.ko")
		if err != nil {
			return err
		}
		// Glob sorts.
		for _, file := range files {
			if err := load(file); err != nil {
				errs = append(errs, fmt.Errorf("module %s: %w", filepath.Base(file), err))
			}
		}
	}
	return errors.Join(errs...)
}

func load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// Config reads what the host has put into the initramfs for the init.
func Config() ([]byte, error) { return os.ReadFile(ConfigFile) }

// Port waits until there is a port of that name, for at most limit, and opens
// it. Devices come up while init runs already.
func Port(name string, limit time.Duration) (*os.File, error) {
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		f, err := openPort(name)
		if err == nil || time.Now().After(end) {
			return f, err
		}
	}
}

// openPort looks for the port among those that the kernel lists.
func openPort(name string) (*os.File, error) {
	list, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, file := range list {
		text, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(text)) == name {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(file)), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("there is no port %s among %d", name, len(list))
}

// Off switches the machine off. It returns only if that can't be.
func Off() error {
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
