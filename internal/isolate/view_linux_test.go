package isolate_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

// image makes a root file system whose files belong to the sandbox's user 0,
// or without root to the caller.
func image(t *testing.T, dirs ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "rootfs")
	for _, d := range append([]string{"."}, dirs...) {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Everything above must let the sandbox's users pass.
	for up := dir; up != "/"; up = filepath.Dir(up) {
		if info, err := os.Stat(up); err == nil && info.Mode().Perm()&0o005 != 0o005 {
			if err := os.Chmod(up, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	giveTo(t, dir, firstID)
	return dir
}

// giveTo changes the owner of everything below a folder, as root.
func giveTo(t *testing.T, dir string, id int) {
	t.Helper()
	if rootless() {
		return
	}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, id, id)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// names returns what is in a folder, with everything below.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		all = append(all, strings.TrimPrefix(path, dir))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestImage(t *testing.T) {
	dir := image(t, "etc", "home/x", "tmp")
	if err := os.WriteFile(filepath.Join(dir, "etc/hosts"), []byte("of the image"), 0o644); err != nil {
		t.Fatal(err)
	}
	symlink(t, "/run", filepath.Join(dir, "home/run"))
	giveTo(t, dir, firstID)
	spec := baseSpec(t)
	spec.RootFS = dir
	spec.Entries = []isolate.Entry{
		{Path: "/etc/hosts", Contents: []byte("of the sandbox")},
		{Path: "/etc/hostname", Contents: []byte("new"), Mode: 0o600, Owned: true},
	}
	spec.Mounts = append(spec.Mounts, isolate.Mount{Type: isolate.Tmpfs, Target: "/run"},
		isolate.Mount{Type: isolate.Tmpfs, Target: "/home/run/below"})
	box := begin(t, spec)
	out := spawn(t, box, "cat", "/etc/hosts", "/etc/hostname").output(t)
	if out != "/etc/hosts: read \"of the sandbox\"\n/etc/hostname: read \"new\"\n" {
		t.Errorf("files inside: %s", out)
	}
	if r := reportOf(t, box); !strings.Contains(r.Mounts, " /run/below ") {
		t.Errorf("the mount through the image's link is not at /run/below: %s", r.Mounts)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "etc/hosts")); string(data) != "of the image" {
		t.Errorf("the image's file holds %q, %v", data, err)
	}
	root, err := box.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	fd, err := unix.Openat(int(root.Fd()), "home/x", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Errorf("through Root: %v", err)
	}
	unix.Close(fd)
}

func TestImageReadOnly(t *testing.T) {
	spec := baseSpec(t)
	spec.RootFS = image(t, "open")
	giveTo(t, spec.RootFS, firstID+1)
	box := begin(t, spec)
	spawn(t, box, "write", "/open/file").output(t)
	if _, err := os.Stat(filepath.Join(spec.RootFS, "open/file")); err != nil {
		t.Errorf("what was written is not in the folder: %v", err)
	}
	spec.RootReadOnly = true
	box = begin(t, spec)
	r := spawn(t, box, "write", "/open/other")
	if code, _, _ := r.Wait(); code == 0 {
		t.Error("a read-only root was written")
	}
	<-r.read
}

// TestHostileImage has images with links where the sandbox puts things.
func TestHostileImage(t *testing.T) {
	canary := image(t, "canary")
	canary = filepath.Join(canary, "canary")
	giveTo(t, canary, firstID)
	if err := os.Chmod(canary, 0o777); err != nil {
		t.Fatal(err)
	}
	before := names(t, canary)
	link := func(path, target string) func(string) {
		return func(dir string) {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
				t.Fatal(err)
			}
			symlink(t, target, filepath.Join(dir, path))
		}
	}
	up := strings.Repeat("../", 30)
	for name, test := range map[string]struct {
		spoil  func(dir string)
		starts bool
	}{
		"DevAbsolute":  {link("dev", canary), false},
		"DevRelative":  {link("dev", up+canary[1:]), false},
		"DevToProc":    {link("dev", "/proc"), false},
		"DevPts":       {link("dev/pts", canary), true},
		"DevNull":      {link("dev/null", canary), true},
		"DevConsole":   {link("dev/console", "/proc/self/root"), true},
		"Proc":         {link("proc", canary), false},
		"ProcToDot":    {link("proc", "."), false},
		"ProcFile":     {func(dir string) { os.WriteFile(filepath.Join(dir, "proc"), nil, 0o644) }, false},
		"Sys":          {link("sys", "/proc/self"), false},
		"Etc":          {link("etc", canary), false},
		"EtcToSelf":    {link("etc", "etc"), false},
		"EtcToProc":    {link("etc", "/proc/1"), false},
		"Hosts":        {link("etc/hosts", canary+"/hosts"), false},
		"HostsToProc":  {link("etc/hosts", "/proc/self/environ"), false},
		"Tmp":          {link("tmp", canary), false},
		"TmpToProc":    {link("tmp", "/proc"), false},
		"TmpToProcRel": {link("tmp", "x/../proc/self"), false},
		"Bin":          {link("bin", canary), false},
		"TmpInside":    {link("tmp", "/var"), true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := image(t, "x", "var")
			test.spoil(dir)
			giveTo(t, dir, firstID)
			spec := baseSpec(t)
			spec.RootFS = dir
			spec.Entries = []isolate.Entry{{Path: "/etc/hosts", Contents: []byte("inside")}}
			spec.Mounts = append(spec.Mounts, isolate.Mount{Type: isolate.Tmpfs, Target: "/tmp"})
			watch(t)
			box, err := isolate.Start(spec)
			if err == nil {
				defer box.Close()
				if out := spawn(t, box, "cat", "/dev/null", "/proc/keys").output(t); !strings.Contains(out, `/proc/keys: read ""`) && !strings.Contains(out, "no such file") {
					t.Errorf("masks do not work: %s", out)
				}
			}
			if (err == nil) != test.starts {
				t.Errorf("Start = %v, want it to succeed: %v", err, test.starts)
			}
			if after := names(t, canary); !slices.Equal(before, after) {
				t.Errorf("on the host appeared %v", after)
			}
		})
	}
}

// TestHostileWork has a folder of an earlier step with links in it, below
// which something is mounted.
func TestHostileWork(t *testing.T) {
	work := image(t, "real")
	symlink(t, "/etc", filepath.Join(work, "in"))
	symlink(t, "/proc/self/root", filepath.Join(work, "root"))
	for _, target := range []string{"/work/in/x", "/work/in", "/work/root/etc", "/work/real/../../etc"} {
		spec := baseSpec(t)
		spec.Entries = []isolate.Entry{{Path: "/etc", Dir: true}}
		spec.Mounts = append(spec.Mounts, isolate.Mount{Type: isolate.Bind, Source: work, Target: "/work"},
			isolate.Mount{Type: isolate.Tmpfs, Target: target})
		watch(t)
		if box, err := isolate.Start(spec); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("a mount at %s: %v, want ErrInvalid", target, err)
			if err == nil {
				box.Close()
			}
		}
	}
}

func TestEntries(t *testing.T) {
	spec := baseSpec(t)
	spec.Entries = []isolate.Entry{
		{Path: "/etc/passwd", Contents: []byte("x")},
		{Path: "/link", Link: "etc/passwd"},
		{Path: "/dir", Dir: true, Mode: 0o700, Owned: true},
		{Path: "/dir/secret", Contents: []byte("y"), Mode: 0o400, Owned: true},
		{Path: "/dir/theirs", Contents: []byte("y"), Mode: 0o600},
	}
	box := begin(t, spec)
	out := spawn(t, box, "stat", "/etc/passwd", "/link", "/dir", "/dir/secret", "/dir/theirs", "/dev/null", "/dev/fd").output(t)
	want := "/etc/passwd 0:0 100644\n/link 0:0 120777\n/dir 1000:1000 40700\n/dir/secret 1000:1000 100400\n" +
		"/dir/theirs 0:0 100600\n/dev/null 0:0 20666\n/dev/fd 0:0 120777\n"
	if rootless() {
		// There is one id, and /dev's nodes are the host's.
		want = strings.NewReplacer(" 0:0", " 1000:1000", "/dev/null 0:0", "/dev/null 65534:65534").Replace(want)
	}
	if out != want {
		t.Errorf("entries are\n%swant\n%s", out, want)
	}
}

func TestBind(t *testing.T) {
	dir := image(t, "below")
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("data"), 0o644); err != nil {
		t.Fatal(err)
	}
	giveTo(t, dir, firstID+1)
	spec := baseSpec(t)
	spec.Mounts = append(spec.Mounts,
		isolate.Mount{Type: isolate.Bind, Source: dir, Target: "/w"},
		isolate.Mount{Type: isolate.Bind, Source: dir, Target: "/a/b/r", ReadOnly: true},
		isolate.Mount{Type: isolate.Bind, Source: filepath.Join(dir, "file"), Target: "/w/deep/er/f", ReadOnly: true},
		isolate.Mount{Type: isolate.Tmpfs, Target: "/t", Size: caisson.MiB, Mode: 0o700},
	)
	box := begin(t, spec)
	out := spawn(t, box, "cat", "/w/file", "/a/b/r/file", "/w/deep/er/f").output(t)
	if strings.Count(out, `read "data"`) != 3 {
		t.Errorf("files in binds: %s", out)
	}
	spawn(t, box, "write", "/w/new").output(t)
	spawn(t, box, "write", "/t/new").output(t)
	for _, name := range []string{"/a/b/r/new", "/a/b/r/file", "/w/deep/er/f"} {
		r := spawn(t, box, "write", name)
		code, _, _ := r.Wait()
		<-r.read
		if code == 0 || !strings.Contains(r.err.String(), "read-only file system") {
			t.Errorf("%s: code %d, %s, want it to be read-only", name, code, r.err)
		}
	}
	if out := spawn(t, box, "stat", "/t").output(t); out != "/t 1000:1000 40700\n" {
		t.Errorf("the tmpfs is %s", out)
	}
	// Targets made in the user's folder are the user's.
	if out := spawn(t, box, "stat", "/w/deep").output(t); out != "/w/deep 1000:1000 40755\n" {
		t.Errorf("the target is %s", out)
	}
}

func TestReadOnlyStays(t *testing.T) {
	dir := image(t, "x")
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, uid := range map[string]int{"User": 1000, "Root": 0} {
		for _, nested := range []bool{false, true} {
			t.Run(fmt.Sprint(name, nested), func(t *testing.T) {
				if uid == 0 {
					needRoot(t)
				}
				spec := baseSpec(t)
				spec.Seccomp, spec.Nested = false, nested
				spec.User = &isolate.User{UID: uid, GID: uid}
				spec.Mounts = append(spec.Mounts, isolate.Mount{Type: isolate.Bind, Source: dir, Target: "/r", ReadOnly: true})
				args := []string{"remount", "/r"}
				if nested {
					args = append(args, "nested")
				}
				out := spawn(t, begin(t, spec), args...).output(t)
				if n := strings.Count(out, ": "); strings.Contains(out, "<nil>") || n < 4 {
					t.Errorf("tries to write to a read-only bind: %s", out)
				}
				if _, err := os.Lstat(filepath.Join(dir, "written")); err == nil {
					t.Error("it was written")
				}
			})
		}
	}
}

func TestOwner(t *testing.T) {
	needRoot(t)
	for name, test := range map[string]struct {
		user  isolate.User
		owner isolate.User
	}{
		"Same":      {isolate.User{UID: 1000, GID: 1000}, isolate.User{UID: 1000, GID: 1000}},
		"Other":     {isolate.User{UID: 1000, GID: 1000}, isolate.User{UID: 4321, GID: 8765}},
		"Root":      {isolate.User{}, isolate.User{UID: 1000, GID: 1000}},
		"RootOwner": {isolate.User{UID: 1000, GID: 1000}, isolate.User{}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := image(t, "sub")
			if err := isolate.CheckIdmap(dir); err != nil {
				t.Fatalf("CheckIdmap = %v", err)
			}
			giveTo(t, dir, 5)
			if err := os.Chown(dir, test.owner.UID, test.owner.GID); err != nil {
				t.Fatal(err)
			}
			spec := baseSpec(t)
			spec.User = &test.user
			spec.Mounts = append(spec.Mounts,
				isolate.Mount{Type: isolate.Bind, Source: dir, Target: "/work", Owner: &test.owner},
				isolate.Mount{Type: isolate.Tmpfs, Target: "/work/made"})
			box := begin(t, spec)
			out := spawn(t, box, "write", "/work/new").output(t)
			if want := fmt.Sprintf("/work/new %d:%d 100644\n", test.user.UID, test.user.GID); out != want {
				t.Errorf("inside: %q, want %q", out, want)
			}
			out = spawn(t, box, "stat", "/work", "/work/sub").output(t)
			if want := fmt.Sprintf("/work %d:%d 40755\n/work/sub 65534:65534 40755\n", test.user.UID, test.user.GID); out != want {
				t.Errorf("inside: %q, want %q", out, want)
			}
			for _, made := range []string{"new", "made"} {
				var stat unix.Stat_t
				if err := unix.Stat(filepath.Join(dir, made), &stat); err != nil {
					t.Fatal(err)
				}
				if int(stat.Uid) != test.owner.UID || int(stat.Gid) != test.owner.GID {
					t.Errorf("on disk %s belongs to %d:%d, want %d:%d", made, stat.Uid, stat.Gid, test.owner.UID, test.owner.GID)
				}
			}
		})
	}
}

func TestNoIdmap(t *testing.T) {
	needRoot(t)
	if err := isolate.CheckIdmap("/proc"); !errors.Is(err, isolate.ErrNoIdmap) {
		t.Errorf("CheckIdmap(/proc) = %v, want ErrNoIdmap", err)
	}
	if err := isolate.CheckIdmap("/no/such"); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("CheckIdmap = %v, want ErrNotFound", err)
	}
	watch(t)
	spec := baseSpec(t)
	spec.Mounts = append(spec.Mounts, isolate.Mount{Type: isolate.Bind, Source: "/proc/sys", Target: "/x", Owner: &isolate.User{}})
	if _, err := isolate.Start(spec); !errors.Is(err, isolate.ErrNoIdmap) {
		t.Errorf("Start = %v, want ErrNoIdmap", err)
	}
}

func TestDevices(t *testing.T) {
	needRoot(t)
	spec := baseSpec(t)
	spec.Devices = []isolate.Device{
		{Source: "/dev/zero", Target: "/dev/mine"},
		{Source: "/dev/null", Target: "/dev/theirs", ReadOnly: true},
	}
	spec.Cgroup = &isolate.Cgroup{Name: fmt.Sprintf("isolate-test-%d", os.Getpid())}
	box := begin(t, spec)
	out := spawn(t, box, "stat", "/dev/mine", "/dev/theirs").output(t)
	if out != "/dev/mine 1000:1000 20600\n/dev/theirs 1000:1000 20400\n" {
		t.Errorf("devices: %s", out)
	}
	spawn(t, box, "write", "/dev/mine").output(t)
	spawn(t, box, "write", "/dev/null").output(t)
	for _, d := range []isolate.Device{
		{Source: "/dev/null", Target: "/etc/null"},
		{Source: "/dev/null", Target: "/dev/../x"},
		{Source: "/etc/passwd", Target: "/dev/x"},
		{Source: "/dev/nosuch", Target: "/dev/x"},
	} {
		spec.Devices = []isolate.Device{d}
		if box, err := isolate.Start(spec); err == nil {
			box.Close()
			t.Errorf("the device %+v was accepted", d)
		}
	}
}

// TestDeviceRules has a program that file permissions do not keep from a device.
func TestDeviceRules(t *testing.T) {
	needRoot(t)
	spec := baseSpec(t)
	spec.User, spec.Caps = &isolate.User{}, []int{unix.CAP_DAC_OVERRIDE}
	spec.Devices = []isolate.Device{{Source: "/dev/kmsg", Target: "/dev/theirs"}}
	if _, err := isolate.Start(spec); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Start without a control group = %v, want ErrUnsupported", err)
	}
	spec.Cgroup = &isolate.Cgroup{Name: fmt.Sprintf("isolate-test-%d", os.Getpid())}
	for _, readOnly := range []bool{false, true} {
		spec.Devices[0].ReadOnly = readOnly
		box := begin(t, spec)
		spawn(t, box, "write", "/dev/null").output(t)
		r := spawn(t, box, "write", "/dev/theirs")
		if code, _, _ := r.Wait(); code == 0 == readOnly {
			t.Errorf("writing to a device, read-only %v: status %d", readOnly, code)
		}
		<-r.read
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestDeviceNodes has a node in an image, which must not work.
func TestDeviceNodes(t *testing.T) {
	needRoot(t)
	spec := baseSpec(t)
	spec.RootFS = image(t)
	if err := unix.Mknod(filepath.Join(spec.RootFS, "zero"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
		t.Fatal(err)
	}
	giveTo(t, spec.RootFS, firstID+1)
	out := spawn(t, begin(t, spec), "cat", "/zero").output(t)
	if !strings.Contains(out, "permission denied") {
		t.Errorf("a device node of the image: %.200s", out)
	}
}

func TestMasks(t *testing.T) {
	spec := baseSpec(t)
	spec.Sys = true
	spec.Masked = []string{"/sys/kernel", "/proc/cpuinfo", "/proc/no/such"}
	spec.ReadOnlyPaths = []string{"/dev/shm"}
	box := begin(t, spec)
	out := spawn(t, box, "cat", "/proc/cpuinfo", "/sys/kernel/uevent_seqnum", "/sys/class/net/lo/operstate").output(t)
	if !strings.Contains(out, `/proc/cpuinfo: read ""`) || !strings.Contains(out, "/sys/kernel/uevent_seqnum: no such") &&
		!strings.Contains(out, "/sys/kernel/uevent_seqnum: open") || !strings.Contains(out, "operstate: read") {
		t.Errorf("masked: %s", out)
	}
	r := spawn(t, box, "write", "/dev/shm/x")
	if code, _, _ := r.Wait(); code == 0 {
		t.Error("a read-only path was written")
	}
	<-r.read
}

func TestNested(t *testing.T) {
	// A box in a box in which everything is permitted but what it is for.
	needRoot(t)
	spec := baseSpec(t)
	spec.Seccomp, spec.Nested = false, true
	spec.User = &isolate.User{}
	spec.UIDs = []isolate.IDMap{{Inside: 0, Host: firstID, Size: 10}}
	spec.GIDs = spec.UIDs
	box := begin(t, spec)
	r := spawn(t, box, "unshare")
	if code, _, _ := r.Wait(); code != 0 {
		t.Errorf("a namespace inside: code %d", code)
	}
	<-r.read
}

// TestCopyOfProgram runs init from memory, as where its own file can't be
// executed by the sandbox's ids.
func TestCopyOfProgram(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "parent")
	data, err := os.ReadFile(inside(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o700); err != nil {
		t.Fatal(err)
	}
	out := runParent(t, path)
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", out)); err != nil || !strings.HasPrefix(exe, "/memfd:") && exe != "/dev/init" {
		t.Errorf("init runs from %q, %v", exe, err)
	}
}

// runParent starts a binary as the holder of a box until the test ends, and
// returns the pid of init.
func runParent(t *testing.T, path string) int {
	t.Helper()
	r, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	proc, err := os.StartProcess(path, []string{path, "parent", "sandbox", inside(t)}, &os.ProcAttr{Files: []*os.File{r, write, os.Stderr}})
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		proc.Kill()
		proc.Wait()
	})
	var init, program int
	if _, err := fmt.Fscanln(read, &init, &program); err != nil {
		t.Fatalf("the parent said nothing: %v", err)
	}
	return init
}

func TestSpecJSON(t *testing.T) {
	want := baseSpec(t)
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got isolate.Spec
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(&got)
	if err != nil || string(again) != string(data) {
		t.Errorf("a spec that went through JSON is %s, %v, want %s", again, err, data)
	}
	if got.UIDs[0].Host != want.UIDs[0].Host || strconv.Itoa(got.User.UID) != "1000" {
		t.Errorf("got %+v", got)
	}
}
