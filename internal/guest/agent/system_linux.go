package agent

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
	"github.com/caissonrun/caisson/internal/isolate"
)

// mountFlags are those that the host can ask for. It is never changed.
var mountFlags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"noatime": unix.MS_NOATIME, "bind": unix.MS_BIND, "rec": unix.MS_REC, "remount": unix.MS_REMOUNT,
	"private": unix.MS_PRIVATE, "move": unix.MS_MOVE,
}

// pollPause is how often a device is looked for that is not there yet: nobody tells
// of it here.
const pollPause = 10 * time.Millisecond

// mount serves wire.OpMount.
func mount(m *wire.Mount) error {
	var flags uintptr
	for _, name := range m.Flags {
		flag, ok := mountFlags[name]
		if !ok {
			return &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("mount: there is no flag %q", name)}
		}
		flags |= flag
	}
	if err := awaitDevice(m); err != nil {
		return err
	}
	if err := makeTarget(m, flags); err != nil {
		return sorted(m.Target, err)
	}
	if err := unix.Mount(m.Source, m.Target, m.Type, flags, m.Options); err != nil {
		return &caisson.Error{
			Item: fmt.Sprintf("mount %q", m.Target), Kind: mountKind(err), Err: fmt.Errorf("%s %q: %w", m.Type, m.Source, err),
		}
	}
	return nil
}

// awaitDevice waits until a device is there. A driver may need a moment.
func awaitDevice(m *wire.Mount) error {
	if m.Wait <= 0 {
		return nil
	}
	deadline := time.Now().Add(time.Duration(m.Wait) * time.Millisecond)
	for {
		_, err := os.Stat(m.Source)
		if err == nil || time.Now().After(deadline) {
			return sorted(m.Source, err)
		}
		time.Sleep(pollPause)
	}
}

// makeTarget makes what is mounted on, where it is missing: a file for a bind of one.
func makeTarget(m *wire.Mount, flags uintptr) error {
	if _, err := os.Stat(m.Target); err == nil {
		return nil
	}
	if flags&unix.MS_BIND != 0 {
		if info, err := os.Stat(m.Source); err == nil && !info.IsDir() {
			if err := os.MkdirAll(path.Dir(m.Target), 0o755); err != nil {
				return err
			}
			f, err := os.OpenFile(m.Target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	return os.MkdirAll(m.Target, 0o755)
}

// mountKind sorts what a mount has failed with.
func mountKind(err error) caisson.Kind {
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EPERM):
		return caisson.ErrUnsupported
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO):
		return caisson.ErrNotFound
	case errors.Is(err, unix.EINVAL):
		return caisson.ErrInvalid
	case errors.Is(err, unix.ENOMEM):
		return caisson.ErrExhausted
	}
	return caisson.ErrUnknown
}

// unmount serves wire.OpUnmount.
func unmount(p *wire.Path) error {
	return sorted(string(p.Path), unix.Unmount(string(p.Path), unix.UMOUNT_NOFOLLOW))
}

// setRoot serves wire.OpRoot: what is mounted at a folder becomes the root of
// everything.
func (s *session) setRoot(p *wire.Path) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.box != nil {
		return &caisson.Error{Kind: caisson.ErrExists, Err: errors.New("programs have been set up already")}
	}
	name := string(p.Path)
	if err := os.Chdir(name); err != nil {
		return sorted(name, err)
	}
	if s.init {
		if err := moveRoot(); err != nil {
			return &caisson.Error{Item: fmt.Sprintf("root %q", name), Kind: mountKind(err), Err: err}
		}
	}
	if err := unix.Chroot("."); err != nil {
		return sorted(name, err)
	}
	s.root = name
	return os.Chdir("/")
}

// moveRoot puts the mount that is the working directory in the place of the root,
// with what every program needs on it. The old root, a file system in memory, can't
// be unmounted.
func moveRoot() error {
	for _, name := range []string{"proc", "sys", "dev", "run"} {
		if !mounted("/" + name) {
			continue
		}
		if err := os.MkdirAll(name, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("/"+name, name, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move /%s: %w", name, err)
		}
	}
	return unix.Mount(".", "/", "", unix.MS_MOVE, "")
}

// mounted reports whether something is mounted at a folder of the root.
func mounted(name string) bool {
	var there, above unix.Stat_t
	return unix.Lstat(name, &there) == nil && unix.Lstat("/", &above) == nil && there.Dev != above.Dev
}

// loadModule loads a kernel module; one that is there already is none to load.
func loadModule(name, params string) error {
	f, err := os.Open(name)
	if err != nil {
		return sorted(name, err)
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(name, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	err = unix.FinitModule(int(f.Fd()), params, flags)
	if err == unix.EEXIST {
		return nil
	}
	return sorted(name, err)
}

// errNotInit is what an agent refuses that is no machine's.
var errNotInit = &caisson.Error{Kind: caisson.ErrUnsupported, Err: errors.New("this agent is not the first process of a machine")}

// setClock serves wire.OpClock.
func (s *session) setClock(c *wire.Clock) error {
	if !s.init {
		return errNotInit
	}
	now := unix.NsecToTimeval(c.Nanoseconds)
	return unix.Settimeofday(&now)
}

// maxSeed bounds wire.Seed.
const maxSeed = 4096

// reseed serves wire.OpSeed.
func (s *session) reseed(p *wire.Seed) error {
	if len(p.Bytes) > maxSeed {
		return &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("more than %d bytes", maxSeed)}
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(p.Bytes); err != nil {
		return err
	}
	if s.init {
		// Kernels before 4.14 do it by themselves, later.
		_ = unix.IoctlSetInt(int(f.Fd()), unix.RNDRESEEDCRNG, 0)
	}
	s.renew()
	return nil
}

// powerOff serves wire.OpPowerOff.
func (s *session) powerOff(p *wire.PowerOff) error {
	if !s.init {
		return errNotInit
	}
	if box, err := s.sandbox(); err == nil {
		_ = box.Kill()
	}
	unix.Sync()
	how := unix.LINUX_REBOOT_CMD_POWER_OFF
	if p.Reboot {
		how = unix.LINUX_REBOOT_CMD_RESTART
	}
	return unix.Reboot(how)
}

// stats serves wire.OpStats. Without a control group the guest's own figures are
// the next best, because nothing else runs there.
func (s *session) stats(box *isolate.Box) (any, error) {
	used, err := box.Stats()
	if err != nil {
		return nil, err
	}
	st := &wire.Stats{
		CPU: int64(used.CPU), Memory: int64(used.Memory), PeakMemory: int64(used.PeakMemory),
		PIDs: used.PIDs, OOMKills: used.OOMKills, Throttled: int64(used.Throttled),
	}
	s.mu.Lock()
	whole := s.init && !s.group
	s.mu.Unlock()
	if whole {
		wholeGuest(st)
	}
	return st, nil
}

// wholeGuest fills in what the guest as a whole uses.
func wholeGuest(st *wire.Stats) {
	total, free := number("/proc/meminfo", "MemTotal:"), number("/proc/meminfo", "MemAvailable:")
	if total >= 0 && free >= 0 {
		st.Memory = (total - free) << 10
	}
	st.OOMKills = number("/proc/vmstat", "oom_kill")
}

// number returns the number behind a word in a file of such lines, or -1.
func number(file, word string) int64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != word {
			continue
		}
		if n, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
			return n
		}
	}
	return -1
}
