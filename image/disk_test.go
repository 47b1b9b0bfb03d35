//go:build unix

package image_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/imagetest"
)

// debugfs asks a disk, without mounting it. As root it must be there.
func debugfs(t *testing.T, disk, ask string) string {
	t.Helper()
	path, err := exec.LookPath("debugfs")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/debugfs")
	}
	if err != nil && os.Geteuid() == 0 {
		t.Fatal("debugfs is not installed (package e2fsprogs)")
	}
	if err != nil {
		t.Skip("debugfs is not installed (package e2fsprogs)")
	}
	out, err := exec.Command(path, "-R", ask, disk).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// ownedBy is an entry that belongs to somebody.
func ownedBy(name, data string, mode int64, uid, gid int) imagetest.Entry {
	return imagetest.Entry{Header: tar.Header{Name: name, Mode: mode, Uid: uid, Gid: gid}, Data: data}
}

func diskImage(t *testing.T) v1.Image {
	return imageOf(t,
		entries{
			ownedBy("etc/", "", 0o755, 0, 0), ownedBy("etc/shadow", "secret", 0o040, 0, 42), ownedBy("etc/old", "old", 0o644, 0, 0),
			ownedBy("home/user/", "", 0o500, 1000, 1001), ownedBy("home/user/file", "mine", 0o600, 1000, 1001), ownedBy("tmp/", "", 0o1777, 0, 0),
			ownedBy("su", "program", 0o4755, 0, 0), special(tar.TypeChar, "dev/null", ""), special(tar.TypeLink, "etc/shadow-", "etc/shadow"),
			imagetest.Entry{Header: tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "etc/shadow", Uid: 7, Gid: 8}},
			imagetest.Entry{Header: tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o020, Uid: 9, Gid: 9}},
		},
		entries{file("etc/.wh.old", ""), ownedBy("deep/er/new", "new", 0o640, 5, 6)})
}

// TestDisk finds on an image's disk what its layers say, whoever unpacked them.
func TestDisk(t *testing.T) {
	for _, setID := range []bool{false, true} {
		s := openStore(t, &image.Options{SetID: setID}, map[string]v1.Image{"app": diskImage(t)})
		disk, err := s.Disk(t.Context(), fetched(t, s, "app"), &image.Lease{Owner: "one"})
		if err != nil {
			t.Fatal(err)
		}
		mode := map[bool]string{false: "0755", true: "04755"}[setID]
		for name, want := range map[string]string{
			"/":               "Type: directory Mode: 0755",
			"/etc/shadow":     "Mode: 0040 Flags: 0x80000 Generation: 0 Version: 0x00000000:00000000 User: 0 Group: 42",
			"/etc/shadow-":    "Links: 2",
			"/home":           "Mode: 0755 Flags: 0x80000 Generation: 0 Version: 0x00000000:00000000 User: 0 Group: 0",
			"/home/user":      "Mode: 0500 Flags: 0x80000 Generation: 0 Version: 0x00000000:00000000 User: 1000 Group: 1001",
			"/home/user/file": "User: 1000 Group: 1001",
			"/tmp":            "Mode: 01777",
			"/su":             "Mode: " + mode,
			"/link":           `User: 7 Group: 8`,
			"/fifo":           "Type: FIFO Mode: 0020",
			"/deep/er/new":    "Mode: 0640 Flags: 0x80000 Generation: 0 Version: 0x00000000:00000000 User: 5 Group: 6",
		} {
			if got := debugfs(t, disk.Path, "stat "+name); !strings.Contains(got, want) {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
		for ask, want := range map[string]string{"cat /etc/shadow-": "secret", "cat /deep/er/new": "new", "stat /etc/old": "", "stat /dev/null": ""} {
			if got := debugfs(t, disk.Path, ask); got != want {
				t.Errorf("%s = %q, want %q", ask, got, want)
			}
		}
		if info, err := os.Stat(disk.Path); err != nil || caisson.Bytes(info.Size()) != disk.Size || info.Mode() != 0o444 {
			t.Errorf("the disk is %v, %v, and should have %d bytes", info, err, disk.Size)
		}
	}
}

// TestDiskShared has several callers make one disk, which stays as long as one
// of them has a lease.
func TestDiskShared(t *testing.T) {
	s := openStore(t, nil, map[string]v1.Image{"app": diskImage(t)})
	img := fetched(t, s, "app")
	var all sync.WaitGroup
	var disks [4]*image.Disk
	for i := range disks {
		all.Go(func() {
			disk, err := s.Disk(t.Context(), img, &image.Lease{Owner: fmt.Sprint(i)})
			if err != nil {
				t.Error(err)
				return
			}
			disks[i] = disk
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	for i := range disks {
		if *disks[i] != *disks[0] {
			t.Errorf("disks %+v and %+v of one image", disks[0], disks[i])
		}
	}
	before, err := os.Stat(disks[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Disk(t.Context(), img, &image.Lease{Owner: "0"})
	if after, _ := os.Stat(disks[0].Path); err != nil || *again != *disks[0] || !os.SameFile(before, after) {
		t.Errorf("Disk again = %+v, %v", again, err)
	}
	_, record, err := s.Inspect(t.Context(), "app")
	if room := caisson.Bytes(before.Sys().(*syscall.Stat_t).Blocks * 512); err != nil || record.UnpackedSize < room {
		t.Errorf("the tree has %s, its disk alone %s, %v", record.UnpackedSize, room, err)
	}
	for i := range disks {
		collect(t, s, image.GCOptions{All: true})
		if _, err := os.Stat(again.Path); err != nil {
			t.Fatalf("with %d users: %v", len(disks)-i, err)
		}
		if err := s.Unlease(t.Context(), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	collect(t, s, image.GCOptions{All: true})
	if left := holds(t, s.Dir()); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// TestDiskHalf goes on where a maker was killed.
func TestDiskHalf(t *testing.T) {
	s := openStore(t, nil, map[string]v1.Image{"app": diskImage(t)})
	img := fetched(t, s, "app")
	if err := s.Unpack(t.Context(), img, nil); err != nil {
		t.Fatal(err)
	}
	tree := glob(t, s, "trees", "*")[0]
	if err := os.WriteFile(filepath.Join(tree, "disk.ext4.new"), []byte("half"), 0o444); err != nil {
		t.Fatal(err)
	}
	disk, err := s.Disk(t.Context(), img, &image.Lease{Owner: "one"})
	if err != nil {
		t.Fatal(err)
	}
	if got := debugfs(t, disk.Path, "cat /deep/er/new"); got != "new" {
		t.Errorf("the disk has %q", got)
	}
	if left := glob(t, s, "trees", "*", "*.new"); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	if _, err := s.RootFS(t.Context(), img, &image.Lease{Owner: "one"}); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("RootFS with the same lease = %v, want ErrExists", err)
	}
}

// TestDiskOwners makes no disk of a list of owners that is not the tree's.
func TestDiskOwners(t *testing.T) {
	if os.Geteuid() == 0 {
		return // root's trees need none
	}
	for name, change := range map[string]func([]byte) []byte{
		"Other":  func(b []byte) []byte { b[len(b)-13]++; return b },
		"Cut":    func(b []byte) []byte { return b[:len(b)-1] },
		"Longer": func(b []byte) []byte { return append(b, 0) },
		"Magic":  func([]byte) []byte { return []byte("something") },
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, nil, map[string]v1.Image{"app": diskImage(t)})
			img := fetched(t, s, "app")
			if err := s.Unpack(t.Context(), img, nil); err != nil {
				t.Fatal(err)
			}
			path := glob(t, s, "trees", "*", "owners")[0]
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(data), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Disk(t.Context(), img, &image.Lease{Owner: "one"}); !errors.Is(err, caisson.ErrInvalid) {
				t.Errorf("Disk = %v, want ErrInvalid", err)
			}
			if left := glob(t, s, "trees", "*", "disk*"); len(left) > 0 {
				t.Errorf("left %q", left)
			}
		})
	}
}
