package enginetest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func isolationCases() []Case {
	return []Case{
		{
			Name: "isolation/host-files", Rules: []int{126}, Attacks: []int{1, 11}, Needs: []string{isolation(engine.IsolatedRoot)},
			Rule: "no path leads to a file of the host: absolute, by .., by /proc, by a descriptor, by a folder moved away",
			body: isolatedFiles,
		},
		{
			Name: "isolation/root-view", Rules: []int{126}, Attacks: []int{1, 11}, Needs: []string{isolation(engine.IsolatedRoot)},
			Rule: "homes, state and sockets of the host are not in the root",
			body: isolatedRoot,
		},
		{
			Name: "isolation/processes", Rules: []int{126}, Attacks: []int{1}, Needs: []string{isolation(engine.InvisibleHostProc)},
			Rule: "no process of the host or of another sandbox can be seen",
			body: isolatedProcesses,
		},
		{
			Name: "isolation/namespaces", Rules: []int{127}, Attacks: []int{16},
			Rule: "the namespaces that are declared are not the host's, and no two sandboxes share one",
			body: isolatedNamespaces,
		},
		{
			Name: "isolation/supervisor", Rules: []int{127}, Attacks: []int{7}, Needs: []string{isolation(engine.IsolatedPIDs)},
			Rule: "the program can't end, trace or read what supervises it",
			body: isolatedSupervisor,
		},
		{
			Name: "isolation/user", Rules: []int{126, 127}, Attacks: []int{8}, Needs: []string{isolation(engine.NoCapabilities)},
			Rule: "the program is not root, has no groups of the host's and no capabilities in any set",
			body: isolatedUser,
		},
		{
			Name: "isolation/no-new-privileges", Rules: []int{127}, Attacks: []int{8}, Needs: []string{isolation(engine.NoNewPrivileges)},
			Rule: "the program has no_new_privs",
			body: isolatedPrivileges,
		},
		{
			Name: "isolation/set-id", Rules: []int{127}, Attacks: []int{8}, wants: []facility{command, root},
			Needs: []string{isolation(engine.NoNewPrivileges), "share_work"},
			Rule:  "a program with set-id bits that belongs to root gains nothing",
			body:  isolatedSetID,
		},
		{
			Name: "isolation/capabilities", Rules: []int{127}, Attacks: []int{4, 7, 9, 10}, Needs: []string{isolation(engine.NoCapabilities)},
			Rule: "what needs a capability is denied: mounts, devices, raw sockets, the clock, kernel settings",
			body: isolatedCapabilities,
		},
		{
			Name: "isolation/system-calls", Rules: []int{127}, Attacks: []int{7, 10}, Needs: []string{isolation(engine.FilteredSyscalls)},
			Rule: "a filter of system calls is in place, and denies those that have opened sandboxes",
			body: isolatedSystemCalls,
		},
		{
			Name: "isolation/kernel-files", Rules: []int{127, 130}, Attacks: []int{4, 9}, Needs: []string{isolation(engine.IsolatedRoot)},
			Rule: "the kernel's settings and the host's devices can't be opened",
			body: isolatedKernelFiles,
		},
		{
			Name: "isolation/other-sandbox", Rules: []int{126}, Attacks: []int{37, 40}, Needs: []string{isolation(engine.InvisibleHostProc)},
			Rule: "a sandbox sees nothing of another's work folder, /tmp, environment and processes",
			body: isolatedFromOthers,
		},
		{
			Name: "isolation/user-ids", Rules: []int{129}, Needs: []string{isolation(engine.IsolatedUserID)},
			Rule: "no two live sandboxes share a user id on the host, and none has root's",
			body: isolatedUserIDs,
		},
		{
			Name: "isolation/hostname", Rules: []int{127}, Needs: []string{"hostname"},
			Rule: "the sandbox has the hostname of the spec",
			body: isolatedHostname,
		},
		{
			Name: "isolation/chosen-user", Rules: []int{127}, Attacks: []int{12}, Needs: []string{"user"},
			Rule: "the program has the user of the spec exactly, or the spec is refused: no spelling becomes another user",
			body: chosenUser,
		},
	}
}

// flag makes a file of the host whose text no sandbox may see.
func (t *T) flag() (path, text string) {
	path, text = filepath.Join(t.dir, "flag"), "flag-"+t.newID()
	t.ok(os.WriteFile(path, []byte(text), 0o644), "WriteFile")
	return path, text
}

func isolatedFiles(t *T) {
	flag, text := t.flag()
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
	b, _ := t.run(args...)
	b.success()
	if out := b.stdout(); strings.Contains(out, text) || strings.Contains(out, "flag\n") {
		t.Errorf("the program sees the host's file: %q", out)
	}
}

func isolatedRoot(t *T) {
	var args []string
	hidden := strings.Fields("/home /root /var/lib /boot /mnt /srv /run/docker.sock /var/run/docker.sock /run/containerd")
	for _, path := range append(hidden, t.h.Folders...) {
		args = append(args, "say", "in", path, ";", "try", "list", path, ";")
	}
	args = append(args, words([]string{"try read /etc/shadow ; try write /usr/x x ; try write /etc/x x ; try write /x x"})...)
	b, _ := t.run(args...)
	b.success()
	home, _ := os.UserHomeDir()
	for _, place := range strings.Split(b.stdout(), "in ")[1:] {
		all := lines(place)
		entries := slices.DeleteFunc(all[1:], func(l string) bool { return strings.HasPrefix(l, "list ") })
		if len(entries) > 0 && !slices.Contains(all, "read ENOENT") && all[0] != home {
			t.Errorf("%s has %v", all[0], entries)
		}
	}
	for _, change := range []string{"read ok", "write ok"} {
		if strings.Contains(b.stdout(), change) {
			t.Errorf("shadow can be read, or the system's folders written: %q", b.stdout())
		}
	}
}

func isolatedProcesses(t *T) {
	neighbour := t.holding()
	defer t.destroy(neighbour.Sandbox)
	f := t.launch("report").facts()
	if len(f.Processes) == 0 || len(f.Processes) > 4 {
		t.Errorf("the program sees %d processes, want itself and what supervises it: %v", len(f.Processes), f.Processes)
	}
	if _, ok := f.Processes[f.PID]; !ok {
		t.Errorf("the program has pid %d and sees %v", f.PID, f.Processes)
	}
	if f.Processes[os.Getpid()] != "" && os.Getpid() > 100 {
		t.Errorf("the program sees the process %d of the host", os.Getpid())
	}
}

func isolatedNamespaces(t *T) {
	first, second := t.launch("report").facts(), t.launch("report").facts()
	for word, name := range map[string]string{
		engine.IsolatedMounts: "mnt", engine.IsolatedPIDs: "pid", engine.IsolatedIPC: "ipc", engine.IsolatedHostname: "uts",
		engine.IsolatedNetwork: "net", engine.IsolatedUsers: "user", engine.IsolatedCgroup: "cgroup",
	} {
		if !slices.Contains(t.features.Isolation, word) {
			continue
		}
		host, err := os.Readlink("/proc/self/ns/" + name)
		t.ok(err, "Readlink")
		a, b := first.Namespaces[name], second.Namespaces[name]
		if a == "" || a == host || b == host {
			t.Errorf("%s: the host's is %s, the sandboxes' are %s and %s", word, host, a, b)
		}
	}
}

func isolatedSupervisor(t *T) {
	b, _ := t.run("attempt kill-1 ptrace-1 read-memory-1 setns ; try list /proc/1/fd ; try read /proc/1/environ ; exit 5")
	b.expect(caisson.ReasonExited, 5, 0)
	for _, line := range lines(b.stdout()) {
		name, result, _ := strings.Cut(line, " ")
		// A signal to an init that has no handler for it is dropped.
		if !denied(result) && result != "EINVAL" && name != "kill-1" {
			t.Errorf("%s", line)
		}
	}
}

func isolatedUser(t *T) {
	f := t.launch("report").facts()
	if f.UID == 0 || f.GID == 0 || slices.Contains(f.Groups, 0) {
		t.Errorf("the program is %d:%d with groups %v", f.UID, f.GID, f.Groups)
	}
	for set, bits := range f.Caps {
		if strings.Trim(bits, "0") != "" {
			t.Errorf("%s = %s, want none", set, bits)
		}
	}
	if len(f.Caps) != 5 {
		t.Errorf("the program knows %d sets of capabilities: is /proc there?", len(f.Caps))
	}
}

func isolatedPrivileges(t *T) {
	if f := t.launch("report").facts(); !f.NoNewPrivs {
		t.Errorf("no_new_privs is not set")
	}
}

func isolatedSetID(t *T) {
	program, err := os.ReadFile(t.h.Inside)
	t.ok(err, "reading the inside program")
	want := t.launch("report").facts()
	spec := t.spec()
	path := filepath.Join(spec.Work, "setid")
	t.ok(os.WriteFile(path, program, 0o755), "WriteFile")
	for _, uid := range []int{0, t.owner.UID} {
		t.ok(os.Chown(path, uid, uid), "Chown")
		t.ok(os.Chmod(path, 0o755|os.ModeSetuid|os.ModeSetgid), "Chmod")
		next := t.spec()
		t.ok(os.Rename(path, filepath.Join(next.Work, "setid")), "Rename")
		path = filepath.Join(next.Work, "setid")
		next.Args = []string{"/work/setid", "report"}
		b := t.start(next)
		// A file of an owner unknown inside may not be executable at all.
		if exit := b.wait(); exit.Code == 126 {
			continue
		}
		if f := b.facts(); f.UID != want.UID || f.GID != want.GID {
			t.Errorf("a set-id program is %d:%d, others are %d:%d", f.UID, f.GID, want.UID, want.GID)
		}
	}
}

// deny runs attempts and checks that each is denied.
func (t *T) deny(list string) {
	names := strings.Fields(list)
	b, _ := t.run("attempt " + strings.Join(names, " "))
	b.success()
	out := lines(b.stdout())
	if len(out) != len(names) {
		t.Errorf("%d attempts of %d were made: %v", len(out), len(names), out)
	}
	for _, line := range out {
		// A user that the sandbox has no id for is EINVAL.
		if _, result, _ := strings.Cut(line, " "); !denied(result) && line != "setuid-0 EINVAL" {
			t.Errorf("%s, want it denied", line)
		}
	}
}

func isolatedCapabilities(t *T) {
	t.deny("mount-tmpfs mount-proc remount umount unshare-mount unshare-net chroot pivot-root mknod " +
		"setuid-0 sethostname settimeofday reboot swapon init-module kexec iopl bpf open-by-handle " +
		"raw-socket packet-socket")
}

func isolatedSystemCalls(t *T) {
	if f := t.launch("report").facts(); f.Seccomp != 2 {
		t.Errorf("seccomp mode is %d, want 2", f.Seccomp)
	}
	t.deny("clone-user keyctl add-key bpf perf-event userfaultfd io-uring kexec init-module open-by-handle " +
		"vsock-socket alg-socket quotactl")
}

func isolatedKernelFiles(t *T) {
	t.deny("core-pattern sysrq uevent-helper oom-adjust cgroup-write open-kmsg open-mem open-kcore open-kvm " +
		"open-fuse")
}

func isolatedFromOthers(t *T) {
	secret := "secret-" + t.newID()
	spec := t.spec("write", "/work/mine", secret, ";", "write", "/tmp/mine", secret, ";", "say", "ready", ";", "hold", ";", secret)
	spec.Env = map[string]string{"MINE": secret}
	neighbour := t.start(spec)
	neighbour.says("ready")
	args := []string{"list", "/work", ";", "list", "/tmp", ";", "try", "read", "/tmp/mine", ";", "try", "read", spec.Work + "/mine", ";"}
	for pid := 1; pid < 20; pid++ {
		for _, file := range []string{"environ", "cmdline", "root/work/mine", "cwd/mine"} {
			args = append(args, "try", "read", fmt.Sprintf("/proc/%d/%s", pid, file), ";")
		}
	}
	b := t.start(func() *engine.Spec { s := t.spec(args...); s.Env = nil; return s }())
	b.success()
	if out := b.stdout(); strings.Contains(out, secret) {
		t.Errorf("a sandbox sees another's secret: %.500q", out)
	}
}

func isolatedUserIDs(t *T) {
	owners := make(map[int]string)
	for range 4 {
		b := t.launch("say", "ready", ";", "hold", ";", "marker-"+t.newID())
		b.says("ready")
		uid := hostUser(b.spec.Args[len(b.spec.Args)-1])
		switch {
		case uid < 0:
			t.Errorf("the program of %s can't be found on the host", b.spec.ID)
		case uid == 0:
			t.Errorf("the program of %s is root on the host", b.spec.ID)
		case owners[uid] != "":
			t.Errorf("%s and %s are both user %d on the host", owners[uid], b.spec.ID, uid)
		}
		owners[uid] = b.spec.ID
	}
}

// hostUser returns the user on the host of the process that has a word among
// its arguments, or -1.
func hostUser(word string) int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || !slices.Contains(strings.Split(string(data), "\x00"), word) {
			continue
		}
		status, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "status"))
		for line := range strings.SplitSeq(string(status), "\n") {
			var uid int
			if _, err := fmt.Sscanf(line, "Uid: %d", &uid); err == nil {
				return uid
			}
		}
	}
	return -1
}

func isolatedHostname(t *T) {
	spec := t.spec("report")
	spec.Hostname = "chosen-name"
	if got := t.start(spec).facts().Hostname; got != spec.Hostname {
		t.Errorf("the hostname is %q, want %q", got, spec.Hostname)
	}
	host, err := os.Hostname()
	t.ok(err, "Hostname")
	if got := t.launch("report").facts().Hostname; got == host {
		t.Errorf("a sandbox without a hostname of its own has the host's, %q", got)
	}
	for _, bad := range []string{"a b", "a/b", "a\nb", "a\x00b"} {
		spec := t.spec("exit 0")
		spec.Hostname = bad
		t.refused(spec, caisson.ErrInvalid)
	}
}

func chosenUser(t *T) {
	for user, want := range map[string][2]int{"1234:5678": {1234, 5678}, "1000": {1000, 1000}, "65534:65534": {65534, 65534}} {
		spec := t.spec("report ; write /work/f x")
		spec.User = user
		if t.h.HostPaths {
			t.ok(os.Chmod(spec.Work, 0o777), "Chmod")
		}
		// Without root an engine has few users to give.
		b := t.startUnless(spec, caisson.ErrUnsupported, caisson.ErrDenied)
		if b == nil {
			continue
		}
		if f := b.facts(); f.UID != want[0] || f.GID != want[1] {
			t.Errorf("user %q is %d:%d inside", user, f.UID, f.GID)
		}
		t.owned(filepath.Join(spec.Work, "f"))
	}
	for _, user := range []string{
		"-1", "4294967295", "4294967296", "2147483648:2147483648", "99999999999999999999", "1:2:3",
		":", "1:", ":1", "0x0", "1000 ", "nobody-has-this-name", "../x", "a\nb",
	} {
		spec := t.spec("report")
		spec.User = user
		sb, err := t.engine.Create(t.ctx, spec)
		if err == nil {
			t.destroy(sb)
			t.Errorf("user %q was accepted", user)
			continue
		}
		t.kind(err, fmt.Sprintf("Create with user %q", user), caisson.ErrInvalid, caisson.ErrUnsupported, caisson.ErrNotFound, caisson.ErrDenied)
	}
}
