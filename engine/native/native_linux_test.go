package native_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest"
	"github.com/caissonrun/caisson/engine/native"
	"github.com/caissonrun/caisson/internal/cgroup"
	"github.com/caissonrun/caisson/keeper"
)

// needRoot skips what only root can do.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// TestOrdinaryUser runs this package's tests again as a user without rights, in
// short.
func TestOrdinaryUser(t *testing.T) {
	needRoot(t)
	const nobody = 65534
	base, err := os.MkdirTemp("", "native-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	program, home := filepath.Join(base, "native.test"), filepath.Join(base, "home")
	inside := enginetest.BuildInside(t)
	for name, from := range map[string]string{program: "/proc/self/exe", filepath.Join(base, "inside"): inside} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(name, data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.Chmod(base, 0o755), os.Mkdir(home, 0o700), os.Chown(home, nobody, nobody),
		os.CopyFS(filepath.Join(base, "testdata"), os.DirFS(filepath.Join(here, "testdata"))))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.v=" + fmt.Sprint(testing.Verbose()), "-test.timeout=10m"}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = base
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home,
		keeperPath + "=" + theKeeper[0], insidePath + "=" + filepath.Join(base, "inside"),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNothingOfTheHost(t *testing.T) {
	exit, out := run(t, newEngine(t, native.Options{}), newSpec(t, `
		id -u; id -un; ls /; ls -d /home /root /var /sys 2>&1 | grep -c 'No such file'
		cat /proc/1/comm; ls /proc | grep -c '^[0-9]'; cat /etc/hostname; ls /sys/class/net 2>/dev/null; cat /proc/net/dev | grep -c :
		ls /proc/self/fd | wc -l; grep -c . /etc/passwd; hostname; umask; env | sort | cut -d= -f1 | tr '\n' ' '`))
	if exit.Status() != 0 {
		t.Fatalf("exit %+v: %s", exit, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	want := []string{"1000", "caisson"}
	if len(lines) < 10 || lines[0] != want[0] || lines[1] != want[1] {
		t.Fatalf("output %q", out)
	}
	rest := strings.Join(lines[2:], " ")
	for _, dir := range []string{"home", "root", "var", "sys", "opt", "srv", "mnt", "media", "boot"} {
		if strings.Contains(" "+rest+" ", " "+dir+" ") {
			t.Errorf("/%s is in the root view: %s", dir, rest)
		}
	}
	// Four missing folders; init and its name; one network device; descriptors
	// 0 to 2 and the one that ls has open; the environment.
	for _, part := range []string{" 4 sandbox-init ", " caisson 1 4 3 caisson 0022 ", " CAISSON_WORK HOME PATH "} {
		if !strings.Contains(rest, part) {
			t.Errorf("%q is not in %s", part, rest)
		}
	}
}

// TestOwnIDs holds that two sandboxes have different ids on the host, and that
// what they write belongs to the work folder's owner.
func TestOwnIDs(t *testing.T) {
	needRoot(t)
	e := newEngine(t, native.Options{})
	seen := map[uint32]bool{}
	var live []engine.Sandbox
	var specs []*engine.Spec
	for range 2 {
		s := newSpec(t, "echo x >made; mkdir dir; ln -s made link; exec sleep 1000")
		box := create(t, e, s)
		start(t, box)
		eventually(t, "the files are there", func() bool {
			_, err := os.Lstat(filepath.Join(s.Work, "link"))
			return err == nil
		})
		live = append(live, box)
		specs = append(specs, s)
		uid, _ := owner(t, fmt.Sprintf("/proc/%d", mainPID(t, s)))
		if uid < native.DefaultIDBase || uid >= native.DefaultIDBase+native.DefaultIDCount || seen[uid] {
			t.Errorf("the program runs as user %d of the host; before %v", uid, seen)
		}
		seen[uid] = true
	}
	for i, s := range specs {
		if err := live[i].Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"made", "dir", "link"} {
			if uid, gid := owner(t, filepath.Join(s.Work, name)); uid != 1000 || gid != 1000 {
				t.Errorf("%s belongs to %d:%d, want 1000:1000", name, uid, gid)
			}
		}
	}
}

func owner(t *testing.T, path string) (uid, gid uint32) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return st.Uid, st.Gid
}

func mainPID(t *testing.T, s *engine.Spec) int {
	t.Helper()
	client, err := keeper.Dial(t.Context(), s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	status, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return status.MainPID
}

// TestNoIdmap uses a file system that has no idmapped mounts.
func TestNoIdmap(t *testing.T) {
	needRoot(t)
	e := newEngine(t, native.Options{})
	s := newSpec(t, "stat -c %u:%g in && echo x >>in && echo y >out && mkdir dir && ln in twin")
	if err := unix.Mount("ramfs", s.Work, "ramfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(s.Work, unix.MNT_DETACH) })
	in := filepath.Join(s.Work, "in")
	err := errors.Join(os.WriteFile(in, nil, 0o644), os.Chown(in, 1000, 1000), os.Chown(s.Work, 1000, 1000))
	if err != nil {
		t.Fatal(err)
	}
	box := create(t, e, s)
	exit := wait(t, start(t, box))
	if out := output(t, s); exit.Status() != 0 || out != "1000:1000\n" {
		t.Errorf("exit %+v, output %q", exit, out)
	}
	if err := box.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"in", "out", "dir", "twin"} {
		if uid, gid := owner(t, filepath.Join(s.Work, name)); uid != 1000 || gid != 1000 {
			t.Errorf("%s belongs to %d:%d, want 1000:1000", name, uid, gid)
		}
	}
}

func TestRecover(t *testing.T) {
	runtime := filepath.Join(t.TempDir(), "run")
	s := newSpec(t, "echo one; sleep 1; exit 7")
	start(t, create(t, newEngine(t, native.Options{Runtime: runtime}), s))
	later := newEngine(t, native.Options{Runtime: runtime})
	box, err := later.Recover(t.Context(), s.Dir)
	if err != nil || box.ID() != s.ID {
		t.Fatalf("Recover = %v, %v", box, err)
	}
	if running, err := later.Running(s.Dir); err != nil || !running {
		t.Errorf("Running = %v, %v, want true", running, err)
	}
	p, err := box.Process(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, p); exit.Reason != caisson.ReasonExited || exit.Code != 7 {
		t.Errorf("exit %+v, want code 7", exit)
	}
	if running, err := later.Running(s.Dir); err != nil || running {
		t.Errorf("Running = %v, %v, want false", running, err)
	}
	for range 2 {
		if err := box.Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if exit := wait(t, p); exit.Code != 7 {
		t.Errorf("after Destroy: %+v, want code 7", exit)
	}
	noTrace(t, runtime, s)
	if _, err := later.Recover(t.Context(), s.Dir); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Recover after Destroy = %v, want ErrNotFound", err)
	}
}

func TestKeeperKilled(t *testing.T) {
	for _, isolation := range []string{native.Full, native.None} {
		t.Run(isolation, func(t *testing.T) {
			runtime := filepath.Join(t.TempDir(), "run")
			e := newEngine(t, native.Options{Runtime: runtime, Isolation: isolation})
			s := newSpec(t, "setsid sleep 1000 & sleep 1000")
			box := create(t, e, s)
			p := start(t, box)
			pid := mainPID(t, s)
			lose(t, s)
			if exit := wait(t, p); exit.Reason != caisson.ReasonLost {
				t.Errorf("exit %+v, want lost", exit)
			}
			eventually(t, "the program is gone", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
			if err := p.Signal(t.Context(), 15); !errors.Is(err, caisson.ErrEnded) {
				t.Errorf("Signal = %v, want ErrEnded", err)
			}
			again, err := e.Recover(t.Context(), s.Dir)
			if err != nil {
				t.Fatal(err)
			}
			if p, err := again.Process(t.Context()); err != nil || wait(t, p).Reason != caisson.ReasonLost {
				t.Errorf("recovered: %v, %v, want lost", p, err)
			}
			if err := again.Destroy(t.Context()); err != nil {
				t.Fatal(err)
			}
			noTrace(t, runtime, s)
		})
	}
}

func TestSweep(t *testing.T) {
	runtime := filepath.Join(t.TempDir(), "run")
	one := newEngine(t, native.Options{Runtime: runtime, Installation: "one"})
	two := newEngine(t, native.Options{Runtime: runtime, Installation: "two"})
	kept, orphan, foreign, torn := newSpec(t, "sleep 1000"), newSpec(t, "sleep 1000"), newSpec(t, "sleep 1000"), newSpec(t, "sleep 1000")
	start(t, create(t, one, kept))
	start(t, create(t, one, orphan))
	start(t, create(t, two, foreign))
	create(t, one, torn)
	pid := mainPID(t, orphan)
	// Of one sandbox there is nothing but what lies outside of its folder.
	lose(t, torn)
	if err := os.RemoveAll(torn.Dir); err != nil {
		t.Fatal(err)
	}
	removed, err := one.Sweep(t.Context(), []string{kept.ID})
	slices.Sort(removed)
	want := []string{orphan.ID, torn.ID}
	slices.Sort(want)
	if err != nil || !slices.Equal(removed, want) {
		t.Errorf("Sweep = %q, %v, want %q", removed, err, want)
	}
	eventually(t, "the orphan is gone", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
	for _, s := range []*engine.Spec{kept, foreign} {
		if unix.Kill(mainPID(t, s), 0) != nil {
			t.Errorf("%s is gone, too", s.ID)
		}
	}
	names, err := cgroup.List("caisson-one-" + torn.ID)
	if err != nil || len(names) > 0 {
		t.Errorf("groups %q are left, %v", names, err)
	}
	if removed, err := one.Sweep(t.Context(), []string{kept.ID}); err != nil || len(removed) > 0 {
		t.Errorf("second Sweep = %q, %v", removed, err)
	}
}

// TestSweepLeavesProbes sweeps as fast as it can while another process probes.
func TestSweepLeavesProbes(t *testing.T) {
	runtime := filepath.Join(t.TempDir(), "run")
	prober, sweeper := newEngine(t, native.Options{Runtime: runtime}), newEngine(t, native.Options{Runtime: runtime})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 5 {
			if f, err := prober.Probe(t.Context()); err != nil || !f.Usable {
				t.Errorf("Probe = %+v, %v", f.Missing, err)
			}
		}
	}()
	for {
		select {
		case <-done:
			return
		default:
		}
		if removed, err := sweeper.Sweep(t.Context(), nil); err != nil || len(removed) > 0 {
			t.Errorf("Sweep = %q, %v", removed, err)
		}
	}
}

// TestSweepOfAProbe removes what a probe has left that was killed.
func TestSweepOfAProbe(t *testing.T) {
	runtime := filepath.Join(t.TempDir(), "run")
	e := newEngine(t, native.Options{Runtime: runtime})
	s := newSpec(t, "sleep 1000")
	s.ID = "probe-1"
	s.Dir = filepath.Join(runtime, s.ID)
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, create(t, e, s))
	if removed, err := e.Sweep(t.Context(), nil); err != nil || !slices.Equal(removed, []string{s.ID}) {
		t.Errorf("Sweep = %q, %v", removed, err)
	}
	if entries, err := os.ReadDir(runtime); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestCreateFails(t *testing.T) {
	runtime := filepath.Join(t.TempDir(), "run")
	e := newEngine(t, native.Options{Runtime: runtime})
	t.Run("Mount", func(t *testing.T) {
		s := newSpec(t, "true")
		s.Mounts = []engine.Mount{{Type: engine.MountBind, Source: "/does/not/exist", Target: "/x"}}
		if _, err := e.Create(t.Context(), s); !errors.Is(err, caisson.ErrNotFound) || !strings.Contains(err.Error(), "/does/not/exist") {
			t.Errorf("Create = %v, want ErrNotFound", err)
		}
		noTrace(t, runtime, s)
	})
	t.Run("Cancelled", func(t *testing.T) {
		s := newSpec(t, "true")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := e.Create(ctx, s); !errors.Is(err, context.Canceled) {
			t.Errorf("Create = %v, want Canceled", err)
		}
		noTrace(t, runtime, s)
	})
	t.Run("ErrExists", func(t *testing.T) {
		s := newSpec(t, "true")
		create(t, e, s)
		twin := newSpec(t, "true")
		twin.ID = s.ID
		if _, err := e.Create(t.Context(), twin); !errors.Is(err, caisson.ErrExists) {
			t.Errorf("Create = %v, want ErrExists", err)
		}
		if _, err := keeper.Dial(t.Context(), s.Dir); err != nil {
			t.Errorf("the first one is gone: %v", err)
		}
	})
	t.Run("IDs", func(t *testing.T) {
		needRoot(t)
		few := newEngine(t, native.Options{IDCount: 3})
		create(t, few, newSpec(t, "true"))
		if _, err := few.Create(t.Context(), newSpec(t, "true")); !errors.Is(err, caisson.ErrExhausted) {
			t.Errorf("Create = %v, want ErrExhausted", err)
		}
	})
}

func TestSecrets(t *testing.T) {
	s := newSpec(t, `stat -c %a:%U /run/secrets/key; cat /run/secrets/key; echo; echo "$TOKEN" | rev; rm -f /run/secrets/key 2>/dev/null || echo kept; mkdir /run/x 2>/dev/null || echo readonly`)
	s.Secrets = []engine.Secret{
		{Name: "TOKEN", Value: []byte("from-the-environment"), As: caisson.SecretEnv},
		{Name: "key", Value: []byte("from-the-file"), As: caisson.SecretFile},
	}
	exit, out := run(t, newEngine(t, native.Options{}), s)
	want := "400:caisson\n[redacted]\ntnemnorivne-eht-morf\nkept\nreadonly\n"
	if exit.Status() != 0 || out != want {
		t.Errorf("exit %+v, output %q, want %q", exit, out, want)
	}
}

// TestSecretOnce also has many readers at once, of whom one gets the value.
func TestSecretOnce(t *testing.T) {
	e := newEngine(t, native.Options{})
	s := newSpec(t, `for i in 1 2 3 4 5 6 7 8 9; do (timeout 5 cat /run/secrets/key 2>/dev/null | wc -c) & done; wait
		cat /run/secrets/key 2>/dev/null || echo gone; cat /run/secrets/second | rev; ls /run/once | wc -l`)
	s.Secrets = []engine.Secret{
		{Name: "key", Value: bytes.Repeat([]byte("0123456789"), 5_000), As: caisson.SecretFile, Once: true},
		{Name: "second", Value: []byte("another-one"), As: caisson.SecretFile, Once: true},
		{Name: "never", Value: []byte("not-read-at-all"), As: caisson.SecretFile, Once: true},
	}
	exit, out := run(t, e, s)
	total, rest := 0, ""
	for line := range strings.Lines(out) {
		var n int
		if _, err := fmt.Sscanf(line, "%d\n", &n); err == nil && rest == "" {
			total += n
			continue
		}
		rest += line
	}
	if exit.Status() != 0 || total != 50_000 || rest != "gone\neno-rehtona1\n" {
		t.Errorf("exit %+v, %d bytes were read, then %q", exit, total, rest)
	}
}

func TestExec(t *testing.T) {
	e := newEngine(t, native.Options{})
	s := newSpec(t, "sleep 1000")
	s.Env = map[string]string{"A": "main", "B": "main"}
	s.Secrets = []engine.Secret{{Name: "TOKEN", Value: []byte("known-to-both"), As: caisson.SecretEnv}}
	box := create(t, e, s)
	start(t, box)
	session, err := box.(engine.Execer).Exec(t.Context(), &engine.ExecSpec{Env: map[string]string{"B": "exec"}})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	// The default shell reads what it is to do.
	io.WriteString(session.Stdin(), "echo $A $B ${#TOKEN} $(pwd) $(id -u); exit 5\n")
	session.Stdin().Close()
	out, err := io.ReadAll(session.Stdout())
	if err != nil || string(out) != "main exec 13 /work 1000\n" {
		t.Errorf("output %q, %v", out, err)
	}
	if exit, err := session.Wait(t.Context()); err != nil || exit.Code != 5 {
		t.Errorf("exit %+v, %v, want 5", exit, err)
	}
}

func TestFiles(t *testing.T) {
	e := newEngine(t, native.Options{})
	s := newSpec(t, "mkdir -p real/deep; echo inside >real/deep/f; ln -s /work/real link; ln -s ../../../../../etc/shadow out; echo ready; sleep 1000")
	box := create(t, e, s)
	start(t, box)
	eventually(t, "the files are there", func() bool { return strings.Contains(output(t, s), "ready") })
	files, err := box.(engine.Filer).FS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if data, err := fs.ReadFile(files, "work/link/deep/f"); err != nil || string(data) != "inside\n" {
		t.Errorf("ReadFile = %q, %v", data, err)
	}
	if _, err := fs.ReadFile(files, "work/out"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link to the host's files = %v, want ErrNotExist", err)
	}
	if data, err := fs.ReadFile(files, "etc/hostname"); err != nil || string(data) != "caisson\n" {
		t.Errorf("/etc/hostname = %q, %v", data, err)
	}
	var archive bytes.Buffer
	if err := box.(engine.Filer).Tar(t.Context(), "/work/link/deep", &archive); err != nil {
		t.Fatal(err)
	}
	if names := namesIn(t, &archive); names != "deep deep/f" {
		t.Errorf("archive has %q", names)
	}
	if err := box.(engine.Filer).Tar(t.Context(), "work/absent", io.Discard); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Tar = %v, want ErrNotFound", err)
	}
}

func namesIn(t *testing.T, r io.Reader) string {
	t.Helper()
	var names []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return strings.Join(names, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, strings.TrimSuffix(h.Name, "/"))
	}
}

// TestPut holds that files put into a sandbox belong to its user.
func TestPut(t *testing.T) {
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	for _, name := range []string{"dir/", "dir/f"} {
		h := &tar.Header{Name: name, Mode: 0o700, Size: 1, Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Size, h.Typeflag = 0, tar.TypeDir
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		tw.Write([]byte("x")[:h.Size])
	}
	tw.Close()
	s := newSpec(t, "stat -c %n:%U dir dir/f /tmp/dir/f; cat dir/f; rm -r dir")
	box := create(t, newEngine(t, native.Options{}), s)
	for _, dir := range []string{"work", "/tmp"} {
		if err := box.(engine.Filer).Put(t.Context(), dir, bytes.NewReader(archive.Bytes())); err != nil {
			t.Fatal(err)
		}
	}
	if err := box.(engine.Filer).Put(t.Context(), "usr", bytes.NewReader(archive.Bytes())); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("Put into /usr = %v, want ErrDenied", err)
	}
	exit := wait(t, start(t, box))
	if out := output(t, s); exit.Status() != 0 || out != "dir:caisson\ndir/f:caisson\n/tmp/dir/f:caisson\nx" {
		t.Errorf("exit %+v, output %q", exit, out)
	}
}

func TestUserAndGroup(t *testing.T) {
	needRoot(t)
	s := newSpec(t, "id -u; id -g; id -G")
	s.User, s.Group = "77:88", "99"
	if exit, out := run(t, newEngine(t, native.Options{}), s); exit.Status() != 0 || out != "77\n88\n88 99\n" {
		t.Errorf("exit %+v, output %q", exit, out)
	}
	s = newSpec(t, "id -u; touch made; chmod 4755 made; mount -t tmpfs x /tmp 2>/dev/null || echo refused; chown 5 made 2>/dev/null || echo refused")
	s.User = "root"
	if exit, out := run(t, newEngine(t, native.Options{}), s); exit.Status() != 0 || out != "0\nrefused\nrefused\n" {
		t.Errorf("exit %+v, output %q", exit, out)
	}
}
