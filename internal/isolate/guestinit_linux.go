package isolate

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// isGuest reports whether this process is pid 1 of a guest, see GuestArgs.
func isGuest() bool { return len(os.Args) == 3 && os.Args[1] == guestName }

// guestMain is pid 1 of a guest: it serves one process of the host after the
// other, and ends only with the container. It does not return.
func guestMain(socket string) {
	p := &pid1{procs: map[int]uint64{}, born: make(chan struct{}, 1)}
	p.empty.L = &p.mu
	if err := hide(true); err != nil {
		guestFail("hide", err)
	}
	listener, err := listenUnix(socket)
	if err != nil {
		guestFail("listen", err)
	}
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != nil {
			continue
		}
		if outside(fd) {
			p.attendTo(fd)
		}
		unix.Close(fd)
	}
}

// guestFail says why the container ends at its start. Nothing of the task runs
// yet, so its log is not disturbed.
func guestFail(what string, err error) {
	os.Stderr.WriteString("caisson: sandbox: " + what + ": " + err.Error() + "\n")
	os.Exit(1)
}

func listenUnix(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return -1, err
	}
	return fd, unix.Listen(fd, 8)
}

// outside reports whether the other side of a connection is none of the
// sandbox's processes: what this pid namespace has no number for is outside.
func outside(fd int) bool {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && cred.Pid == 0
}

// attendTo serves one process of the host, until it is gone. The main program
// runs on; what ran beside it is killed, because nobody has its output.
func (p *pid1) attendTo(fd int) {
	p.sending.Lock()
	p.conn, p.orders = blocking(fd), make(chan order, maxOrders)
	p.sending.Unlock()
	p.serve()
	// Where serving has ended first, the receiver ends now.
	_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	for o := range p.orders {
		closeAll(o.fds)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for pid := range p.procs {
		if pid != p.main.pid {
			_ = unix.Kill(-pid, unix.SIGKILL)
		}
	}
}

// A guestMainProgram is what is known of the main program.
type guestMainProgram struct {
	pid    int // 0: none was started
	began  time.Time
	over   bool
	status unix.WaitStatus
}

// born notes the main program. The caller holds p.mu.
func (m *guestMainProgram) born(kind byte, pid int) {
	if kind == frameMain {
		*m = guestMainProgram{pid: pid, began: time.Now()}
	}
}

// ended notes its end. The caller holds p.mu.
func (m *guestMainProgram) ended(pid int, status unix.WaitStatus) {
	if pid == m.pid && !m.over {
		m.over, m.status = true, status
	}
}

// welcome is the first request of a connection.
func (p *pid1) welcome(f, answer *frame) error {
	d := decoder{f.body}
	s := &setup{guest: true, files: d.int(), lastCap: int(d.int()), uid: os.Getuid(), gid: os.Getgid()}
	s.filter = make([]syscall.SockFilter, d.int())
	for i := range s.filter {
		s.filter[i] = syscall.SockFilter{Code: uint16(d.int()), Jt: uint8(d.int()), Jf: uint8(d.int()), K: uint32(d.int())}
	}
	p.filter = nil
	if len(s.filter) > 0 {
		p.filter = &syscall.SockFprog{Len: uint16(len(s.filter)), Filter: &s.filter[0]}
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	answer.fds = []int{root}
	p.setup = s
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &p.main
	if m.pid != 0 && !m.over {
		pidfd, err := unix.PidfdOpen(m.pid, 0)
		if err != nil {
			return err
		}
		answer.fds = append(answer.fds, pidfd)
		// Its end is told as that of this request.
		p.procs[m.pid] = f.id
	}
	var e encoder
	e.bool(m.pid != 0)
	e.bool(m.over)
	e.int(int64(m.status))
	e.int(m.began.UnixNano())
	answer.body = e.buf
	return nil
}

// spawnMain starts the main program with the container's own output.
func (p *pid1) spawnMain(o order, answer *frame) error {
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	o.fds = append(o.fds, null)
	for n := 1; n <= 2; n++ {
		fd, err := high(n)
		if err != nil {
			closeAll(o.fds)
			return err
		}
		o.fds = append(o.fds, fd)
	}
	if o.fds[0], err = high(null); err != nil {
		closeAll(o.fds[1:])
		return err
	}
	unix.Close(null)
	err = p.spawn(o, answer)
	if err != nil {
		p.mu.Lock()
		p.main = guestMainProgram{}
		p.mu.Unlock()
	}
	return err
}

// mark writes to the container's output. A daemon that hangs may not read it,
// and holds up nothing else.
func (p *pid1) mark(f *frame) {
	go func() {
		for fd := 1; fd <= 2; fd++ {
			for rest := slices.Clone(f.body); len(rest) > 0; {
				n, err := unix.Write(fd, rest)
				if err == unix.EINTR {
					continue
				}
				if err != nil {
					break
				}
				rest = rest[n:]
			}
		}
		runtime.KeepAlive(f)
	}()
}

// ownStats reads what this control group has used, which a container sees as
// its own. The files' names are those of version 1 and of version 2.
func ownStats() []byte {
	const base = "/sys/fs/cgroup/"
	number := func(v1, v2 string) int64 {
		for _, name := range []string{v1, v2} {
			data, err := os.ReadFile(base + name)
			if n, numErr := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil && numErr == nil {
				return n
			}
		}
		return -1
	}
	cpu := number("cpuacct/cpuacct.usage", "")
	if cpu < 0 {
		cpu = thousand(keyed(base+"cpu.stat", "usage_usec"))
	}
	throttled := keyed(base+"cpu/cpu.stat", "throttled_time")
	if throttled < 0 {
		throttled = thousand(keyed(base+"cpu.stat", "throttled_usec"))
	}
	kills := keyed(base+"memory/memory.oom_control", "oom_kill")
	if kills < 0 {
		kills = keyed(base+"memory.events", "oom_kill")
	}
	var e encoder
	for _, n := range []int64{
		cpu, number("memory/memory.usage_in_bytes", "memory.current"),
		number("memory/memory.max_usage_in_bytes", "memory.peak"),
		number("pids/pids.current", "pids.current"), kills, throttled,
	} {
		e.int(n)
	}
	return e.buf
}

// thousand makes nanoseconds of microseconds, and keeps -1.
func thousand(n int64) int64 {
	if n < 0 {
		return -1
	}
	return n * 1000
}

// keyed returns the number behind a word in a file of such lines, or -1.
func keyed(path, key string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(data)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(v, 10, 64); k == key && err == nil {
			return n
		}
	}
	return -1
}
