package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
)

// bz makes the beginning of a bzImage.
func bz(version string, sixtyfour bool) []byte {
	b := make([]byte, 0x1000)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[x86Protocol:], 0x20f)
	b[x86LoadFlags] = 1
	if sixtyfour {
		b[x86XLoadFlags] = 1
	}
	binary.LittleEndian.PutUint16(b[x86Version:], 0x300)
	copy(b[0x500:], version+" (builder) #1 SMP\x00")
	return b
}

// arm makes an Image of arm64.
func arm(version string) []byte {
	b := make([]byte, 3<<20)
	copy(b[56:], "ARM\x64")
	copy(b[1000:], "Linux version %s (%s)")
	// Across the border of what is read at once.
	copy(b[1<<20-10:], "Linux version "+version+" (builder)\n")
	return b
}

// zboot makes the beginning of a kernel that unpacks itself.
func zboot(machine uint16) []byte {
	b := make([]byte, 512)
	copy(b, "MZ\x00\x00zimg")
	binary.LittleEndian.PutUint32(b[0x3c:], 0x80)
	copy(b[0x80:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[0x84:], machine)
	return b
}

func TestReadHeader(t *testing.T) {
	tests := []struct {
		name string
		data []byte
		want header
		err  string
	}{
		{"amd64", bz("6.1.0-1-amd64", true), header{"amd64", "6.1.0-1-amd64"}, ""},
		{"386", bz("6.1.0-1-686", false), header{"386", "6.1.0-1-686"}, ""},
		{"Arm64", arm("6.12.1"), header{"arm64", "6.12.1"}, ""},
		{"Zboot", zboot(0xaa64), header{arch: "arm64"}, ""},
		{"ZbootTruncated", zboot(0xaa64)[:0x82], header{}, "not a Linux kernel"},
		{"Gzip", []byte("\x1f\x8b\x08rest"), header{}, "unpack it"},
		{"Empty", nil, header{}, "empty"},
		{"Text", []byte("#!/bin/sh\n"), header{}, "not a Linux kernel"},
		{"Elf", []byte("\x7fELF and nothing else"), header{}, "not a Linux kernel"},
		{"Truncated", bz("6.1.0", true)[:0x300], header{}, "truncated"},
		{"VersionOfSlashes", bz("../../etc", true), header{}, "damaged"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readHeader(bytes.NewReader(tt.data))
			if got != tt.want && tt.err == "" || !matches(err, tt.err) {
				t.Errorf("readHeader() = %+v, %v, want %+v, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

// matches reports whether err has the words, and is nil where there are none.
func matches(err error, words string) bool {
	if words == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), words)
}

// put writes a file and the folders that it is in.
func put(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFindKernel(t *testing.T) {
	root := t.TempDir()
	for _, v := range []string{"6.9.0", "6.10.0", "6.11.0"} {
		put(t, filepath.Join(root, "boot/vmlinuz-"+v), bz(v, true))
	}
	put(t, filepath.Join(root, "boot/vmlinuz-7.0.0"), arm("7.0.0"))
	for _, v := range []string{"6.9.0", "6.10.0", "7.0.0"} {
		put(t, filepath.Join(root, "lib/modules", v, "modules.builtin"), nil)
	}

	t.Run("NewestWithModules", func(t *testing.T) {
		k, err := FindKernel(&KernelOptions{Roots: []string{t.TempDir(), root}, Arch: "amd64"})
		if err != nil || k.Version != "6.10.0" || k.Modules != filepath.Join(root, "lib/modules/6.10.0") {
			t.Errorf("FindKernel() = %+v, %v, want 6.10.0 with its modules", k, err)
		}
	})
	t.Run("Arch", func(t *testing.T) {
		k, err := FindKernel(&KernelOptions{Roots: []string{root}, Arch: "arm64"})
		if err != nil || k.Version != "7.0.0" {
			t.Errorf("FindKernel() = %+v, %v, want 7.0.0", k, err)
		}
	})
	t.Run("Named", func(t *testing.T) {
		image := filepath.Join(root, "boot/vmlinuz-6.9.0")
		k, err := FindKernel(&KernelOptions{Image: image, Arch: "amd64"})
		if err != nil || k.Image != image || k.Modules != filepath.Join(root, "lib/modules/6.9.0") {
			t.Errorf("FindKernel() = %+v, %v, want %s with its modules", k, err, image)
		}
	})
	t.Run("InModules", func(t *testing.T) {
		root := t.TempDir()
		put(t, filepath.Join(root, "usr/lib/modules/6.12.0/vmlinuz"), zboot(0xaa64))
		k, err := FindKernel(&KernelOptions{Roots: []string{root}, Arch: "arm64"})
		if err != nil || k.Version != "6.12.0" || k.Modules == "" {
			t.Errorf("FindKernel() = %+v, %v, want 6.12.0 with its modules", k, err)
		}
	})
}

func TestFindKernelErrors(t *testing.T) {
	dir := t.TempDir()
	image := put(t, filepath.Join(dir, "vmlinuz"), bz("6.1.0", true))
	other := t.TempDir()
	put(t, filepath.Join(other, "boot/vmlinuz-6.1.0"), arm("6.1.0"))
	tests := []struct {
		name string
		o    KernelOptions
		kind caisson.Kind
		err  string
	}{
		{"None", KernelOptions{Roots: []string{t.TempDir()}}, caisson.ErrNotFound, "neither boot/vmlinuz-*"},
		{"NoRoots", KernelOptions{Roots: []string{}}, caisson.ErrNotFound, "none is installed"},
		{"Arch", KernelOptions{Image: image, Arch: "arm64"}, caisson.ErrUnsupported, "it is for amd64, and arm64 is needed"},
		{"ArchAfterNone", KernelOptions{Roots: []string{t.TempDir(), other}, Arch: "amd64"}, caisson.ErrUnsupported, "it is for arm64"},
		{"Absent", KernelOptions{Image: dir + "/absent"}, caisson.ErrNotFound, "no such file"},
		{"Folder", KernelOptions{Image: dir}, caisson.ErrInvalid, "not a regular file"},
		{"Modules", KernelOptions{Image: image, Modules: dir + "/absent", Arch: "amd64"}, caisson.ErrNotFound, "no such folder"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, err := FindKernel(&tt.o)
			if k != nil || !errors.Is(err, tt.kind) || !matches(err, tt.err) || strings.Contains(err.Error(), "\n") {
				t.Errorf("FindKernel() = %+v, %v, want %v: %q on one line", k, err, tt.kind, tt.err)
			}
		})
	}
}

func FuzzReadHeader(f *testing.F) {
	f.Add(bz("6.1.0", true))
	f.Add(zboot(0x8664))
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := readHeader(bytes.NewReader(data))
		if err == nil && strings.ContainsAny(h.version, "/\x00\n ") {
			t.Errorf("version = %q, which could lead out of a folder", h.version)
		}
	})
}
