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
			body: attacked("isolation/host-files"),
		},
		{
			Name: "isolation/root-view", Rules: []int{126}, Attacks: []int{1, 11}, Needs: []string{isolation(engine.IsolatedRoot)},
			Rule: "homes, state and sockets of the host are not in the root",
			body: attacked("isolation/root-view"),
		},
		{
			Name: "isolation/processes", Rules: []int{126}, Attacks: []int{1}, Needs: []string{isolation(engine.InvisibleHostProc)},
			Rule: "no process of the host or of another sandbox can be seen",
			body: attacked("isolation/processes"),
		},
		{
			Name: "isolation/namespaces", Rules: []int{127}, Attacks: []int{16},
			Rule: "the namespaces that are declared are not the host's, and no two sandboxes share one",
			body: isolatedNamespaces,
		},
		{
			Name: "isolation/supervisor", Rules: []int{127}, Attacks: []int{7}, Needs: []string{isolation(engine.IsolatedPIDs)},
			Rule: "the program can't end, trace or read what supervises it",
			body: attacked("isolation/supervisor"),
		},
		{
			Name: "isolation/user", Rules: []int{126, 127}, Attacks: []int{8}, Needs: []string{isolation(engine.NoCapabilities)},
			Rule: "the program is not root, has no groups of the host's and no capabilities in any set",
			body: attacked("isolation/user"),
		},
		{
			Name: "isolation/no-new-privileges", Rules: []int{127}, Attacks: []int{8}, Needs: []string{isolation(engine.NoNewPrivileges)},
			Rule: "the program has no_new_privs",
			body: attacked("isolation/no-new-privileges"),
		},
		{
			Name: "isolation/set-id", Rules: []int{127}, Attacks: []int{8}, wants: []facility{command, root},
			Needs: []string{isolation(engine.NoNewPrivileges), "share_work"},
			Rule:  "a program with set-id bits that belongs to root gains nothing",
			body:  attacked("isolation/set-id"),
		},
		{
			Name: "isolation/capabilities", Rules: []int{127}, Attacks: []int{4, 7, 9, 10}, Needs: []string{isolation(engine.NoCapabilities)},
			Rule: "what needs a capability is denied: mounts, devices, raw sockets, the clock, kernel settings",
			body: attacked("isolation/capabilities"),
		},
		{
			Name: "isolation/system-calls", Rules: []int{127}, Attacks: []int{7, 10}, Needs: []string{isolation(engine.FilteredSyscalls)},
			Rule: "a filter of system calls is in place, and denies those that have opened sandboxes",
			body: attacked("isolation/system-calls"),
		},
		{
			Name: "isolation/kernel-files", Rules: []int{127, 130}, Attacks: []int{4, 9}, Needs: []string{isolation(engine.IsolatedRoot)},
			Rule: "the kernel's settings and the host's devices can't be opened",
			body: attacked("isolation/kernel-files"),
		},
		{
			Name: "isolation/other-sandbox", Rules: []int{126}, Attacks: []int{37, 40}, Needs: []string{"command", isolation(engine.InvisibleHostProc)},
			Rule: "a sandbox sees nothing of another's work folder, /tmp, environment and processes",
			body: attacked("isolation/other-sandbox"),
		},
		{
			Name: "isolation/user-ids", Rules: []int{129}, Needs: []string{"command", isolation(engine.IsolatedUserID)},
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
		if a == "" && b == "" && slices.Contains(t.features.Isolation, engine.SeparateKernel) {
			continue // it has no name for what it does not share
		}
		if a == "" || a == host || b == host {
			t.Errorf("%s: the host's is %s, the sandboxes' are %s and %s", word, host, a, b)
		}
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
