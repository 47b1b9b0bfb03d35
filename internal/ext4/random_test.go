//go:build unix

package ext4_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/ext4"
)

// grow makes a tree that data decides on. What can't be made is left out.
func grow(t *testing.T, dir string, data []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(dir, "lost+found"), 0o700))
	folders, files := []string{dir}, []string{}
	for ; len(data) >= 4; data = data[4:] {
		kind, where, size, fill := data[0], int(data[1]), int(data[2]), data[3]
		in := folders[where%len(folders)]
		name := fmt.Sprintf("%x-%s", len(data), strings.Repeat(string(rune('!'+fill%90)), size))
		if strings.Contains(name, "/") || len(name) > 255 {
			name = fmt.Sprint(len(data))
		}
		path := filepath.Join(in, name)
		var err error
		switch kind % 6 {
		case 0:
			if err = os.Mkdir(path, 0o700|os.FileMode(size)); err == nil && len(path) < 3000 {
				folders = append(folders, path)
			}
		case 1, 2:
			err = os.WriteFile(path, bytes.Repeat([]byte{fill}, size*int(fill)*3), 0o400|os.FileMode(size))
			files = append(files, path)
		case 3:
			err = os.Symlink(strings.Repeat("t", size+1), path)
		case 4:
			err = syscall.Mkfifo(path, 0o600)
		case 5:
			if len(files) > 0 {
				err = os.Link(files[where%len(files)], path)
			}
		}
		if err == nil && kind > 128 {
			when := time.Unix(int64(size)<<26-int64(fill)<<23, int64(where))
			err = os.Chtimes(path, when, when)
			if kind%6 == 3 { // a dead link
				err = nil
			}
		}
		if err != nil && !os.IsExist(err) && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
}

// TestRandom has e2fsck look at disks of random trees.
func TestRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 2 {
		data := make([]byte, 1600)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		dir := t.TempDir()
		grow(t, dir, data)
		f := newDisk(t)
		_, err := ext4.WriteTree(t.Context(), f, openTree(t, dir), nil)
		must(t, err)
		sound(t, f.Name())
	}
}

// FuzzWriteTree writes any tree to a disk that has no flaw.
func FuzzWriteTree(f *testing.F) {
	f.Add([]byte("\x00\x00\x05a\x01\x01\xffb\x05\x00\x01c\x03\x00\x40d\x04\x00\x01e"))
	check, missing := exec.LookPath("/usr/sbin/e2fsck")
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		grow(t, dir, data[:min(len(data), 2000)])
		disk := newDisk(t)
		if _, err := ext4.WriteTree(t.Context(), disk, openTree(t, dir), nil); err != nil {
			if caisson.KindOf(err) == caisson.ErrUnknown {
				t.Errorf("WriteTree = %v without a kind", err)
			}
			return
		}
		if missing == nil {
			if out, err := exec.Command(check, "-fn", disk.Name()).CombinedOutput(); err != nil {
				t.Errorf("e2fsck = %v:\n%s", err, out)
			}
		}
	})
}
