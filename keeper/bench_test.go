//go:build linux

package keeper_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// benchSpec is spec for benchmarks, and for more than one run in a folder.
func benchSpec(b *testing.B, dir string, args ...string) *keeper.Spec {
	b.Helper()
	dir, err := os.MkdirTemp(dir, "run-")
	if err != nil {
		b.Fatal(err)
	}
	return &keeper.Spec{
		ID: "bench", Dir: dir, Socket: filepath.Join(dir, "sock"), Log: filepath.Join(dir, "log"),
		Box:     &isolate.Spec{ID: "bench", None: true},
		Program: isolate.Program{Args: args, Env: []string{"PATH=/usr/bin:/bin"}},
	}
}

func runOnce(b *testing.B, s *keeper.Spec) {
	b.Helper()
	c, err := keeper.Launch(context.Background(), command, s)
	if err != nil {
		b.Fatal(err)
	}
	runWith(b, c)
}

func runWith(b *testing.B, c *keeper.Client) {
	b.Helper()
	ctx := context.Background()
	if err := c.Start(ctx); err != nil {
		b.Fatal(err)
	}
	exit, err := c.Wait(ctx)
	if err != nil || exit.Code != 0 {
		b.Fatalf("%+v, %v", exit, err)
	}
	if err := c.Destroy(ctx); err != nil {
		b.Fatal(err)
	}
	c.Close()
}

// BenchmarkTrue is a whole sandbox without isolation: keeper, program, durable
// exit.
func BenchmarkTrue(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		runOnce(b, benchSpec(b, dir, "/bin/true"))
	}
}

// BenchmarkTrueQuickly is the same with a Launcher.
func BenchmarkTrueQuickly(b *testing.B) {
	dir := b.TempDir()
	l := keeper.NewLauncher(command)
	defer l.Close()
	for b.Loop() {
		c, err := l.Launch(context.Background(), benchSpec(b, dir, "/bin/true"))
		if err != nil {
			b.Fatal(err)
		}
		runWith(b, c)
	}
}

func benchSecrets() [][]byte {
	rnd := rand.New(rand.NewPCG(1, 1))
	var secrets [][]byte
	for range 50 {
		s := make([]byte, 12+rnd.IntN(40))
		for i := range s {
			s[i] = byte('!' + rnd.IntN(94))
		}
		secrets = append(secrets, s)
	}
	return secrets
}

// benchLog has a program write 256 MiB, with some of the secrets in it.
func benchLog(b *testing.B, follow func(s *keeper.Spec, over *atomic.Bool)) {
	const size = 256 << 20
	dir := b.TempDir()
	secrets := benchSecrets()
	var block strings.Builder
	for i := 0; block.Len() < 1<<20; i++ {
		fmt.Fprintf(&block, "2026-01-02T03:04:05Z INFO request %d served path=/api/v1/things status=200 took=%dms\n", i, i%97)
		if i%500 == 0 {
			fmt.Fprintf(&block, "token=%s\n", secrets[i/500%len(secrets)])
		}
	}
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(block.String())[:1<<20], 0o600); err != nil {
		b.Fatal(err)
	}
	args := []string{"/bin/cat"}
	for range size >> 20 {
		args = append(args, text)
	}
	b.SetBytes(size)
	for b.Loop() {
		s := benchSpec(b, dir, args...)
		s.Redact = secrets
		var over atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			if follow != nil {
				follow(s, &over)
			}
		}()
		runOnce(b, s)
		b.StopTimer()
		over.Store(true)
		<-done
		os.RemoveAll(s.Dir)
		b.StartTimer()
	}
}

// BenchmarkLogRedact50 is the log path from the program's pipe to the file,
// with 50 secrets in all their forms.
func BenchmarkLogRedact50(b *testing.B) { benchLog(b, nil) }

// BenchmarkLogSlowFollower is the same while somebody reads the log at a snail's
// pace.
func BenchmarkLogSlowFollower(b *testing.B) {
	benchLog(b, func(s *keeper.Spec, over *atomic.Bool) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		tasklog.Follow(ctx, s.Log, 0, over.Load, func(tasklog.Record) error {
			time.Sleep(10 * time.Millisecond)
			if over.Load() {
				return context.Canceled
			}
			return nil
		})
	})
}
