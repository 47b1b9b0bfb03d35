package image_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
)

// smallDisk mounts a file system of size bytes until the test's end.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a small file system can be mounted by root only")
	}
	dir := t.TempDir()
	if err := unix.Mount("caisson-test", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,mode=700", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// randomText returns data that nothing can compress.
func randomText(size int) string {
	random := rand.NewChaCha8([32]byte{1})
	data := make([]byte, size)
	random.Read(data)
	return string(data)
}

// TestFullDisk holds that a full disk says so at each step, that nothing of the
// step is left, and that the same succeeds once there is room.
func TestFullDisk(t *testing.T) {
	const mega = 1 << 20
	images := map[string]v1.Image{"big": imageOf(t, entries{file("a", randomText(2*mega))}, entries{file("b", randomText(mega))})}
	for name, c := range map[string]struct {
		size int
		mode image.Mode
	}{
		"Download": {2 * mega, ""}, "Unpack": {5 * mega, ""}, "Copy": {8 * mega, image.ModeCopy},
	} {
		t.Run(name, func(t *testing.T) {
			disk := smallDisk(t, c.size)
			dir := filepath.Join(disk, "images")
			s := openStore(t, &image.Options{Dir: dir}, images)
			use := func() error {
				img, err := s.Get(t.Context(), &image.Request{Ref: "big"})
				if err == nil {
					_, err = s.RootFS(t.Context(), img, &image.Lease{Owner: "x", Mode: c.mode})
				}
				return err
			}
			for range 2 {
				if err := use(); !errors.Is(err, caisson.ErrExhausted) {
					t.Fatalf("on a full disk: %v, want ErrExhausted", err)
				}
			}
			for _, pattern := range []string{"partial/*", "trees/*.new", "copies/*/*", "claims/*", "blobs/.*", "names/.*"} {
				if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			}
			if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d", 32*mega)); err != nil {
				t.Fatal(err)
			}
			if err := use(); err != nil {
				t.Errorf("with room: %v", err)
			}
		})
	}
}

// TestFullDiskGC holds that a collection needs no room.
func TestFullDiskGC(t *testing.T) {
	disk := smallDisk(t, 8<<20)
	s := openStore(t, &image.Options{Dir: filepath.Join(disk, "images")}, map[string]v1.Image{"big": imageOf(t, entries{file("a", randomText(2<<20))})})
	rootFS(t, s, fetched(t, s, "big"), &image.Lease{Owner: "x"})
	if err := s.Unlease(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(disk, "rest"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.WriteString(randomText(4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	collect(t, s, image.GCOptions{All: true})
	if got := holds(t, s.Dir()); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}
