package agent

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
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
func (s *session) mount(m *wire.Mount) error {
	var flags uintptr
	for _, name := range m.Flags {
		flag, ok := mountFlags[name]
		if !ok {
			return &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("mount: there is no flag %q", name)}
		}
		flags |= flag
	}
	if s.init && m.Wait > 0 {
		loadModules(diskModules)
	}
	source, err := awaitDevice(m)
	if err != nil {
		return err
	}
	options := m.Options
	if m.Type == "overlay" {
		if err := makeLayers(options); err != nil {
			return sorted(m.Target, err)
		}
	}
	s.mu.Lock()
	root := s.root
	s.mu.Unlock()
	folder := true
	if info, err := os.Stat(source); flags&unix.MS_BIND != 0 && err == nil {
		folder = info.IsDir()
	}
	at, err := openTarget(root, m.Target, folder)
	if err != nil {
		return sorted(m.Target, err)
	}
	defer unix.Close(at)
	if flags&unix.MS_REMOUNT != 0 {
		source = ""
	}
	if err := unix.Mount(source, procPath(at), m.Type, flags, options); err != nil {
		return mountError(m, err)
	}
	if root == "/" {
		s.mu.Lock()
		s.first = append(s.first, path.Clean(m.Target))
		s.mu.Unlock()
	}
	// The kernel makes a bind with the flags of what it is of.
	const attributes = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if flags&unix.MS_BIND == 0 || flags&unix.MS_REMOUNT != 0 || flags&attributes == 0 {
		return nil
	}
	return s.remount(m, root, flags&attributes|unix.MS_BIND|unix.MS_REMOUNT)
}

// remount gives a bind attributes of its own, or takes it back.
func (s *session) remount(m *wire.Mount, root string, flags uintptr) error {
	at, err := openIn(root, m.Target)
	if err != nil {
		return sorted(m.Target, err)
	}
	defer unix.Close(at)
	if err := unix.Mount("", procPath(at), "", flags, ""); err != nil {
		_ = unix.Unmount(procPath(at), unix.MNT_DETACH)
		return mountError(m, err)
	}
	return nil
}

func mountError(m *wire.Mount, err error) error {
	return &caisson.Error{
		Item: fmt.Sprintf("mount %q", m.Target), Kind: mountKind(err), Err: fmt.Errorf("%s %q: %w", m.Type, m.Source, err),
	}
}

// makeLayers makes the two folders that an overlay writes to, where they are
// missing. The first of them becomes its root, which is as that of the layer below.
func makeLayers(options string) error {
	lower, _, _ := strings.Cut(option(options, "lowerdir"), ":")
	upper, work := option(options, "upperdir"), option(options, "workdir")
	if upper == "" || work == "" {
		return nil
	}
	if err := os.MkdirAll(work, 0o700); err != nil {
		return err
	}
	if _, err := os.Lstat(upper); err == nil {
		return nil
	}
	var below unix.Stat_t
	if err := unix.Stat(lower, &below); err != nil {
		return err
	}
	if err := os.MkdirAll(upper, 0o755); err != nil {
		return err
	}
	return errors.Join(unix.Chown(upper, int(below.Uid), int(below.Gid)), unix.Chmod(upper, below.Mode&0o7777))
}

// option returns an option's value.
func option(options, name string) string {
	for word := range strings.SplitSeq(options, ",") {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			return value
		}
	}
	return ""
}

// serialPrefix begins a Source that names a disk by its serial number.
const serialPrefix = "serial:"

// awaitDevice waits until a device is there, and returns its path. A driver may need
// a moment.
func awaitDevice(m *wire.Mount) (string, error) {
	serial, named := strings.CutPrefix(m.Source, serialPrefix)
	if m.Wait <= 0 && !named {
		return m.Source, nil
	}
	deadline := time.Now().Add(time.Duration(m.Wait) * time.Millisecond)
	for {
		path := m.Source
		if named {
			path = diskOf(serial)
		}
		_, err := os.Stat(path)
		if err == nil || time.Now().After(deadline) {
			return path, sorted(m.Source, err)
		}
		time.Sleep(pollPause)
	}
}

// diskOf returns the device file of the disk with a serial number; a name that is not
// there where there is none.
func diskOf(serial string) string {
	files, _ := filepath.Glob("/sys/block/*/serial")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(text)) == serial {
			return "/dev/" + filepath.Base(filepath.Dir(file))
		}
	}
	return "/dev/no-disk"
}

// mountKind sorts what a mount has failed with.
func mountKind(err error) caisson.Kind {
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EPERM):
		return caisson.ErrUnsupported
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO):
		return caisson.ErrNotFound
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return caisson.ErrInvalid
	case errors.Is(err, unix.ENOMEM):
		return caisson.ErrExhausted
	}
	return caisson.ErrUnknown
}

// unmount serves wire.OpUnmount.
func (s *session) unmount(p *wire.Path) error {
	s.mu.Lock()
	root := s.root
	s.mu.Unlock()
	at, err := openIn(root, string(p.Path))
	if err != nil {
		return sorted(string(p.Path), err)
	}
	// What is open is in use.
	err = unix.Unmount(procPath(at), unix.MNT_DETACH)
	return sorted(string(p.Path), errors.Join(err, unix.Close(at)))
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

// errNotInit is what an agent refuses that has no machine of its own.
var errNotInit = &caisson.Error{Kind: caisson.ErrUnsupported, Err: errors.New("this agent is not that of a machine of its own")}

// errNotFirst is what a machine's service refuses.
var errNotFirst = &caisson.Error{Kind: caisson.ErrUnsupported, Err: errors.New("this agent is not the first process of a machine")}

// setClock serves wire.OpClock.
func (s *session) setClock(c *wire.Clock) error {
	if !s.machine() {
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
	if s.machine() {
		// Kernels before 4.14 do it by themselves, later.
		_ = unix.IoctlSetInt(int(f.Fd()), unix.RNDRESEEDCRNG, 0)
	}
	s.renew()
	return nil
}

// powerOff serves wire.OpPowerOff.
func (s *session) powerOff(p *wire.PowerOff) error {
	if !s.machine() {
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
	whole := s.machine() && !s.group
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
