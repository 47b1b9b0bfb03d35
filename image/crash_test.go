//go:build unix

package image_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/imagetest"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/slowtest"
)

// These tests kill real processes: this test's program is also the child that
// works on a store.
const (
	envStore   = "IMAGE_TEST_STORE"   // the store's folder: this is a child
	envArchive = "IMAGE_TEST_ARCHIVE" // what it gets
	envUser    = "IMAGE_TEST_USER"    // who it is
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envStore); dir != "" {
		if err := life(context.Background(), dir, os.Getenv(envArchive), os.Getenv(envUser)); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// life does all that is done with an image, once: as an executor would, and as
// an operator would.
func life(ctx context.Context, dir, archive, user string) error {
	s, err := image.Open(&image.Options{Dir: dir})
	if err != nil {
		return err
	}
	for _, use := range []image.Lease{{Owner: "shared" + user}, {Owner: "copied" + user, Mode: image.ModeCopy}} {
		root, err := useImage(ctx, s, archive, &use)
		if err != nil {
			return err
		}
		if err := complete(root.Path); err != nil {
			return err
		}
		if err := s.Unlease(ctx, use.Owner); err != nil {
			return err
		}
	}
	if err := useDisk(ctx, s, archive, "disk"+user); err != nil {
		return err
	}
	_, err = s.GC(ctx, image.GCOptions{All: true})
	return err
}

// useDisk has the image as a disk for a while.
func useDisk(ctx context.Context, s *image.Store, archive, owner string) error {
	for {
		img, err := s.Get(ctx, &image.Request{Ref: archive, Trusted: true})
		if err != nil {
			return err
		}
		disk, err := s.Disk(ctx, img, &image.Lease{Owner: owner})
		if errors.Is(err, caisson.ErrNotFound) {
			continue // somebody has collected the image in between
		}
		if err != nil {
			return err
		}
		data, err := os.ReadFile(disk.Path)
		if err == nil && (len(data) < 1082 || string(data[1080:1082]) != "\x53\xef" || bytes.Count(data, []byte("two19")) != 1) {
			err = fmt.Errorf("incomplete: a disk of %d bytes", len(data))
		}
		return errors.Join(err, s.Unlease(ctx, owner))
	}
}

// useImage gets a root file system, again where somebody has collected the image
// in between.
func useImage(ctx context.Context, s *image.Store, archive string, lease *image.Lease) (*image.RootFS, error) {
	for {
		img, err := s.Get(ctx, &image.Request{Ref: archive, Trusted: true})
		if err != nil {
			return nil, err
		}
		root, err := s.RootFS(ctx, img, lease)
		if !errors.Is(err, caisson.ErrNotFound) {
			return root, err
		}
	}
}

// lived is the image of these tests: two layers, some files in each.
func lived(t *testing.T) string {
	t.Helper()
	var one, two entries
	for i := range 20 {
		one = append(one, file(fmt.Sprintf("d/one%d", i), strings.Repeat("1", 1000*i)))
		two = append(two, file(fmt.Sprintf("d/two%d", i), "2"))
	}
	archive := filepath.Join(t.TempDir(), "image.tar")
	imagetest.OCIArchive(t, archive, map[string]v1.Image{"latest": imageOf(t, one, two)})
	return "oci-archive:" + archive
}

// complete looks whether a root file system has all of lived.
func complete(root string) error {
	for i := range 20 {
		data, err := os.ReadFile(fmt.Sprintf("%s/d/one%d", root, i))
		if err == nil && len(data) != 1000*i {
			err = fmt.Errorf("d/one%d has %d bytes", i, len(data))
		}
		if err == nil {
			data, err = os.ReadFile(fmt.Sprintf("%s/d/two%d", root, i))
		}
		if err == nil && string(data) != "2" {
			err = fmt.Errorf("d/two%d is %q", i, data)
		}
		if err != nil {
			return fmt.Errorf("incomplete: %w", err)
		}
	}
	return nil
}

// start begins a life in a process of its own.
func start(t *testing.T, dir, archive, user, point string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envStore+"="+dir, envArchive+"="+archive, envUser+"="+user, crash.Variable+"="+point)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// killed waits for a process and reports whether it was killed. Any other
// failure fails the test.
func killed(t *testing.T, cmd *exec.Cmd) bool {
	t.Helper()
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		t.Fatal(err)
	}
	return false
}

// afterCrash is what comes after a process was killed: the same again succeeds,
// and then nothing is left.
func afterCrash(t *testing.T, dir, archive, what string) {
	t.Helper()
	s, err := image.Open(&image.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	// An image that is listed is whole.
	list, err := s.List(t.Context())
	if err != nil {
		t.Errorf("killed at %s: List = %v", what, err)
	}
	for i := range list {
		if _, _, err := s.Inspect(t.Context(), list[i].Name); err != nil {
			t.Errorf("killed at %s: %v", what, err)
		}
	}
	if err := life(t.Context(), dir, archive, ""); err != nil {
		t.Errorf("killed at %s, the next life: %v", what, err)
	}
	s.SetNow(func() time.Time { return time.Now().Add(48 * time.Hour) })
	if err := s.Sweep(t.Context(), func(string) bool { return false }); err != nil {
		t.Errorf("killed at %s: Sweep = %v", what, err)
	}
	if _, err := s.GC(t.Context(), image.GCOptions{All: true}); err != nil {
		t.Errorf("killed at %s: GC = %v", what, err)
	}
	left := holds(t, dir)
	temps, _ := filepath.Glob(filepath.Join(dir, ".caisson-*"))
	if left = append(left, temps...); len(left) > 0 {
		t.Errorf("killed at %s, left: %q", what, left)
	}
}

// TestCrash kills a process at every durable write of a life.
func TestCrash(t *testing.T) {
	slowtest.Skip(t)
	archive := lived(t)
	passed := 0
	for _, point := range append(crash.Image(), crash.AtomicBefore, crash.AtomicAfter) {
		for n := 1; ; n++ {
			dir := filepath.Join(t.TempDir(), "images")
			at := fmt.Sprintf("%s:%d", point, n)
			if !killed(t, start(t, dir, archive, "", at)) {
				break
			}
			passed++
			afterCrash(t, dir, archive, at)
		}
	}
	if least := len(crash.Image()); passed < least {
		t.Errorf("%d points were passed, there are %d", passed, least)
	}
}

// TestKill kills processes that share a store at any time.
func TestKill(t *testing.T) {
	slowtest.Skip(t)
	archive := lived(t)
	dir := filepath.Join(t.TempDir(), "images")
	seed := time.Now().UnixNano()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	for range 15 {
		var children []*exec.Cmd
		for i := range 3 {
			children = append(children, start(t, dir, archive, fmt.Sprint(i), ""))
		}
		for _, cmd := range children {
			time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond)
			_ = cmd.Process.Kill()
		}
		for _, cmd := range children {
			killed(t, cmd)
		}
	}
	afterCrash(t, dir, archive, "any time")
}
