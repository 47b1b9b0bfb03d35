//go:build unix

package lockfile_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/lockfile"
)

// TestMain lets the test binary be a process that holds a lock until its
// standard input ends.
func TestMain(m *testing.M) {
	if path := os.Getenv("LOCKFILE_TEST_HOLD"); path != "" {
		if _, err := lockfile.Try(path); err != nil {
			panic(err)
		}
		os.Stdout.WriteString("held\n")
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func held(t *testing.T, path string, want bool) {
	t.Helper()
	if got, err := lockfile.Held(path); err != nil || got != want {
		t.Errorf("Held = %v, %v, want %v", got, err, want)
	}
}

func TestTry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held(t, path, false)
	l, err := lockfile.Try(path)
	if err != nil {
		t.Fatal(err)
	}
	held(t, path, true)
	_, err = lockfile.Try(path)
	if !errors.Is(err, caisson.ErrExists) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("Try of a held lock = %v, want ErrExists with the holder's id", err)
	}
	if _, err := lockfile.TryShared(path); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("TryShared of a held lock = %v, want ErrExists", err)
	}
	for range 2 {
		if err := l.Release(); err != nil {
			t.Error(err)
		}
	}
	held(t, path, false)
}

func TestShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, err := lockfile.TryShared(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := lockfile.TryShared(path)
	if err != nil {
		t.Fatalf("a second shared lock: %v", err)
	}
	held(t, path, false)
	a.Release()
	if _, err := lockfile.Try(path); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("Try of a shared lock = %v, want ErrExists", err)
	}
	b.Release()
	if _, err := lockfile.Try(path); err != nil {
		t.Errorf("Try of a lock that nobody shares any more: %v", err)
	}
}

func TestAcquire(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := lockfile.Try(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lockfile.Acquire(ctx, path); !errors.Is(err, context.Canceled) || !errors.Is(err, caisson.ErrExists) {
		t.Errorf("Acquire with a cancelled context = %v, want Canceled and who holds it", err)
	}
	got := make(chan error)
	go func() {
		l, err := lockfile.Acquire(t.Context(), path)
		if err == nil {
			err = l.Release()
		}
		got <- err
	}()
	l.Release()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// A lock dies with its process, without anybody cleaning up.
func TestHolderKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LOCKFILE_TEST_HOLD="+path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	held(t, path, true)
	_, err = lockfile.Try(path)
	if err == nil || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("Try = %v, want an error that names process %d", err, cmd.Process.Pid)
	}
	cmd.Process.Kill()
	cmd.Wait()
	held(t, path, false)
}

// Holders that remove the file must not let two in at once.
func TestRemovedWhileWaiting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var in, most int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				l, err := lockfile.Acquire(t.Context(), path)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				in++
				most = max(most, in)
				mu.Unlock()
				mu.Lock()
				in--
				mu.Unlock()
				os.Remove(path)
				l.Release()
			}
		})
	}
	wg.Wait()
	if most != 1 {
		t.Errorf("%d held the lock at once", most)
	}
}
