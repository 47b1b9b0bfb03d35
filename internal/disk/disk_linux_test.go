package disk

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// needRoot skips what only root can do.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// folder makes an empty folder with an owner of its own.
func folder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "with space")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o751)); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 1000, 1001); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func nothing(Place) error { return nil }

// fill writes to a file in dir until it is full, and returns how much went in.
// It is called on other goroutines than the test's.
func fill(t *testing.T, dir string, atMost caisson.Bytes) caisson.Bytes {
	f, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Error(err)
		return 0
	}
	defer f.Close()
	var written caisson.Bytes
	for chunk := make([]byte, 64<<10); written < atMost; {
		n, err := f.Write(chunk)
		written += caisson.Bytes(n)
		if err != nil {
			if !isFull(err) {
				t.Error(err)
			}
			return written
		}
	}
	t.Errorf("%s were written and it is not full", written)
	return written
}

// check makes sure that a bounded folder is what it should be.
func check(t *testing.T, dir string, size caisson.Bytes) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("ReadDir = %v, %v, want empty", entries, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if info.Mode().Perm() != 0o751 || st.Uid != 1000 || st.Gid != 1001 {
		t.Errorf("folder is %v of %d:%d, want 0751 of 1000:1001", info.Mode(), st.Uid, st.Gid)
	}
	var got caisson.Bytes
	unprivileged(func() error { got = fill(t, dir, 4*size); return nil })
	if got > size || got < size*3/4 {
		t.Errorf("%s went in, want nearly %s", got, size)
	}
	if err := os.Remove(filepath.Join(dir, "fill")); err != nil {
		t.Fatal(err)
	}
}

func TestCreate(t *testing.T) {
	needRoot(t)
	ctx := t.Context()
	for _, size := range []caisson.Bytes{caisson.MiB, 20 * caisson.MiB} {
		t.Run(size.String(), func(t *testing.T) {
			dir := folder(t)
			var saved Place
			place, err := Create(ctx, dir, size, func(p Place) error { saved = p; return nil })
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { Remove(context.Background(), place) })
			if saved != *place {
				t.Errorf("saved %+v, returned %+v", saved, *place)
			}
			check(t, dir, size)
			for range 2 {
				if err := Remove(ctx, &saved); err != nil {
					t.Errorf("Remove = %v", err)
				}
			}
			noTrace(t, dir)
		})
	}
}

// noTrace makes sure that only dir itself is left.
func noTrace(t *testing.T, dir string) {
	t.Helper()
	if list, err := mountsAt(dir); err != nil || len(list) > 0 {
		t.Errorf("mounts on %s: %v, %v", dir, list, err)
	}
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside %s: %v, %v", dir, entries, err)
	}
	// A mount namespace that another process made meanwhile holds the device
	// until that process has let go of its copy of the mounts.
	var left []string
	for range 500 {
		if left = loopsOf(t, dir); len(left) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("loop devices still have %q", left)
}

// loopsOf returns the files below dir that are behind loop devices.
func loopsOf(t *testing.T, dir string) (files []string) {
	t.Helper()
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range loops {
		if file, _ := os.ReadFile(name); strings.Contains(string(file), dir) {
			files = append(files, string(file))
		}
	}
	return files
}

func TestCreateErrors(t *testing.T) {
	ctx := t.Context()
	t.Run("NotEmpty", func(t *testing.T) {
		dir := folder(t)
		if err := os.Mkdir(filepath.Join(dir, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(ctx, dir, caisson.MiB, nothing); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Create = %v, want ErrInvalid", err)
		}
	})
	t.Run("Absent", func(t *testing.T) {
		if _, err := Create(ctx, filepath.Join(t.TempDir(), "x"), caisson.MiB, nothing); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("Create = %v, want ErrNotFound", err)
		}
	})
	t.Run("Unsupported", func(t *testing.T) {
		if os.Geteuid() == 0 {
			return // root can
		}
		dir := folder(t)
		_, err := Create(ctx, dir, caisson.MiB, nothing)
		if !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), "loop") {
			t.Errorf("Create = %v, want ErrUnsupported with reasons", err)
		}
		noTrace(t, dir)
	})
	t.Run("TooSmall", func(t *testing.T) {
		needRoot(t)
		dir := folder(t)
		if _, err := Create(ctx, dir, 10, nothing); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Create = %v, want ErrInvalid", err)
		}
		noTrace(t, dir)
	})
	t.Run("Save", func(t *testing.T) {
		needRoot(t)
		dir, boom := folder(t), errors.New("disk of the state is full")
		if _, err := Create(ctx, dir, caisson.MiB, func(Place) error { return boom }); !errors.Is(err, boom) {
			t.Errorf("Create = %v, want %v", err, boom)
		}
		noTrace(t, dir)
	})
	t.Run("Cancelled", func(t *testing.T) {
		needRoot(t)
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		dir := folder(t)
		if _, err := Create(ctx, dir, caisson.MiB, nothing); !errors.Is(err, context.Canceled) {
			t.Errorf("Create = %v, want canceled", err)
		}
		noTrace(t, dir)
	})
	t.Run("ImageExists", func(t *testing.T) {
		needRoot(t)
		dir := folder(t)
		if err := os.Symlink("/etc/passwd", dir+".img"); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile("/etc/passwd")
		p := &Place{Dir: dir, Method: MethodLoop, Size: caisson.MiB, Image: dir + ".img"}
		if err := loopMake(ctx, p); err == nil {
			t.Error("an image was made through a link")
		}
		if err := Remove(ctx, p); err != nil {
			t.Error(err)
		}
		if after, _ := os.ReadFile("/etc/passwd"); string(after) != string(before) {
			t.Fatal("the link's target has changed")
		}
		noTrace(t, dir)
	})
}

func TestRemoveOfWhatNeverWas(t *testing.T) {
	ctx := t.Context()
	dir := folder(t)
	for _, m := range methods {
		p := &Place{Dir: filepath.Join(dir, "gone", "deeper"), Method: m.name, Project: 1 << 30, Image: filepath.Join(dir, "gone.img")}
		if err := Remove(ctx, p); err != nil {
			t.Errorf("%s: Remove = %v", m.name, err)
		}
	}
	if err := Remove(ctx, &Place{Dir: dir, Method: "magic"}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Remove of an unknown method = %v, want ErrInvalid", err)
	}
}

// TestRemoveLeavesOthers makes sure that a mount of somebody else stays.
func TestRemoveLeavesOthers(t *testing.T) {
	needRoot(t)
	dir := folder(t)
	if err := unix.Mount("other", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	for _, m := range methods[1:] {
		if err := Remove(t.Context(), &Place{Dir: dir, Method: m.name, Image: dir + ".img"}); err != nil {
			t.Error(err)
		}
	}
	if list, _ := mountsAt(dir); len(list) != 1 {
		t.Errorf("mounts on the folder: %v, want the other one", list)
	}
}

// TestRemoveWhileInUse removes a disk that a process stands in.
func TestRemoveWhileInUse(t *testing.T) {
	needRoot(t)
	dir := folder(t)
	place, err := Create(t.Context(), dir, caisson.MiB, nothing)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A context that is over makes it detach at once.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Remove(ctx, place); err != nil {
		t.Error(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	noTrace(t, dir)
}

func TestTmpfs(t *testing.T) {
	needRoot(t)
	dir := folder(t)
	p := &Place{Dir: dir, Method: MethodTmpfs, Size: caisson.MiB}
	if err := tmpfsMake(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	check(t, dir, p.Size)
	for range 2 {
		if err := Remove(t.Context(), p); err != nil {
			t.Error(err)
		}
	}
	noTrace(t, dir)
}

// TestQuota makes a file system with project quotas in an image, if this
// kernel has them.
func TestQuota(t *testing.T) {
	needRoot(t)
	base := t.TempDir()
	if err := quotaUsable(base); err == nil {
		t.Log("the file system here keeps project quotas itself")
	}
	image := filepath.Join(base, "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 32<<20)); err != nil {
		t.Fatal(err)
	}
	path, err := mkfs()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path, "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	device, err := attach(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	root := filepath.Join(base, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(device.Name(), root, "ext4", mountFlags, "prjquota"); err != nil {
		t.Logf("this kernel has no quotas: %v", err)
		return
	}
	defer unix.Unmount(root, unix.MNT_DETACH)
	if s := Probe(root); s.Method != MethodQuota {
		t.Fatalf("Probe = %+v, want a quota", s)
	}
	dir := filepath.Join(root, "work")
	if err := errors.Join(os.Mkdir(dir, 0o751), os.Chmod(dir, 0o751), os.Chown(dir, 1000, 1001)); err != nil {
		t.Fatal(err)
	}
	place, err := Create(t.Context(), dir, caisson.MiB, nothing)
	if err != nil {
		t.Fatal(err)
	}
	check(t, dir, caisson.MiB)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(t.Context(), place); err != nil {
			t.Error(err)
		}
	}
	above, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer above.Close()
	if l, err := getLimit(above, place.Project); err != nil || l.blockHard != 0 || l.inodeHard != 0 {
		t.Errorf("limit after Remove = %+v, %v", l, err)
	}
}

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	s := Probe(dir)
	if os.Geteuid() == 0 && s.Method == "" {
		t.Errorf("Probe = %+v: root can", s)
	}
	if s.Method != MethodQuota && s.Why == "" {
		t.Errorf("Probe = %+v: says no reason", s)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("Probe left %v, %v", entries, err)
	}
}

// TestProbeClears removes what a probe has left that was killed, and nothing of
// one that is at work or about to be.
func TestProbeClears(t *testing.T) {
	needRoot(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Minute)
	leave := func(name string, bounded bool) string {
		parent := filepath.Join(dir, probePrefix+name)
		place := &Place{Dir: filepath.Join(parent, "disk"), Method: MethodTmpfs, Size: probeSize}
		err := os.MkdirAll(place.Dir, 0o700)
		if err == nil && bounded {
			err = errors.Join(savePlace(parent, place), tmpfsMake(t.Context(), place))
			t.Cleanup(func() { _ = tmpfsUndo(context.Background(), place) })
		}
		if err = errors.Join(err, os.Chtimes(parent, old, old)); err != nil {
			t.Fatal(err)
		}
		return parent
	}
	mounted, bare, working, young := leave("a", true), leave("b", false), leave("c", true), leave("d", false)
	lock, err := lockProbe(working)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := os.Chtimes(young, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	clearProbes(dir)
	for path, want := range map[string]bool{mounted: false, bare: false, working: true, young: true} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", path, err == nil, want)
		}
	}
	lock.Close()
	clearProbes(dir)
	if _, err := os.Lstat(working); err == nil {
		t.Error("what was at work is there once it is gone")
	}
}
