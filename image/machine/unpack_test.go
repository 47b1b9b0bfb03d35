//go:build unix

package machine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image/machine"
	"github.com/caissonrun/caisson/internal/qcow2"
	"github.com/caissonrun/caisson/internal/safefs"
)

// folder makes an empty folder to unpack to.
func folder(t testing.TB) (*safefs.Root, string) {
	t.Helper()
	dir := t.TempDir()
	root, err := safefs.Open(dir, nil)
	must(t, err)
	t.Cleanup(func() { root.Close() })
	return root, dir
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// makeDisk makes a raw disk with holes.
func makeDisk(t testing.TB, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "raw"))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, f.Truncate(size))
	for _, at := range []int64{0, size/2 + 777, size - 9} {
		_, err := f.WriteAt([]byte("something"), at)
		must(t, err)
	}
	return f
}

func sumOf(t testing.TB, rd io.Reader) string {
	t.Helper()
	sum := sha256.New()
	_, err := io.Copy(sum, rd)
	must(t, err)
	return fmt.Sprintf("%x", sum.Sum(nil))
}

func sumOfFile(t testing.TB, name string) string {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	return sumOf(t, f)
}

func packed(t testing.TB, disk *os.File) []byte {
	t.Helper()
	var out bytes.Buffer
	must(t, machine.Pack(context.Background(), &out, disk, fullMachine()))
	return out.Bytes()
}

// room is what a file takes.
func room(t testing.TB, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	must(t, err)
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

func TestPack(t *testing.T) {
	const size = 9 << 30
	disk := makeDisk(t, size)
	data := packed(t, disk)
	if again := packed(t, disk); !bytes.Equal(again, data) {
		t.Error("the same disk gives another archive")
	}
	root, dir := folder(t)
	sum := sumOf(t, bytes.NewReader(data))
	img, err := machine.Unpack(t.Context(), bytes.NewReader(data), root, sum, nil)
	must(t, err)
	if strings.Join(img.Files, " ") != "disk.img layer.qcow2" || img.Format != "qcow2" || img.Size != size || img.SHA256 != sum ||
		img.Machine == nil || img.Machine.MAC != fullMachine().MAC || img.Written > caisson.MiB {
		t.Errorf("Unpack = %+v", img)
	}
	file := filepath.Join(dir, "disk.img")
	if got := room(t, file); got > 1<<20 {
		t.Errorf("the disk takes %d bytes: its holes were filled", got)
	}
	got, err := os.Open(file)
	must(t, err)
	defer got.Close()
	if info, _ := got.Stat(); info.Size() != size {
		t.Fatalf("the disk has %d bytes", info.Size())
	}
	for _, at := range []int64{0, size/2 + 777, size - 9} {
		b := make([]byte, 9)
		if _, err := got.ReadAt(b, at); err != nil || string(b) != "something" {
			t.Errorf("%q is at %d, %v", b, at, err)
		}
	}
}

func TestPackErrors(t *testing.T) {
	bad := fullMachine()
	bad.Network = "x,y"
	for _, test := range []struct {
		name string
		size int64
		m    *machine.Machine
	}{{"Empty", 0, fullMachine()}, {"Ragged", 1000, fullMachine()}, {"Machine", 1024, bad}, {"Version", 1024, &machine.Machine{}}} {
		f, err := os.Create(filepath.Join(t.TempDir(), "raw"))
		must(t, err, f.Truncate(test.size))
		if err := machine.Pack(t.Context(), io.Discard, f, test.m); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("%s: Pack = %v, want ErrInvalid", test.name, err)
		}
		f.Close()
	}
}

// TestOthersPrograms has GNU tar read what is written here, and unpacks what
// the programs write that taskcluster-worker used.
func TestOthersPrograms(t *testing.T) {
	for _, name := range []string{"tar", "zstd", "qemu-img"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Geteuid() == 0 {
				t.Fatalf("%s is not installed", name)
			}
			t.Skipf("%s is not installed", name)
		}
	}
	run := func(t *testing.T, dir, script string) {
		t.Helper()
		cmd := exec.Command("sh", "-fec", script)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", script, err, out)
		}
	}
	disk := makeDisk(t, 100<<20)
	t.Run("TheyRead", func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "image.tar.zst"), packed(t, disk), 0o600))
		run(t, dir, "zstd -dqc image.tar.zst | tar -xof - --no-same-permissions")
		if sumOfFile(t, filepath.Join(dir, "disk.img")) != sumOfFile(t, disk.Name()) || room(t, filepath.Join(dir, "disk.img")) > 8<<20 {
			t.Error("tar made another disk")
		}
		run(t, dir, "qemu-img check -q -f qcow2 layer.qcow2")
	})
	t.Run("TheyWrite", func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.Symlink(disk.Name(), filepath.Join(dir, "from")), os.WriteFile(filepath.Join(dir, "machine.json"), []byte(full), 0o600))
		run(t, dir, `cp --sparse=always -L from disk.img
			qemu-img create -q -f qcow2 -o backing_file=disk.img,backing_fmt=raw,lazy_refcounts=on layer.qcow2
			tar -Scf image.tar disk.img layer.qcow2 machine.json
			zstd -q -3 image.tar -fo image.tar.zst`)
		f, err := os.Open(filepath.Join(dir, "image.tar.zst"))
		must(t, err)
		defer f.Close()
		root, to := folder(t)
		img, err := machine.Unpack(t.Context(), f, root, "", nil)
		if err != nil || img.Size != 100*caisson.MiB {
			t.Fatalf("Unpack = %+v, %v", img, err)
		}
		if sumOfFile(t, filepath.Join(to, "disk.img")) != sumOfFile(t, disk.Name()) {
			t.Error("another disk was unpacked")
		}
	})
}

// member is a part of an archive that is made for a test.
type member struct {
	header tar.Header
	data   []byte
}

func file(name string, data []byte) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(data))}, data}
}

func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	zw, err := zstd.NewWriter(&out)
	must(t, err)
	tw := tar.NewWriter(zw)
	for _, m := range members {
		must(t, tw.WriteHeader(&m.header))
		_, err := tw.Write(m.data)
		must(t, err)
	}
	must(t, tw.Close(), zw.Close())
	return out.Bytes()
}

func layer(t testing.TB, opts qcow2.Options) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "layer"))
	must(t, err)
	defer f.Close()
	must(t, qcow2.Create(f, &opts))
	data, err := os.ReadFile(f.Name())
	must(t, err)
	return data
}

// changed is data with other bytes somewhere.
func changed(data []byte, at int, with ...byte) []byte {
	data = bytes.Clone(data)
	copy(data[at:], with)
	return data
}

func TestUnpackAlone(t *testing.T) {
	plain := layer(t, qcow2.Options{Size: 5 * caisson.GiB})
	raw := changed(make([]byte, 1<<20), 512, 1, 2, 3)
	for _, test := range []struct {
		name, file, format string
		data               []byte
		size               caisson.Bytes
	}{{"Qcow2", "disk.qcow2", "qcow2", plain, 5 * caisson.GiB}, {"Raw", "disk.img", "raw", raw, caisson.MiB}} {
		t.Run(test.name, func(t *testing.T) {
			root, dir := folder(t)
			img, err := machine.Unpack(t.Context(), bytes.NewReader(test.data), root, "", nil)
			if err != nil || len(img.Files) != 1 || img.Files[0] != test.file || img.Format != test.format || img.Size != test.size || img.Machine != nil {
				t.Fatalf("Unpack = %+v, %v", img, err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, test.file)); err != nil || !bytes.Equal(got, test.data) {
				t.Errorf("%d bytes were unpacked, %v", len(got), err)
			}
		})
	}
}

func TestUnpackErrors(t *testing.T) {
	raw := make([]byte, 64<<10)
	opts := qcow2.Options{Size: 64 * caisson.KiB, BackingFile: "disk.img", BackingFormat: "raw"}
	good := layer(t, opts)
	disk, over, description := file("disk.img", raw), file("layer.qcow2", good), file("machine.json", []byte(full))
	other, qcow, large := opts, opts, opts
	other.BackingFile, qcow.BackingFormat, large.Size = "/etc/passwd", "qcow2", 60*caisson.GiB
	link := func(kind byte) member {
		return member{tar.Header{Name: "disk.img", Typeflag: kind, Linkname: "/etc/passwd"}, nil}
	}
	random := make([]byte, 3<<20)
	for i := range random {
		random[i] = byte(i>>12 | 1)
	}
	whole := archive(t, disk, over, description)
	for _, test := range []struct {
		name string
		data []byte
		why  string
		kind caisson.Kind
	}{
		{"More", archive(t, disk, over, description, file("x", nil)), `member "x"`, caisson.ErrInvalid},
		{"Dot", archive(t, file("./disk.img", raw), over, description), "want only", caisson.ErrInvalid},
		{"Twice", archive(t, disk, disk), "twice", caisson.ErrInvalid},
		{"Missing", archive(t, disk, description), "no member layer.qcow2", caisson.ErrInvalid},
		{"None", archive(t), "no member disk.img", caisson.ErrInvalid},
		{"Symlink", archive(t, link(tar.TypeSymlink)), "not a plain file", caisson.ErrInvalid},
		{"HardLink", archive(t, link(tar.TypeLink)), "not a plain file", caisson.ErrInvalid},
		{"Folder", archive(t, member{tar.Header{Name: "disk.img/", Typeflag: tar.TypeDir}, nil}), "want only", caisson.ErrInvalid},
		{"FIFO", archive(t, link(tar.TypeFifo)), "not a plain file", caisson.ErrInvalid},
		{"Global", archive(t, member{tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": "disk.img"}}, nil}), "member", caisson.ErrInvalid},
		{"Climbing", archive(t, file("../disk.img", raw)), "want only", caisson.ErrInvalid},
		{"EmptyDisk", archive(t, file("disk.img", nil)), "a disk of 0 bytes", caisson.ErrInvalid},
		{"RaggedDisk", archive(t, file("disk.img", raw[:1000])), "a disk of 1000 bytes", caisson.ErrInvalid},
		{"DiskIsQcow2", archive(t, file("disk.img", good)), "not a raw disk", caisson.ErrInvalid},
		{"OtherFile", archive(t, disk, file("layer.qcow2", layer(t, other)), description), "/etc/passwd", caisson.ErrInvalid},
		{"OtherFormat", archive(t, disk, file("layer.qcow2", layer(t, qcow)), description), "qcow2", caisson.ErrInvalid},
		{"NoBacking", archive(t, disk, file("layer.qcow2", layer(t, qcow2.Options{Size: 512}))), "a layer over", caisson.ErrInvalid},
		{"LargeLayer", archive(t, disk, file("layer.qcow2", layer(t, large)), description), "the limit", caisson.ErrInvalid},
		{"Dirty", archive(t, disk, file("layer.qcow2", changed(good, 79, 1))), "not closed", caisson.ErrInvalid},
		{"Snapshots", archive(t, disk, file("layer.qcow2", changed(changed(good, 63, 1), 69, 1, 0, 0))), "snapshots", caisson.ErrInvalid},
		{"Encrypted", archive(t, disk, file("layer.qcow2", changed(good, 35, 2))), "encrypted", caisson.ErrUnsupported},
		{"LayerIsRaw", archive(t, disk, file("layer.qcow2", raw)), "qcow2", caisson.ErrInvalid},
		{"Machine", archive(t, file("machine.json", []byte("{}}"))), "machine.json", caisson.ErrInvalid},
		{"MachineLarge", archive(t, file("machine.json", make([]byte, 2<<20))), "more than 1048576", caisson.ErrInvalid},
		{"MachineNewer", archive(t, file("machine.json", []byte(`{"version":7}`))), "version 7", caisson.ErrUnsupported},
		{"NotTar", compressed(t, raw[:10], bytes.Repeat([]byte("no tar"), 1000)), "damaged", caisson.ErrInvalid},
		{"Behind", compressed(t, plainOf(t, whole), random), "follow its end", caisson.ErrInvalid},
		{"BehindStream", append(bytes.Clone(whole), "garbage"...), "damaged", caisson.ErrInvalid},
		{"QcowLayer", good, "not a whole disk", caisson.ErrInvalid},
		{"QcowCut", good[:90], "qcow2", caisson.ErrInvalid},
		{"Gzip", append([]byte("\x1f\x8b"), raw[:510]...), "compressed by gzip", caisson.ErrUnsupported},
		{"VMware", append([]byte("KDMV"), raw[:508]...), "VMware", caisson.ErrUnsupported},
		{"RawEmpty", nil, "0 bytes", caisson.ErrInvalid},
		{"RawRagged", raw[:777], "777 bytes", caisson.ErrInvalid},
	} {
		t.Run(test.name, func(t *testing.T) { refused(t, bytes.NewReader(test.data), nil, test.kind, test.why) })
	}
	t.Run("Cut", func(t *testing.T) {
		for size := 4; size < len(whole); size += 1 + len(whole)/60 {
			refused(t, bytes.NewReader(whole[:size]), nil, caisson.ErrInvalid, "")
		}
	})
	t.Run("Sum", func(t *testing.T) {
		root, dir := folder(t)
		_, err := machine.Unpack(t.Context(), bytes.NewReader(whole), root, strings.Repeat("0", 64), nil)
		if names, _ := os.ReadDir(dir); !errors.Is(err, caisson.ErrInvalid) || len(names) > 0 {
			t.Errorf("Unpack = %v, left %v", err, names)
		}
	})
	t.Run("Source", func(t *testing.T) {
		broken := errors.New("the line is cut")
		root, _ := folder(t)
		rd := io.MultiReader(bytes.NewReader(whole[:len(whole)/2]), errReader{broken})
		if _, err := machine.Unpack(t.Context(), rd, root, "", nil); !errors.Is(err, broken) || errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Unpack = %v, want %v without a kind", err, broken)
		}
	})
	t.Run("Cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		root, _ := folder(t)
		if _, err := machine.Unpack(ctx, bytes.NewReader(whole), root, "", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("Unpack = %v, want canceled", err)
		}
	})
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// refused unpacks and makes sure that nothing is left.
func refused(t *testing.T, rd io.Reader, limits *machine.Limits, kind caisson.Kind, why string) {
	t.Helper()
	root, dir := folder(t)
	img, err := machine.Unpack(t.Context(), rd, root, "", limits)
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), why) {
		t.Errorf("Unpack = %+v, %v, want %v with %q", img, err, kind, why)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("left %v, %v", names, err)
	}
}

func compressed(t testing.TB, parts ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	zw, err := zstd.NewWriter(&out)
	must(t, err)
	for _, part := range parts {
		_, err := zw.Write(part)
		must(t, err)
	}
	must(t, zw.Close())
	return out.Bytes()
}

func plainOf(t testing.TB, data []byte) []byte {
	t.Helper()
	zr, err := zstd.NewReader(bytes.NewReader(data))
	must(t, err)
	defer zr.Close()
	plain, err := io.ReadAll(zr)
	must(t, err)
	return plain
}

// TestBombs unpacks what is small and becomes large.
func TestBombs(t *testing.T) {
	small := &machine.Limits{Sent: caisson.MiB, Disk: 8 * caisson.MiB, Written: 2 * caisson.MiB}
	zeros := func(size int64) io.Reader { return io.LimitReader(endless{}, size) }
	t.Run("Sent", func(t *testing.T) { refused(t, zeros(2<<20), small, caisson.ErrInvalid, "were sent") })
	t.Run("Raw", func(t *testing.T) {
		refused(t, zeros(9<<20), &machine.Limits{Disk: 8 * caisson.MiB}, caisson.ErrInvalid, "a machine's disk")
	})
	t.Run("Written", func(t *testing.T) {
		refused(t, bytes.NewReader(archive(t, file("disk.img", bytes.Repeat([]byte{1}, 3<<20)))), small, caisson.ErrInvalid, "to be written")
	})
	t.Run("Size", func(t *testing.T) {
		// What a header claims is refused before anything is written.
		refused(t, bytes.NewReader(archive(t, file("disk.img", make([]byte, 512)))), &machine.Limits{Disk: 511}, caisson.ErrInvalid, "a machine's disk")
	})
	t.Run("Sparse", func(t *testing.T) {
		disk := makeDisk(t, 1<<40)
		refused(t, bytes.NewReader(packed(t, disk)), nil, caisson.ErrInvalid, "a machine's disk")
	})
	t.Run("Headers", func(t *testing.T) {
		// Long names that only ever announce the next header.
		var one bytes.Buffer
		tw := tar.NewWriter(&one)
		must(t, tw.WriteHeader(&tar.Header{Name: strings.Repeat("n", 500_000), Format: tar.FormatGNU, Typeflag: tar.TypeReg}))
		long := one.Bytes()[:one.Len()-512]
		refused(t, bytes.NewReader(compressed(t, bytes.Repeat(long, 60))), small, caisson.ErrInvalid, "more than its members")
	})
	t.Run("Window", func(t *testing.T) {
		var out bytes.Buffer
		zw, err := zstd.NewWriter(&out, zstd.WithWindowSize(512<<20))
		must(t, err)
		for range 600 {
			_, err := zw.Write(make([]byte, 1<<20))
			must(t, err)
		}
		must(t, zw.Close())
		refused(t, &out, nil, caisson.ErrInvalid, "")
	})
}

// endless is zeros without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestCreateRaw(t *testing.T) {
	for _, size := range []caisson.Bytes{-1, 0, 100, qcow2.MaxSize + 512} {
		f, err := os.Create(filepath.Join(t.TempDir(), "x"))
		must(t, err)
		if err := machine.CreateRaw(f, size); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("CreateRaw(%d) = %v, want ErrInvalid", size, err)
		}
		f.Close()
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	must(t, err, machine.CreateRaw(f, caisson.GiB))
	defer f.Close()
	if info, _ := f.Stat(); info.Size() != 1<<30 || room(t, f.Name()) > 0 {
		t.Errorf("a disk of %d bytes takes %d", info.Size(), room(t, f.Name()))
	}
}

// FuzzUnpack leaves nothing of what it refuses, and every refusal has a kind.
func FuzzUnpack(f *testing.F) {
	opts := qcow2.Options{Size: 64 * caisson.KiB, BackingFile: "disk.img", BackingFormat: "raw"}
	whole := archive(f, file("disk.img", make([]byte, 1024)), file("layer.qcow2", layer(f, opts)), file("machine.json", []byte(full)))
	f.Add(whole, true)
	f.Add(plainOf(f, whole), false)
	f.Add(plainOf(f, packed(f, makeDisk(f, 4<<20))), false)
	f.Add(layer(f, qcow2.Options{Size: 512}), true)
	f.Fuzz(func(t *testing.T, data []byte, asItIs bool) {
		if !asItIs {
			data = compressed(t, data)
		}
		root, dir := folder(t)
		limits := &machine.Limits{Sent: 4 * caisson.MiB, Disk: 8 * caisson.MiB, Written: 4 * caisson.MiB}
		_, err := machine.Unpack(t.Context(), bytes.NewReader(data), root, "", limits)
		if err == nil {
			return
		}
		if kind := caisson.KindOf(err); kind != caisson.ErrInvalid && kind != caisson.ErrUnsupported {
			t.Errorf("%v has no kind", err)
		}
		if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
			t.Errorf("left %v, %v", names, err)
		}
	})
}
