package agent

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/internal/guest/wire"
)

const (
	// portName is the virtio-serial port's.
	portName = "org.caisson.agent"
	// portOption is what the kernel's command line names another one by.
	portOption = "caisson.port="
	// moduleFolder holds what the kernel needs in order to have the port, and the rest.
	moduleFolder = "/modules"
	// diskModules holds what it needs in order to have disks, which is loaded when
	// one is wanted: a state that is saved before fits any disk.
	diskModules = moduleFolder + "/disks"
	// maxPause is how often a service looks for a port that is not there.
	maxPause = time.Second
)

// serviceWord is the only argument of the agent that a machine's own system starts.
const serviceWord = "service"

// Main is the agent. As the first process it prepares the guest and serves the host
// that is at the port, for ever. With "service" it does the second alone: it is one
// of the services of a system that has its own first process. Otherwise its only
// argument is the number of the descriptor of a socket that leads to the host, and it
// ends with that. It returns the exit status.
func Main(args []string) int {
	unix.Umask(0)
	first := os.Getpid() == 1 && len(args) == 0
	if first || len(args) == 1 && args[0] == serviceWord {
		a := newAgent()
		a.service = !first
		if first {
			prepare()
			if err := enterRoot(); err != nil {
				complain("root", err)
				return 1 // and the kernel panics
			}
		}
		a.serveForever()
	}
	err := serveSocket(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "caisson-guest:", err)
		return 1
	}
	return 0
}

// serveForever serves one host after the other.
func (a *agent) serveForever() {
	for pause := pollPause; ; time.Sleep(pause) {
		// There is no host at the port when this returns, or no port yet. Where that is
		// so for long, it costs a system nothing to look for it less often.
		if a.servePort() {
			pause = pollPause
		} else if a.service {
			pause = min(2*pause, maxPause)
		}
	}
}

// serveSocket serves the host at a socket.
func serveSocket(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("it is started by caisson, as the first process of a machine")
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("%q is no descriptor", args[0])
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	a := newAgent()
	_ = a.serve(os.NewFile(uintptr(fd), "host"))
	a.once.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.box != nil {
		return a.box.Close()
	}
	return nil
}

// A place is what is mounted before anything else.
type place struct {
	kind, target, options string
	flags                 uintptr
}

// prepare makes a bare kernel a guest. What fails is seen on the console, and later
// by who needs it: nothing here is worth not answering the host.
func prepare() {
	deafen()
	for _, p := range []place{
		{"proc", "/proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", "/sys", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"devtmpfs", "/dev", "mode=0755", unix.MS_NOSUID},
		{"devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "/dev/shm", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
		{"mqueue", "/dev/mqueue", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/run", "mode=0755", unix.MS_NOSUID | unix.MS_NODEV},
		{"cgroup2", "/sys/fs/cgroup", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	} {
		p.mount()
	}
	links()
	if _, err := raise("lo", 0); err != nil {
		complain("loopback", err)
	}
	roomy()
	// The host's connection outlives whatever eats up the memory.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		complain("oom score", err)
	}
	loadModules(moduleFolder)
}

// loadModules loads the modules of a folder, once.
func loadModules(folder string) {
	modules, _ := filepath.Glob(folder + "/*.ko*")
	slices.Sort(modules)
	for _, name := range modules {
		if err := loadModule(name, ""); err != nil {
			complain("module", err)
			continue
		}
		// The file is in memory, and nobody needs it any more.
		_ = os.Remove(name)
	}
}

// roomy takes away the limits that a kernel gives its first process: programs are to
// have as many files and processes as in a container, where others bound them.
func roomy() {
	for resource, value := range map[int]uint64{unix.RLIMIT_NOFILE: 1 << 20, unix.RLIMIT_NPROC: unix.RLIM_INFINITY} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: value, Max: value}); err != nil {
			complain("limits", err)
		}
	}
	// No port of the machine's is worth protecting from a program that is not root.
	_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
}

// complain says on the console what has gone wrong.
func complain(what string, err error) {
	fmt.Fprintf(os.Stderr, "caisson-guest: %s: %v\n", what, err)
}

// deafen has no signal end the first process, and with it the guest.
func deafen() {
	for n := syscall.Signal(1); n <= 64; n++ {
		switch n {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGKILL, unix.SIGSTOP:
			// Children are reaped, and the runtime needs the other one.
		default:
			signal.Ignore(n)
		}
	}
}

// mount mounts the place, unless the kernel has done so, or has no such thing.
func (p *place) mount() {
	if err := os.MkdirAll(p.target, 0o755); err != nil {
		complain(p.target, err)
		return
	}
	if err := unix.Mount(p.kind, p.target, p.kind, p.flags, p.options); err != nil && err != unix.EBUSY {
		complain(p.target, err)
	}
}

// links makes the names in /dev that are no devices.
func links() {
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1",
		"/dev/stderr": "/proc/self/fd/2",
	} {
		_ = os.Symlink(target, name)
	}
	// That of the terminals which are mounted here.
	if os.Remove("/dev/ptmx") == nil {
		_ = os.Symlink("pts/ptmx", "/dev/ptmx")
	}
}

// servePort serves who is at the port, until nobody is, and reports whether there is
// a port.
func (a *agent) servePort() bool {
	f, err := os.OpenFile(findPort("/"), os.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	a.announce(f)
	_ = a.serve(f)
	return true
}

// announce says, once, that there is an agent, by a welcome to nobody: a host that
// was in a session with an earlier one learns that it has ended.
func (a *agent) announce(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil || a.announced {
		return
	}
	w := wire.Welcome{Lowest: wire.Version, Highest: wire.Version, Boot: a.boot}
	_ = raw.Write(func(fd uintptr) bool {
		// Where nobody is at the other end it would wait.
		_, err = unix.Write(int(fd), w.Frame().Append(nil))
		return true
	})
	a.announced = err == nil
}

// findPort returns the file of the port, by what is below a root; a name that is not
// there where there is none yet.
func findPort(root string) string {
	line, _ := os.ReadFile(filepath.Join(root, "proc/cmdline"))
	name := portName
	for _, word := range strings.Fields(string(line)) {
		if path, ok := strings.CutPrefix(word, portOption); ok {
			if path = filepath.Join(root, path); exists(path) {
				return path
			}
			// Without udev there are no names but the kernel's.
			name = filepath.Base(path)
		}
	}
	names, _ := filepath.Glob(filepath.Join(root, "sys/class/virtio-ports/*/name"))
	for _, file := range names {
		text, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(text)) == name {
			return filepath.Join(root, "dev", filepath.Base(filepath.Dir(file)))
		}
	}
	return filepath.Join(root, "dev/no-port")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
