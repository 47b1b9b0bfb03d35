package bootdisk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/bootdisk"
	"github.com/caissonrun/caisson/internal/ext4"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/internal/machine/machinetest"
)

// TestAssembled holds that boot.bin is what boot.asm says.
func TestAssembled(t *testing.T) {
	for _, name := range []string{"as", "ld"} {
		if _, err := exec.LookPath(name); err != nil || runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
			t.Skipf("there is no %s for x86", name)
		}
	}
	dir := t.TempDir()
	object, made := filepath.Join(dir, "boot.o"), filepath.Join(dir, "boot.bin")
	for _, argv := range [][]string{
		{"as", "--32", "boot.asm", "-o", object},
		{"ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", object, "-o", made},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", argv[0], err, out)
		}
	}
	want, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("boot.bin")
	if err != nil || !bytes.Equal(got, want) || len(got) != 512 {
		t.Errorf("boot.bin has %d bytes, %v, and is not that of boot.asm", len(got), err)
	}
}

// kernel is a file that says that it is a bzImage.
func kernel(change func([]byte)) []byte {
	b := make([]byte, 64<<10)
	copy(b[0x202:], "HdrS")
	b[0x1f1], b[0x211] = 27, 1
	binary.LittleEndian.PutUint16(b[0x206:], 0x20f)
	binary.LittleEndian.PutUint32(b[0x22c:], 0x7fffffff)
	binary.LittleEndian.PutUint64(b[0x258:], 16<<20)
	binary.LittleEndian.PutUint32(b[0x260:], 32<<20)
	if change != nil {
		change(b)
	}
	return b
}

func disk(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := ext4.Format(f, 16*caisson.MiB, &ext4.Options{Name: "test"}); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestInstall holds that the file system stays as it is, but for its first
// sector, and that the rest lies behind it.
func TestInstall(t *testing.T) {
	f := disk(t)
	before, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	got, err := bootdisk.Install(f, &bootdisk.Boot{Kernel: bytes.NewReader(kernel(nil)), Initrd: []byte("initramfs"), Cmdline: "quiet"})
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(f.Name())
	if err != nil || caisson.Bytes(len(after)) != got.Size || !bytes.Equal(after[512:len(before)], before[512:]) {
		t.Errorf("the disk has %d bytes, %v, %+v, or its file system is another one", len(after), err, got)
	}
	if rest := after[len(before):]; !bytes.Contains(rest, []byte("quiet\x00")) || !bytes.Contains(rest, []byte("initramfs")) {
		t.Error("command line or initramfs is not behind the file system")
	}
	if got.Memory < 48*caisson.MiB || got.Memory > 128*caisson.MiB {
		t.Errorf("it needs %s, want what the kernel says and a bit more", got.Memory)
	}
}

// TestInstallWrong holds what is refused.
func TestInstallWrong(t *testing.T) {
	for name, b := range map[string]bootdisk.Boot{
		"NoKernel": {Kernel: strings.NewReader("no kernel")},
		"Magic":    {Kernel: bytes.NewReader(kernel(func(b []byte) { b[0x202] = 0 }))},
		"Low":      {Kernel: bytes.NewReader(kernel(func(b []byte) { b[0x211] = 0 }))},
		"Old":      {Kernel: bytes.NewReader(kernel(func(b []byte) { b[0x206] = 2 }))},
		"Setup":    {Kernel: bytes.NewReader(kernel(func(b []byte) { b[0x1f1] = 200 }))},
		"Needs":    {Kernel: bytes.NewReader(kernel(func(b []byte) { b[0x263] = 0x7f }))},
		"Cmdline":  {Kernel: bytes.NewReader(kernel(nil)), Cmdline: strings.Repeat("x", 2048)},
	} {
		if got, err := bootdisk.Install(disk(t), &b); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("%s: %+v, %v, want invalid", name, got, err)
		}
	}
}

// TestBoots holds that a BIOS boots what was made, in both machines that have
// one.
func TestBoots(t *testing.T) {
	k := machinetest.Kernel(t, machinetest.Cloud)
	agent := machinetest.Agent(t)
	initrd, err := os.ReadFile(machinetest.Initrd(t, k, agent))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{machine.Q35, machine.PC} {
		t.Run(kind, func(t *testing.T) {
			image, err := os.Open(k.Image)
			if err != nil {
				t.Fatal(err)
			}
			defer image.Close()
			f := disk(t)
			made, err := bootdisk.Install(f, &bootdisk.Boot{Kernel: image, Initrd: initrd, Cmdline: "quiet console=ttyS0 panic=-1"})
			if err != nil {
				t.Fatal(err)
			}
			memory := (made.Memory + caisson.MiB - 1) / caisson.MiB * caisson.MiB
			g := machinetest.Boot(t, &machinetest.Options{
				Boot: true, Type: kind, Memory: memory, Disks: []machine.Disk{{Name: "disk", Path: f.Name(), Format: "raw"}},
			})
			info, err := g.Client.Info(t.Context())
			if err != nil || info.Kernel != k.Version {
				t.Errorf("Info() = %+v, %v, want kernel %s", info, err, k.Version)
			}
		})
	}
}
