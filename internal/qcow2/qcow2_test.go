package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/qcow2"
)

// qemuImg returns the program that the format comes from. As root it must be
// there.
func qemuImg(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("qemu-img")
	if err != nil && os.Geteuid() == 0 {
		t.Fatal("qemu-img is not installed (package qemu-utils)")
	}
	if err != nil {
		t.Skip("qemu-img is not installed (package qemu-utils)")
	}
	return path
}

// create makes an image and returns its name and bytes.
func create(t testing.TB, opts *qcow2.Options) (string, []byte) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "layer.qcow2")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := qcow2.Create(f, opts); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return name, data
}

func read(data []byte) (*qcow2.Info, error) {
	return qcow2.Read(bytes.NewReader(data), int64(len(data)))
}

func TestCreate(t *testing.T) {
	for _, opts := range []qcow2.Options{
		{Size: 512},
		{Size: 10 * caisson.GiB, BackingFile: "disk.img", BackingFormat: "raw", LazyRefcounts: true},
		{Size: qcow2.MaxSize, BackingFile: "/a:b/" + strings.Repeat("n", 1000), BackingFormat: "qcow2"},
	} {
		_, data := create(t, &opts)
		got, err := read(data)
		want := &qcow2.Info{
			Version: 3, Size: opts.Size, Cluster: 64 * caisson.KiB, BackingFile: opts.BackingFile, BackingFormat: opts.BackingFormat,
			LazyRefcounts: opts.LazyRefcounts,
		}
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("Read of %+v: %v, %s", opts, err, cmp.Diff(want, got))
		}
	}
}

func TestCreateErrors(t *testing.T) {
	for _, opts := range []qcow2.Options{
		{},
		{Size: -512},
		{Size: 513},
		{Size: qcow2.MaxSize + 512},
		{Size: 512, BackingFile: "disk.img"},
		{Size: 512, BackingFormat: "raw"},
		{Size: 512, BackingFile: "disk.img", BackingFormat: "vmdk"},
		{Size: 512, BackingFile: "nbd:host:1", BackingFormat: "raw"},
		{Size: 512, BackingFile: "json:{}", BackingFormat: "raw"},
		{Size: 512, BackingFile: "a\x00b", BackingFormat: "raw"},
		{Size: 512, BackingFile: strings.Repeat("n", 1024), BackingFormat: "raw"},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "x"))
		if err != nil {
			t.Fatal(err)
		}
		if err := qcow2.Create(f, &opts); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Create(%+v) = %v, want ErrInvalid", opts, err)
		}
		f.Close()
	}
}

// said is what qemu-img says of an image.
type said struct {
	Format  string `json:"format"`
	Virtual int64  `json:"virtual-size"`
	Cluster int64  `json:"cluster-size"`
	Dirty   bool   `json:"dirty-flag"`
	Backing string `json:"backing-filename"`
	Below   string `json:"backing-filename-format"`
	More    struct {
		Data struct {
			Compat     string `json:"compat"`
			Lazy       bool   `json:"lazy-refcounts"`
			ExtendedL2 bool   `json:"extended-l2"`
			Compressed string `json:"compression-type"`
		} `json:"data"`
	} `json:"format-specific"`
	Snapshots []any `json:"snapshots"`
}

func ask(t *testing.T, name string) said {
	t.Helper()
	out, err := exec.Command(qemuImg(t), "info", "--output=json", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	var s said
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// same compares what both say of an image.
func same(t *testing.T, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(data)
	if err != nil {
		t.Fatalf("Read = %v", err)
	}
	s := ask(t, name)
	version := 3
	if s.More.Data.Compat == "0.10" {
		version = 2
	}
	want := &qcow2.Info{
		Version: version, Size: caisson.Bytes(s.Virtual), Cluster: caisson.Bytes(s.Cluster), BackingFile: s.Backing, BackingFormat: s.Below,
		Dirty: s.Dirty, LazyRefcounts: s.More.Data.Lazy, Zstd: s.More.Data.Compressed == "zstd", ExtendedL2: s.More.Data.ExtendedL2, Snapshots: len(s.Snapshots),
	}
	if s.Format != "qcow2" || !cmp.Equal(got, want) {
		t.Errorf("Read differs from qemu-img info (%s): %s", s.Format, cmp.Diff(want, got))
	}
}

// TestQemuImg compares this package with the program, in both directions.
func TestQemuImg(t *testing.T) {
	program := qemuImg(t)
	run := func(t *testing.T, args ...string) {
		t.Helper()
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Fatalf("qemu-img %q = %v: %s", args, err, out)
		}
	}
	for _, opts := range []string{
		"compat=0.10", "compat=1.1", "cluster_size=512", "cluster_size=2M", "extended_l2=on", "compression_type=zstd", "lazy_refcounts=on",
		"refcount_bits=1", "refcount_bits=64", "preallocation=metadata",
	} {
		t.Run("Reads/"+opts, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "image")
			run(t, "create", "-q", "-f", "qcow2", "-o", opts, name, "300M")
			same(t, name)
		})
	}
	t.Run("Reads/Backing", func(t *testing.T) {
		dir := t.TempDir()
		run(t, "create", "-q", "-f", "raw", filepath.Join(dir, "disk.img"), "20M")
		name := filepath.Join(dir, "layer.qcow2")
		run(t, "create", "-q", "-f", "qcow2", "-b", "disk.img", "-F", "raw", name)
		same(t, name)
		run(t, "snapshot", "-c", "one", name)
		same(t, name)
	})
	t.Run("Writes", func(t *testing.T) {
		for _, opts := range []qcow2.Options{{Size: 512}, {Size: 3 * caisson.GiB, LazyRefcounts: true}, {Size: qcow2.MaxSize}} {
			name, _ := create(t, &opts)
			same(t, name)
			run(t, "check", "-q", "-f", "qcow2", name)
		}
	})
	t.Run("WritesBacking", func(t *testing.T) {
		name, _ := create(t, &qcow2.Options{Size: 20 * caisson.MiB, BackingFile: "disk.img", BackingFormat: "raw", LazyRefcounts: true})
		base := bytes.Repeat([]byte("base"), 5<<20)
		if err := os.WriteFile(filepath.Join(filepath.Dir(name), "disk.img"), base, 0o600); err != nil {
			t.Fatal(err)
		}
		same(t, name)
		run(t, "check", "-q", "-f", "qcow2", name)
		out := filepath.Join(t.TempDir(), "out")
		run(t, "convert", "-f", "qcow2", "-O", "raw", name, out)
		if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, base) {
			t.Errorf("through the layer %d bytes are read, %v", len(got), err)
		}
	})
	t.Run("DataFile", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "image")
		run(t, "create", "-q", "-f", "qcow2", "-o", "data_file="+name+".data", name, "10M")
		refused(t, name, "another file")
	})
	t.Run("Encrypted", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "image")
		run(t, "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", name, "10M")
		refused(t, name, "encrypted")
	})
}

func refused(t *testing.T, name, why string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read(data); !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), why) {
		t.Errorf("Read = %v, want ErrUnsupported and %q", err, why)
	}
}

// TestReadErrors changes one field of a good image at a time.
func TestReadErrors(t *testing.T) {
	_, good := create(t, &qcow2.Options{Size: caisson.GiB, BackingFile: "disk.img", BackingFormat: "raw"})
	be := binary.BigEndian
	put32 := func(at int, v uint32) func([]byte) { return func(b []byte) { be.PutUint32(b[at:], v) } }
	put64 := func(at int, v uint64) func([]byte) { return func(b []byte) { be.PutUint64(b[at:], v) } }
	for _, test := range []struct {
		name   string
		change func([]byte)
		kind   caisson.Kind
		why    string
	}{
		{"Magic", func(b []byte) { b[0] = 'q' }, caisson.ErrInvalid, "not such an image"},
		{"Version1", put32(4, 1), caisson.ErrUnsupported, "version 1"},
		{"Version4", put32(4, 4), caisson.ErrUnsupported, "version 4"},
		{"ClusterSmall", put32(20, 8), caisson.ErrInvalid, "2^8"},
		{"ClusterLarge", put32(20, 22), caisson.ErrInvalid, "2^22"},
		{"ClusterHuge", put32(20, 1<<31), caisson.ErrInvalid, "clusters"},
		{"Size", put64(24, 1<<63), caisson.ErrInvalid, "a disk of"},
		{"SizeBeyondTable", put64(24, 1<<40), caisson.ErrInvalid, "needs 2048"},
		{"Crypt", put32(32, 1), caisson.ErrUnsupported, "encrypted"},
		{"L1Size", put32(36, 1<<31), caisson.ErrInvalid, "first table"},
		{"L1InHeader", put64(40, 0), caisson.ErrInvalid, "first table"},
		{"L1Ragged", put64(40, 3<<16+8), caisson.ErrInvalid, "first table"},
		{"L1Outside", put64(40, 1<<40), caisson.ErrInvalid, "first table"},
		{"L1Wraps", put64(40, 1<<64-1<<16), caisson.ErrInvalid, "first table"},
		{"L1Entry", put64(3<<16, 1<<63|1<<30), caisson.ErrInvalid, "leads out"},
		{"L1Reserved", put64(3<<16, 1<<60), caisson.ErrInvalid, "leads out"},
		{"RefcountsAt", put64(48, 5), caisson.ErrInvalid, "reference counts"},
		{"RefcountsNone", put32(56, 0), caisson.ErrInvalid, "reference counts"},
		{"RefcountsMany", put32(56, 1<<31), caisson.ErrInvalid, "reference counts"},
		{"Snapshots", put32(60, 3), caisson.ErrInvalid, "snapshots"},
		{"Corrupt", put64(72, 2), caisson.ErrInvalid, "corrupt"},
		{"DataFile", put64(72, 4), caisson.ErrUnsupported, "another file"},
		{"Unknown", put64(72, 1<<40), caisson.ErrUnsupported, "not known"},
		{"CompressionTwice", put64(72, 8), caisson.ErrInvalid, "compressed"},
		{"Compression", func(b []byte) { put64(72, 8)(b); b[104] = 9 }, caisson.ErrUnsupported, "compression 9"},
		{"RefcountOrder", put32(96, 7), caisson.ErrInvalid, "2^7 bits"},
		{"HeaderShort", put32(100, 96), caisson.ErrInvalid, "header"},
		{"HeaderLong", put32(100, 1<<20), caisson.ErrInvalid, "header"},
		{"HeaderRagged", put32(100, 105), caisson.ErrInvalid, "header"},
		{"BackingInHeader", put64(8, 8), caisson.ErrInvalid, "backing"},
		{"BackingOutside", put64(8, 1<<16), caisson.ErrInvalid, "header"},
		{"BackingLong", put32(16, 1024), caisson.ErrInvalid, "backing"},
		{"BackingNowhere", put64(8, 0), caisson.ErrInvalid, ""},
		{"BackingByte", func(b []byte) { b[be.Uint64(b[8:])] = 0 }, caisson.ErrInvalid, "no name has"},
		{"ExtensionLong", put32(116, 1<<31), caisson.ErrInvalid, "leads out"},
		{"ExtensionData", put32(112, 0x44415441), caisson.ErrUnsupported, "another file"},
		{"ExtensionCrypt", put32(112, 0x0537be77), caisson.ErrUnsupported, "encrypted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			data := bytes.Clone(good)
			test.change(data)
			if info, err := read(data); !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.why) {
				t.Errorf("Read = %+v, %v, want %v with %q", info, err, test.kind, test.why)
			}
		})
	}
	for _, size := range []int{0, 3, 71, 103, 150, 1 << 16, 3 << 16} {
		if _, err := read(good[:size]); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Read of %d bytes = %v, want ErrInvalid", size, err)
		}
	}
}

// FuzzRead never crashes, reads no more than there is, and every refusal has a
// kind. What it accepts keeps to the bounds.
func FuzzRead(f *testing.F) {
	_, plain := create(f, &qcow2.Options{Size: caisson.MiB})
	_, backed := create(f, &qcow2.Options{Size: caisson.GiB, BackingFile: "disk.img", BackingFormat: "raw"})
	f.Add(plain[:3<<16+8])
	f.Add(backed[:3<<16+16])
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := read(data)
		switch kind := caisson.KindOf(err); {
		case err != nil && kind != caisson.ErrInvalid && kind != caisson.ErrUnsupported:
			t.Errorf("Read = %v without a kind", err)
		case err == nil && (info.Size < 0 || info.Size > qcow2.MaxSize || len(info.BackingFile) > 1023 || info.Version < 2 || info.Version > 3):
			t.Errorf("Read = %+v", info)
		}
	})
}
