package isolate_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the program that runs in sandboxes and tells what it
// sees there, so that no shell is needed.

// A report is what the helper found out about itself.
type report struct {
	UID, GID   int
	Groups     []int
	Status     map[string]string // of /proc/self/status
	FDs        []string          // numbers of open descriptors
	Env        []string
	Dir        string
	Hostname   string
	Root       []string // entries of /
	Mounts     string
	Interfaces []string
	PIDs       []int // numbers in /proc
	Session    bool  // it leads its session
	Files      unix.Rlimit
	Core       unix.Rlimit
}

// helper runs a command of the helper and returns its exit code.
func helper(args []string) int {
	commands := map[string]func([]string) error{
		"report": helperReport, "exit": helperExit, "cat": helperCat, "hold": helperHold,
		"tree": helperTree, "forker": helperForker, "write": helperWrite, "remount": helperRemount,
		"unshare": helperUnshare, "attack": helperAttack, "eat": helperEat, "terminal": helperTerminal,
		"stat": helperStat, "loopback": helperLoopback, "threads": helperThreads, "counter": helperCounter,
		"orphan": helperOrphan, "host": helperHost, "halter": helperHalter, "reach": helperReach,
	}
	f := commands[args[0]]
	if f == nil {
		fmt.Fprintln(os.Stderr, "no such command of the helper:", args[0])
		return 99
	}
	if err := f(args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		var errno syscall.Errno
		if errors.As(err, &errno) {
			fmt.Println("errno", int(errno))
		}
		return 98
	}
	return 0
}

func helperReport([]string) error {
	// First, before anything else opens one.
	dir, err := unix.Open("/proc/self/fd", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	names, err := os.NewFile(uintptr(dir), "fd").Readdirnames(-1)
	if err != nil {
		return err
	}
	r := report{UID: os.Getuid(), GID: os.Getgid(), Env: os.Environ(), Status: map[string]string{}}
	for _, n := range names {
		if n != strconv.Itoa(dir) {
			r.FDs = append(r.FDs, n)
		}
	}
	slices.Sort(r.FDs)
	r.Groups, _ = os.Getgroups()
	r.Dir, _ = os.Getwd()
	r.Hostname, _ = os.Hostname()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		r.Status[key] = strings.TrimSpace(value)
	}
	entries, _ := os.ReadDir("/")
	for _, e := range entries {
		r.Root = append(r.Root, e.Name())
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	r.Mounts = string(mounts)
	devices, _ := os.ReadFile("/proc/net/dev")
	for line := range strings.Lines(string(devices)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			r.Interfaces = append(r.Interfaces, strings.TrimSpace(name))
		}
	}
	procs, _ := os.ReadDir("/proc")
	for _, e := range procs {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			r.PIDs = append(r.PIDs, pid)
		}
	}
	sid, _ := unix.Getsid(0)
	r.Session = sid == os.Getpid()
	// The Go runtime raises the soft limit; what was given is in the kernel's
	// list only for the hard one, which is enough.
	unix.Getrlimit(unix.RLIMIT_NOFILE, &r.Files)
	unix.Getrlimit(unix.RLIMIT_CORE, &r.Core)
	return json.NewEncoder(os.Stdout).Encode(r)
}

func helperExit(args []string) error {
	code, _ := strconv.Atoi(args[0])
	os.Exit(code)
	return nil
}

// helperCat prints the files that can be read.
func helperCat(args []string) error {
	for _, name := range args {
		data, err := os.ReadFile(name)
		if err != nil {
			fmt.Println(name+":", err)
			continue
		}
		fmt.Printf("%s: read %q\n", name, data)
	}
	return nil
}

// helperHold says "ready" and sleeps.
func helperHold([]string) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
	fmt.Println("ready")
	time.Sleep(time.Hour)
	return nil
}

// helperTree leaves processes behind that belong to no session, group or
// parent of its own, says "ready", and sleeps.
func helperTree(args []string) error {
	if len(args) > 0 && args[0] == "leaf" {
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
		fmt.Println("leaf")
		time.Sleep(time.Hour)
		return nil
	}
	if len(args) > 0 {
		_, err := startSelf("tree", "leaf")
		return err // and end, so that the leaf is orphaned
	}
	for range 3 {
		cmd, err := startSelf("tree", "middle")
		if err != nil {
			return err
		}
		if err := cmd.Wait(); err != nil {
			return err
		}
	}
	return helperHold(nil)
}

// helperOrphan leaves one process behind and ends.
func helperOrphan([]string) error {
	_, err := startSelf("tree", "leaf")
	return err
}

// startSelf starts the helper again in a session of its own.
func startSelf(args ...string) (*exec.Cmd, error) {
	cmd := exec.Command("/proc/self/exe", append([]string{"helper"}, args...)...)
	cmd.Stdout = os.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, cmd.Start()
}

// helperForker forks without end, each child in a session of its own.
func helperForker([]string) error {
	signal.Ignore(syscall.SIGTERM)
	fmt.Println("ready")
	for {
		if cmd, err := startSelf("tree", "leaf"); err == nil {
			go cmd.Wait()
		}
		cmd, err := startSelf("tree", "middle")
		if err == nil {
			go cmd.Wait()
		}
		time.Sleep(time.Millisecond)
	}
}

// helperHalter halts everything else in the sandbox, again and again.
func helperHalter([]string) error {
	fmt.Println("ready")
	for {
		syscall.Kill(-1, syscall.SIGSTOP)
	}
}

// helperWrite writes a file, and tells who it belongs to.
func helperWrite(args []string) error {
	if err := os.WriteFile(args[0], []byte("inside"), 0o644); err != nil {
		return err
	}
	return helperStat(args)
}

// helperStat prints the owner of files.
func helperStat(args []string) error {
	for _, name := range args {
		var stat unix.Stat_t
		if err := unix.Lstat(name, &stat); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Printf("%s %d:%d %o\n", name, stat.Uid, stat.Gid, stat.Mode)
	}
	return nil
}

// helperRemount tries to make a mount writable, also from a user namespace of
// its own.
func helperRemount(args []string) error {
	target := args[0]
	runtime.LockOSThread()
	try := func(how string) {
		err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND, "")
		fmt.Println(how, "remount:", err)
		err = unix.MountSetattr(unix.AT_FDCWD, target, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
		fmt.Println(how, "setattr:", err)
		fmt.Println(how, "unmount:", unix.Unmount(target, unix.MNT_DETACH))
		fmt.Println(how, "write:", os.WriteFile(filepath.Join(target, "written"), nil, 0o644))
	}
	try("plain")
	if len(args) > 1 {
		// Go can't unshare a user namespace in a process with threads, so a
		// child is born in it.
		cmd := exec.Command("/proc/self/exe", "helper", "remount", target)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		if err := cmd.Run(); err != nil {
			fmt.Println("nested:", err)
		}
	}
	return nil
}

// helperUnshare tries to make a user namespace.
func helperUnshare([]string) error {
	cmd := exec.Command("/proc/self/exe", "helper", "exit", "0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	return cmd.Run()
}

// helperAttack does to pid 1 whatever a program can think of, and prints what
// worked. The kernel lets processes of the same user change each other's
// limits.
func helperAttack(args []string) error {
	for sig := 1; sig <= 64; sig++ {
		if err := unix.Kill(1, unix.Signal(sig)); err != nil && err != unix.EPERM {
			fmt.Println("kill:", sig, err)
		}
	}
	tasks, _ := os.ReadDir("/proc/1/task")
	for _, t := range tasks {
		tid, _ := strconv.Atoi(t.Name())
		for sig := 1; sig <= 64; sig++ {
			_ = unix.Tgkill(1, tid, unix.Signal(sig))
		}
		runtime.LockOSThread()
		if err := unix.PtraceAttach(tid); err == nil {
			fmt.Println("worked: ptrace")
		}
	}
	for _, name := range []string{"mem", "maps", "environ", "fd/3", "exe", "root", "cwd", "ns/user", "auxv"} {
		if f, err := os.OpenFile("/proc/1/"+name, os.O_RDONLY, 0); err == nil {
			fmt.Println("worked: open", name)
			f.Close()
		}
	}
	if fd, err := unix.PidfdOpen(1, 0); err == nil {
		if got, err := unix.PidfdGetfd(fd, 3, 0); err == nil {
			fmt.Println("worked: pidfd_getfd", got)
		}
	}
	var limit unix.Rlimit
	if err := unix.Prlimit(1, unix.RLIMIT_CPU, nil, &limit); err == nil && args[0] != "same" {
		fmt.Println("worked: prlimit")
	}
	fmt.Println("done")
	return nil
}

// helperEat uses so many bytes of memory, in a child if there is a second
// argument, and says "eaten".
func helperEat(args []string) error {
	n, _ := strconv.Atoi(args[0])
	data := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		data[i] = 1
	}
	fmt.Println("eaten")
	runtime.KeepAlive(data)
	return nil
}

// helperTerminal tells about its terminal, then echoes lines until one is
// "end", and tells of changes of size.
func helperTerminal([]string) error {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	for fd := range 3 {
		size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err != nil {
			return fmt.Errorf("descriptor %d: %w", fd, err)
		}
		fmt.Printf("size %d %dx%d\n", fd, size.Col, size.Row)
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("controlling terminal: %w", err)
	}
	name, _ := os.Readlink("/proc/self/fd/0")
	fmt.Fprintln(tty, "tty", name)
	again, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	again.Close()
	lines := make(chan string)
	go func() {
		for s := bufio.NewScanner(os.Stdin); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	for {
		select {
		case <-resized:
			size, _ := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
			fmt.Printf("resized %dx%d\n", size.Col, size.Row)
		case line, ok := <-lines:
			if !ok || line == "end" {
				return nil
			}
			fmt.Println("got", line)
		}
	}
}

// helperLoopback talks to itself. Package net would have the test binary be
// linked with libraries that are not in the sandbox.
func helperLoopback([]string) error {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := unix.Listen(listener, 1); err != nil {
		return err
	}
	at, err := unix.Getsockname(listener)
	if err != nil {
		return err
	}
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(client, at); err != nil {
		return err
	}
	fmt.Println("connected")
	return nil
}

// helperThreads starts processes until it can't, and prints how many it could.
func helperThreads(args []string) error {
	limit, _ := strconv.Atoi(args[0])
	for i := range limit {
		if _, err := startSelf("hold"); err != nil {
			fmt.Println("refused at", i)
			return nil
		}
	}
	fmt.Println("no limit")
	return nil
}

// helperCounter prints numbers as fast as it can.
func helperCounter([]string) error {
	for i := 0; ; i++ {
		fmt.Println(i)
	}
}

// helperHost opens what of the host may have stayed within reach, and prints
// what it could.
func helperHost(args []string) error {
	flag := args[0]
	var all []string
	for _, start := range []string{"", "/proc/1/root", "/proc/1/cwd", "/proc/self/root", "/proc/self/cwd", "/dev/..", strings.Repeat("/..", 50)} {
		all = append(all, start+flag)
	}
	for fd := range 100 {
		all = append(all, fmt.Sprintf("/proc/self/fd/%d%s", fd, flag), fmt.Sprintf("/proc/self/fd/%d/../../../..%s", fd, flag))
	}
	for _, name := range all {
		if _, err := os.Stat(name); err == nil {
			fmt.Println("reached", name)
		}
	}
	for _, dir := range []string{"/home", "/root", "/var", "/boot", "/sys", "/run", "/mnt", "/srv", "/opt"} {
		if _, err := os.Lstat(dir); err == nil {
			fmt.Println("reached", dir)
		}
	}
	return nil
}
