//go:build linux

package keeper_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// Whatever a program writes, in whatever pieces, is in the log as it was.
func TestLogKeepsBytes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	for _, size := range []int{0, 1, 65535, 65536, 65537, 3_000_000} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		s := spec(t, "cat data; cat data >&2")
		s.Redact = [][]byte{[]byte("a secret that does not occur"), []byte("another one")}
		if err := os.WriteFile(filepath.Join(s.Program.Dir, "data"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		k := start(t, s)
		k.wait()
		log := k.log()
		if log[tasklog.Stdout] != string(data) || log[tasklog.Stderr] != string(data) || log[tasklog.System] != "" {
			t.Errorf("%d bytes: stdout %d, stderr %d, system %q", size,
				len(log[tasklog.Stdout]), len(log[tasklog.Stderr]), log[tasklog.System])
		}
	}
}

func TestLogRedacts(t *testing.T) {
	secret := "t0p s3cr3t/v@lue"
	s := spec(t, `printf 'one %s two' "$S"; printf "$S" | base64 >&2; for c in $(printf "$S" | sed 's/ /_/g' | fold -w1); do printf %s "$c" | tr _ ' '; done`)
	s.Program.Env = append(s.Program.Env, "S="+secret)
	s.Redact = [][]byte{[]byte(secret)}
	k := start(t, s)
	k.wait()
	log := k.log()
	if got, want := log[tasklog.Stdout], "one [redacted] two[redacted]"; got != want {
		t.Errorf("stdout = %q, want %q", got, want)
	}
	if got, want := log[tasklog.Stderr], "[redacted]\n"; got != want {
		t.Errorf("stderr = %q, want %q", got, want)
	}
	raw, err := os.ReadFile(s.Log)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))} {
		if bytes.Contains(raw, []byte(form)) {
			t.Errorf("the log's file holds %q", form)
		}
	}
}

// What may become a secret is not kept from a reader for ever.
func TestLogShowsAPrompt(t *testing.T) {
	s := spec(t, "printf 'password: s3'; "+untilGo)
	s.Redact = [][]byte{[]byte("s3cret-value")}
	k := start(t, s)
	eventually(t, "the prompt is in the log", func() bool { return k.log()[tasklog.Stdout] == "password: s3" })
	k.letGo()
	k.wait()
}

func TestLogLimit(t *testing.T) {
	s := spec(t, "yes | head -c 5000000; echo end >&2; exit 3")
	s.LogLimit = 100_000
	k := start(t, s)
	if exit := k.wait(); exit.Code != 3 {
		t.Errorf("exit = %+v: the limit must not touch the program", exit)
	}
	log := k.log()
	if got := len(log[tasklog.Stdout]) + len(log[tasklog.Stderr]); got != 100_000 {
		t.Errorf("%d bytes of output are kept, want 100000", got)
	}
	if strings.Count(log[tasklog.System], "limit") != 1 {
		t.Errorf("system = %q, want the marker once", log[tasklog.System])
	}
}

// A full disk neither blocks the program nor loses its exit, and both log and
// exit say what was lost.
func TestLogDiskFull(t *testing.T) {
	needRoot(t, "a small file system is mounted")
	s := spec(t, "yes | head -c 3000000; "+untilGo)
	if err := unix.Mount("tmpfs", s.Dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(s.Dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	k := start(t, s)
	k.letGo()
	exit := k.wait()
	if exit.Code != 3 || !strings.Contains(exit.Message, "bytes of output were lost: no space left on device") {
		t.Errorf("exit = %+v, want code 3 and what was lost", exit)
	}
	var lost int
	kept := len(k.log()[tasklog.Stdout])
	if _, err := fmt.Sscanf(exit.Message, "%d bytes", &lost); err != nil || kept+lost != 3_000_000 {
		t.Errorf("kept %d, %q, %v, want 3000000 together", kept, exit.Message, err)
	}
	if err := k.Destroy(k.ctx()); err != nil {
		t.Error(err)
	}
}

// Where there is no room for the log to tell of what it has lost, the exit tells it
// all the same, and once.
func TestLogNoRoom(t *testing.T) {
	const before = 4000 // what fits is more than an exit takes
	s := spec(t, fmt.Sprintf("yes | head -c %d; while [ ! -e go ]; do sleep 0.01; done; yes | head -c 3000; exit 3", before))
	k := start(t, s)
	for len(k.log()[tasklog.Stdout]) < before {
		time.Sleep(time.Millisecond)
	}
	status, err := k.Status(k.ctx())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.Log)
	if err != nil {
		t.Fatal(err)
	}
	// A limit of the keeper's stands for a full disk.
	var limit unix.Rlimit
	if err := unix.Prlimit(status.PID, unix.RLIMIT_FSIZE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = uint64(info.Size())
	if err := unix.Prlimit(status.PID, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	k.letGo()
	const want = "3000 bytes of output were lost: file too large"
	if exit := k.wait(); exit.Code != 3 || exit.Message != want {
		t.Errorf("exit = %+v, want code 3 and %q", exit, want)
	}
	if err := k.Destroy(k.ctx()); err != nil {
		t.Error(err)
	}
}

// Followers read the file: what they do is nothing to the program.
func TestLogFollow(t *testing.T) {
	s := spec(t, "for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.01; done; echo end >&2")
	k := start(t, s)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var got strings.Builder
	ended := func() bool {
		status, err := k.Status(ctx)
		return err != nil || status.Exit != nil
	}
	err := tasklog.Follow(ctx, s.Log, 0, ended, func(rec tasklog.Record) error {
		got.WriteString(string(rec.Data))
		return nil
	})
	if want := "1\n2\n3\n4\n5\n6\n7\n8\n9\nend\n"; err != nil || got.String() != want {
		t.Errorf("Follow = %q, %v, want %q", got.String(), err, want)
	}
}

// The keeper's memory does not grow with the log.
func TestLogMemory(t *testing.T) {
	needRoot(t, readsMemory)
	size := 1 << 30
	if testing.Short() {
		size = 100 << 20
	}
	s := spec(t, fmt.Sprintf("yes 'a line of output that is long enough to be like a real one' | head -c %d; %s", size, untilGo))
	s.LogLimit = 10 * caisson.MiB
	for i := range 50 {
		s.Redact = append(s.Redact, []byte(fmt.Sprintf("secret number %d", i)))
	}
	k := start(t, s)
	eventually(t, "the limit is reached", func() bool { return k.log()[tasklog.System] != "" })
	k.letGo()
	most := 0
	for {
		status, err := k.Status(k.ctx())
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, pss(t, status.PID))
		if status.Exit != nil {
			break
		}
	}
	if most > 8<<20 {
		t.Errorf("the keeper took %d bytes", most)
	}
}
