package attack

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// readOnly is the Bound of attacks that only look.
const readOnly = "it reads and lists; what it finds is compared on the host and goes nowhere"

// noop is the Bound of attempts that change nothing where they are let through.
const noop = "each attempt is made so that it changes nothing, or what it changes is undone at once"

func escapes() []Attack {
	return []Attack{
		{
			ID: "A1", Name: "isolation/host-files", Run: hostFiles, Bound: readOnly,
			Tries: "read a file of the host: absolute, by .., by /proc, by a descriptor, from a folder moved away",
			CVE:   []string{"CVE-2024-21626"},
		},
		{
			ID: "A1", Name: "isolation/processes", Run: hostProcesses, Bound: readOnly,
			Tries: "see processes of the host or of another sandbox",
		},
		{
			ID: "A1", Name: "isolation/other-sandbox", Run: otherSandbox, Bound: readOnly,
			Tries: "read another sandbox's work folder, /tmp, environment and arguments",
			CVE:   []string{"CVE-2025-30066"},
		},
		{
			ID: "A2", Name: "environment/descriptors", Run: openDescriptors, Bound: readOnly,
			Tries: "find a descriptor that was left open, and anything on stdin",
			CVE:   []string{"CVE-2024-21626", "CVE-2016-9962"},
		},
		{
			ID: "A4", Name: "isolation/kernel-files", Run: kernelFiles,
			Bound: "files are opened for writing and closed; only an oom score of the program's own is written",
			Tries: "open core_pattern, sysrq, uevent_helper, release_agent and devices of the host",
			CVE:   []string{"CVE-2022-0492", "CVE-2023-25809", "CVE-2023-27561"},
		},
		{
			ID: "A6", Name: "escape/own-program", Run: ownProgram,
			Bound: "programs are opened for writing and nothing is written",
			Tries: "open the program of whatever supervises it, by /proc/PID/exe, to write to it",
			CVE:   []string{"CVE-2019-5736"},
		},
		{
			ID: "A7", Name: "isolation/supervisor", Run: supervisor,
			Bound: "process 1 of a host takes no signal that it has no handler for; tracing is not used",
			Tries: "end, trace or read what supervises it, and enter its namespaces",
			CVE:   []string{"CVE-2016-9962"},
		},
		{
			ID: "A7", Name: "escape/signals", Run: signalSupervisor,
			Bound: "signals are sent only where process 1 was seen not to be the host's",
			Tries: "end what supervises it by any of the 64 signals, so that its own end is not told as it was",
		},
		{
			ID: "A7", Name: "isolation/system-calls", Run: systemCalls, Bound: noop,
			Tries: "keyctl, bpf, perf_event_open, userfaultfd, io_uring, kexec, modules, handles, a user namespace, AF_VSOCK, AF_ALG",
			CVE:   []string{"CVE-2022-0185"},
		},
		{
			ID: "A9", Name: "isolation/capabilities", Run: capabilities, Bound: noop,
			Tries: "mounts, namespaces, chroot, devices, another user, the clock, the host's name, reboot, raw and packet sockets",
			CVE:   []string{"CVE-2022-24769", "CVE-2020-14386"},
		},
		{
			ID: "A9", Name: "escape/host-devices", Run: hostDevices,
			Bound: "a change of a device's owner or mode is what the sandbox itself asks for, inside",
			Tries: "have the host's /dev/null, /dev/tty and the like change their owner or mode when they are put into a sandbox, or by chmod",
			CVE:   []string{"CVE-2025-31133"},
		},
		{
			ID: "A11", Name: "isolation/root-view", Run: rootView,
			Bound: "names are listed; what is written is a file of one byte with a name of its own",
			Tries: "see homes, state and sockets of the host, read shadow, write to the system's folders",
		},
	}
}

func hostFiles(t *Trial) {
	flag, text := t.Flag()
	var args []string
	for _, prefix := range []string{
		"", "/proc/1/root", "/proc/self/root", "/proc/self/cwd/../../..", "/proc/1/cwd/..", "/proc/thread-self/root",
		strings.Repeat("/..", 20), "/work" + strings.Repeat("/..", 20), "/dev/fd/..", "/proc/self/fd/0/..", "/proc/self/fd/3",
		"/proc/self/fd/4/..", "/proc/self/map_files/../root",
	} {
		args = append(args, "try", "read", prefix+flag, ";", "try", "list", prefix+filepath.Dir(flag), ";")
	}
	// A folder that leaves the tree under the program's feet.
	args = append(args, "mkdir", "/work/a/b/c", ";", "chdir", "/work/a/b/c", ";", "try", "rename", "/work/a/b", "/tmp/moved", ";",
		"try", "rename", "/work/a/b", "/work/moved", ";", "try", "read", strings.Repeat("../", 20)+flag[1:])
	b := t.run(args...)
	b.success()
	if out := b.stdout(); strings.Contains(out, text) || strings.Contains(out, "flag\n") {
		t.Errorf("the program sees the host's file: %.300q", out)
	}
}

func hostProcesses(t *Trial) {
	neighbour := t.launch("say ready ; hold")
	neighbour.says("ready")
	f := t.launch("report").facts()
	if len(f.Processes) == 0 || len(f.Processes) > 4 {
		t.Errorf("the program sees %d processes, want itself and what supervises it", len(f.Processes))
	}
	if _, ok := f.Processes[f.PID]; !ok {
		t.Errorf("the program has pid %d and does not see itself", f.PID)
	}
	if f.Processes[os.Getpid()] != "" && os.Getpid() > 100 {
		t.Errorf("the program sees the process %d of the host", os.Getpid())
	}
}

func otherSandbox(t *Trial) {
	spec := t.Spec()
	secret := "secret-" + spec.ID
	// Where /tmp is the host's, nothing may stay there.
	shared := "/tmp/caisson-attack-" + spec.ID
	t.After(func() { os.Remove(shared) })
	spec = t.Spec("write", "/work/mine", secret, ";", "write", shared, secret, ";", "say", "ready", ";", "hold", ";", secret)
	spec.Env = map[string]string{"MINE": secret}
	t.start(spec).says("ready")
	args := []string{"list", "/work", ";", "list", "/tmp", ";", "try", "read", shared, ";", "try", "read", spec.Work + "/mine", ";"}
	for pid := 1; pid < 20; pid++ {
		for _, file := range []string{"environ", "cmdline", "root/work/mine", "cwd/mine"} {
			args = append(args, "try", "read", fmt.Sprintf("/proc/%d/%s", pid, file), ";")
		}
	}
	b := t.launch(args...)
	b.success()
	if out := b.stdout(); strings.Contains(out, secret) {
		t.Errorf("a sandbox sees another's secret: %.500q", out)
	}
}

func openDescriptors(t *Trial) {
	b := t.launch("report ; hash")
	b.success()
	reported, hash, _ := strings.Cut(b.stdout(), "\n")
	for fd, what := range t.facts(reported).FDs {
		if fd > 2 {
			t.Errorf("the program has descriptor %d, of %s", fd, what)
		}
	}
	if !strings.HasPrefix(hash, "0 ") {
		t.Errorf("stdin is not empty: %q", hash)
	}
}

// deny runs attempts and checks that each is denied.
func (t *Trial) deny(list string) {
	names := strings.Fields(list)
	b := t.run("attempt " + strings.Join(names, " "))
	b.denied(names)
}

// denied checks what a program said about attempts.
func (b *box) denied(names []string) {
	b.success()
	out := lines(b.stdout())
	if len(out) != len(names) {
		b.t.OK(fmt.Errorf("%d attempts of %d were made: %v", len(out), len(names), out), "the program")
	}
	for _, line := range out {
		// A user that the sandbox has no id for is EINVAL.
		if _, result, _ := strings.Cut(line, " "); !denied(result) && line != "setuid-0 EINVAL" {
			b.t.Errorf("%s, want it denied", line)
		}
	}
}

// kernelAttempts are files of the kernel's that no sandbox may open.
const kernelAttempts = "core-pattern sysrq uevent-helper oom-adjust cgroup-write open-kmsg open-mem open-kcore open-kvm open-fuse"

// ownAttempts are those of them that a kernel of the sandbox's own may let pass:
// they change, or open, nothing of the host's.
const ownAttempts = "oom-adjust open-fuse"

func kernelFiles(t *Trial) {
	list := strings.Fields(kernelAttempts)
	if t.separateKernel() {
		list = slices.DeleteFunc(list, func(name string) bool { return slices.Contains(strings.Fields(ownAttempts), name) })
	}
	t.deny(strings.Join(list, " "))
}

func ownProgram(t *Trial) {
	b := t.run("attempt write-own-exe write-exe-1")
	b.success()
	for _, line := range lines(b.stdout()) {
		// A program that runs can't be written to, and what can't be found
		// can't be either.
		if _, result, _ := strings.Cut(line, " "); !denied(result) && result != "ETXTBSY" {
			t.Errorf("%s, want it denied", line)
		}
	}
}

func supervisor(t *Trial) {
	facts := t.launch("report").facts()
	if facts.PID == 1 {
		t.Inapplicable("the program is process 1 of its sandbox: nothing in there supervises it")
	}
	tries := "attempt kill-1 ptrace-1 read-memory-1 setns ; "
	if !t.separateKernel() {
		// A user-space kernel hides less of what supervises the program, which
		// has nothing that the program has not.
		tries += "try list /proc/1/fd ; try read /proc/1/environ ; "
	}
	b := t.run(tries + "exit 5")
	if exit := b.wait(); exit.Reason != caisson.ReasonExited || exit.Code != 5 {
		t.Errorf("the program ended with %+v, want code 5", exit)
	}
	for _, line := range lines(b.stdout()) {
		name, result, _ := strings.Cut(line, " ")
		// A signal to an init that has no handler for it is dropped.
		if !denied(result) && result != "EINVAL" && name != "kill-1" {
			t.Errorf("%s", line)
		}
	}
}

func signalSupervisor(t *Trial) {
	facts := t.launch("report").facts()
	host, err := os.Readlink("/proc/self/ns/pid")
	t.OK(err, "Readlink")
	if inside := facts.Namespaces["pid"]; inside == "" || inside == host || facts.PID == 1 {
		t.Inapplicable("the sandbox has no process 1 of its own beside the program")
	}
	b := t.run("attempt signals-1 ; sleep 300ms ; exit 5")
	if exit := b.wait(); exit.Reason != caisson.ReasonExited || exit.Code != 5 {
		t.Errorf("after signals to its supervisor the program's end is told as %s, code %d, signal %d %s; want code 5",
			exit.Reason, exit.Code, exit.Signal, exit.Message)
	}
}

func systemCalls(t *Trial) {
	t.ownKernel()
	if f := t.launch("report").facts(); f.Seccomp != 2 && !t.separateKernel() {
		t.Errorf("seccomp mode is %d, want 2", f.Seccomp)
	}
	t.deny("clone-user keyctl add-key bpf perf-event userfaultfd io-uring kexec init-module open-by-handle " +
		"vsock-socket alg-socket quotactl")
}

// separateKernel reports whether system calls reach a kernel that is not the
// host's: what it lets through is its own.
func (t *Trial) separateKernel() bool {
	has, _ := t.Features.Has("isolation:" + engine.SeparateKernel)
	return has
}

// ownKernel ends the trial where system calls reach a kernel of the sandbox's own that
// nothing keeps them from: what that does for a program is nobody else's.
func (t *Trial) ownKernel() {
	if filtered, _ := t.Features.Has("isolation:" + engine.FilteredSyscalls); !filtered && t.separateKernel() {
		t.Inapplicable("system calls reach a kernel of the sandbox's own, unfiltered")
	}
}

func capabilities(t *Trial) {
	t.deny("mount-tmpfs mount-proc remount umount unshare-mount unshare-net chroot pivot-root mknod " +
		"setuid-0 sethostname settimeofday reboot swapon init-module kexec iopl bpf open-by-handle " +
		"raw-socket packet-socket")
}

// devicesOf tells the owners and modes of the devices that sandboxes have too.
func devicesOf() string {
	var all strings.Builder
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"} {
		info, err := os.Stat("/dev/" + name)
		if err != nil {
			continue
		}
		uid, gid := ownerOf(info)
		fmt.Fprintf(&all, "%s %v %d:%d\n", name, info.Mode(), uid, gid)
	}
	return all.String()
}

func hostDevices(t *Trial) {
	before := devicesOf()
	b := t.launch("try chmod 777 /dev/null ; try chmod 600 /dev/zero ; try chmod 600 /dev/tty ; say ready ; hold")
	b.says("ready")
	if has, _ := t.Features.Has("exec"); has {
		b.exec(&engine.ExecSpec{Args: t.Argv("exit 0")})
	}
	b.kill()
	b.destroy()
	if after := devicesOf(); after != before {
		t.Errorf("the host's devices were %q and are %q", before, after)
	}
}

func rootView(t *Trial) {
	var args []string
	hidden := strings.Fields("/home /root /var/lib /boot /mnt /srv /run/docker.sock /var/run/docker.sock /run/containerd")
	for _, path := range append(hidden, t.Hidden...) {
		args = append(args, "say", "in", path, ";", "try", "list", path, ";")
	}
	// A file that the program could make is taken away again.
	args = append(args, strings.Fields("try read /etc/shadow")...)
	for _, path := range []string{"/usr/caisson-x", "/etc/caisson-x"} {
		args = append(args, ";", "try", "write", path, "x", ";", "try", "remove", path)
	}
	b := t.run(args...)
	b.success()
	home, _ := os.UserHomeDir()
	for _, place := range strings.Split(b.stdout(), "in ")[1:] {
		all := lines(place)
		entries := slices.DeleteFunc(all[1:], func(l string) bool {
			return strings.HasPrefix(l, "list ") || strings.HasPrefix(l, "read ") || strings.HasPrefix(l, "write ") || strings.HasPrefix(l, "remove ")
		})
		if len(entries) > 0 && all[0] != home {
			t.Errorf("%s has %.200v", all[0], entries)
		}
	}
	if t.Features.ImageOnly {
		return // what it reads and writes there is its image's, in a layer of its own
	}
	for _, change := range []string{"read ok", "write ok"} {
		if strings.Contains(b.stdout(), change) {
			t.Errorf("shadow can be read, or the system's folders written: %.300q", b.stdout())
		}
	}
}

func sockets() []Attack {
	return []Attack{
		{
			ID: "A10", Name: "network/abstract-sockets", Run: abstractSocket, Bound: readOnly,
			Tries: "connect to an abstract unix socket of the host", CVE: []string{"CVE-2020-15257"},
			Needs: []string{"networks.none"},
		},
		{
			ID: "A10", Name: "escape/host-loopback", Run: hostLoopback, Bound: readOnly,
			Tries: "connect to a server on the host's loopback and addresses",
			Needs: []string{"networks.none"},
		},
		{
			ID: "A11", Name: "escape/host-socket", Run: hostSocket, Bound: readOnly,
			Tries: "connect to a socket of a daemon of the host, by its path and by links to it",
		},
	}
}

// listen opens a listener of the host for an attack.
func (t *Trial) listen(network, address string) net.Listener {
	l, err := net.Listen(network, address)
	t.OK(err, "Listen")
	t.After(func() { l.Close() })
	return l
}

func abstractSocket(t *Trial) {
	name := "@caisson-attack-" + t.Spec().ID
	t.listen("unix", name)
	b := t.run("try", "connect", "unix", name)
	b.success()
	if b.stdout() == "connect ok\n" {
		t.Errorf("the host's abstract socket was reached")
	}
}

func hostLoopback(t *Trial) {
	l := t.listen("tcp", "127.0.0.1:0")
	all := t.listen("tcp", ":0")
	addresses := []string{l.Addr().String()}
	_, port, err := net.SplitHostPort(all.Addr().String())
	t.OK(err, "SplitHostPort")
	interfaces, err := net.InterfaceAddrs()
	t.OK(err, "InterfaceAddrs")
	for _, a := range interfaces {
		if ip, ok := a.(*net.IPNet); ok {
			addresses = append(addresses, net.JoinHostPort(ip.IP.String(), port))
		}
	}
	var args []string
	for _, address := range addresses {
		args = append(args, "try", "connect", "tcp", address, ";")
	}
	spec := t.Spec(args...)
	spec.Network.Mode = caisson.NetworkNone
	b := t.start(spec)
	b.success()
	for i, line := range lines(b.stdout()) {
		if strings.HasSuffix(line, " ok") {
			t.Errorf("the host's server at %s was reached", addresses[i])
		}
	}
}

func hostSocket(t *Trial) {
	// The path of a socket is short: the folder may lie deep.
	dir, err := os.MkdirTemp("", "cs-")
	t.OK(err, "MkdirTemp")
	t.After(func() { os.RemoveAll(dir) })
	t.OK(os.Chmod(dir, 0o755), "Chmod")
	path := filepath.Join(dir, "s")
	t.listen("unix", path)
	t.OK(os.Chmod(path, 0o777), "Chmod")
	places := []string{path, "/proc/1/root" + path, "/proc/self/root" + path}
	args := []string{"symlink", path, "/work/s", ";", "try", "connect", "unix", "/work/s"}
	for _, place := range append(places, "/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock") {
		args = append(args, ";", "try", "connect", "unix", place)
	}
	b := t.run(args...)
	b.success()
	if strings.Contains(b.stdout(), "connect ok") {
		t.Errorf("a socket of the host was reached: %q", b.stdout())
	}
}
