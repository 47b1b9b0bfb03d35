// Package bootdisk makes a disk with a file system one that a BIOS boots a Linux
// kernel from, without a boot loader of anybody else's and without root.
//
// The boot sector is 512 bytes of its own (boot.asm), in the first block of the
// disk, which file systems such as ext4 leave free. Kernel, initramfs and command line lie
// behind the file system, as they come into memory: the boot sector knows where,
// and nothing of file systems. Everything that a boot loader has to find out was
// found out when the disk was made.
package bootdisk

import (
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/caissonrun/caisson"
)

//go:embed boot.bin
var sector []byte

const (
	sectorSize = 512
	tableAt    = 4
	// Where the kernel's part for 16 bits is in memory, its heap ends and its
	// command line begins.
	setupAt   = 0x10000
	heapEnd   = 0xe000
	lineSize  = 2048
	kernelAt  = 0x100000
	alignment = 4096
	// maxKernel and maxInitrd bound what is read into memory.
	maxKernel = 128 << 20
	maxInitrd = 512 << 20
)

// Fields of the boot protocol of x86, by their places in the kernel's file.
const (
	fieldSetupSectors = 0x1f1
	fieldVideo        = 0x1fa
	fieldMagic        = 0x202
	fieldProtocol     = 0x206
	fieldLoader       = 0x210
	fieldFlags        = 0x211
	fieldRamdisk      = 0x218
	fieldRamdiskSize  = 0x21c
	fieldHeapEnd      = 0x224
	fieldCmdline      = 0x228
	fieldRamdiskMax   = 0x22c
	fieldPreferred    = 0x258
	fieldInitSize     = 0x260

	leastProtocol = 0x20a // which says how much memory the kernel needs
	flagHigh      = 1     // the kernel lies above 1 MiB
	flagHeap      = 0x80
	otherLoader   = 0xff
	videoNormal   = 0xffff
)

// A Boot is what a disk boots.
type Boot struct {
	Kernel  io.Reader // a bzImage
	Initrd  []byte
	Cmdline string
}

// A Disk is what was made.
type Disk struct {
	Size caisson.Bytes
	// Memory is the least that a machine needs in order to boot it.
	Memory caisson.Bytes
}

// Install makes the disk in f one that boots b. Its first sector must be free;
// what is needed is put behind its end.
//
// Errors: ErrInvalid for what is no kernel, or too large.
func Install(f *os.File, b *Boot) (*Disk, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	kernel, err := io.ReadAll(io.LimitReader(b.Kernel, maxKernel+1))
	if err != nil {
		return nil, err
	}
	l, err := newLayout(kernel, b)
	if err != nil {
		return nil, err
	}
	boot := append([]byte(nil), sector...)
	at := roundUp(info.Size())
	for i, p := range l.parts {
		if _, err := f.WriteAt(p.data, at); err != nil {
			return nil, err
		}
		sectors := (len(p.data) + sectorSize - 1) / sectorSize
		entry := boot[tableAt+12*i:]
		binary.LittleEndian.PutUint32(entry, uint32(at/sectorSize))
		binary.LittleEndian.PutUint32(entry[4:], uint32(sectors))
		binary.LittleEndian.PutUint32(entry[8:], p.to)
		at = roundUp(at + int64(len(p.data)))
		if at/sectorSize > 1<<32-1 {
			return nil, invalid("the disk is larger than 2 TiB")
		}
	}
	if err := f.Truncate(at); err != nil {
		return nil, err
	}
	// What makes it boot is last.
	if _, err := f.WriteAt(boot, 0); err != nil {
		return nil, err
	}
	return &Disk{Size: caisson.Bytes(at), Memory: l.memory}, nil
}

func roundUp(n int64) int64 { return (n + alignment - 1) / alignment * alignment }

func invalid(format string, args ...any) error {
	return &caisson.Error{Item: "boot disk", Kind: caisson.ErrInvalid, Err: fmt.Errorf(format, args...)}
}

// A part is what the boot sector copies to memory.
type part struct {
	data []byte
	to   uint32
}

// A layout is what will be in memory when the kernel starts.
type layout struct {
	parts  [3]part
	memory caisson.Bytes
}

// newLayout fills in the kernel's header as a boot loader does.
func newLayout(kernel []byte, b *Boot) (*layout, error) {
	le := binary.LittleEndian
	switch {
	case len(kernel) > maxKernel:
		return nil, invalid("the kernel has more than %d MiB", maxKernel>>20)
	case len(kernel) < 0x1000 || string(kernel[fieldMagic:fieldMagic+4]) != "HdrS" || kernel[fieldFlags]&flagHigh == 0:
		return nil, invalid("the kernel is no bzImage, which a BIOS can boot")
	case le.Uint16(kernel[fieldProtocol:]) < leastProtocol:
		return nil, invalid("the kernel is older than 2.6.31")
	case len(b.Initrd) > maxInitrd:
		return nil, invalid("the initramfs has more than %d MiB", maxInitrd>>20)
	case len(b.Cmdline) >= lineSize:
		return nil, invalid("the kernel's command line is longer than %d bytes", lineSize-1)
	}
	head := (int(kernel[fieldSetupSectors]) + 1) * sectorSize
	if kernel[fieldSetupSectors] == 0 {
		head = 5 * sectorSize
	}
	if head > heapEnd-0x1000 || head >= len(kernel) {
		return nil, invalid("%w", errors.New("the kernel's part for 16 bits is too large"))
	}
	setup := make([]byte, heapEnd+lineSize)
	copy(setup, kernel[:head])
	copy(setup[heapEnd:], b.Cmdline)
	// Behind all that the kernel needs until it knows of the initramfs.
	code := kernel[head:]
	end := max(int64(le.Uint64(kernel[fieldPreferred:])), kernelAt+int64(len(code))) + int64(le.Uint32(kernel[fieldInitSize:]))
	ramdisk := roundUp(end)
	if last := ramdisk + int64(len(b.Initrd)); last > int64(le.Uint32(kernel[fieldRamdiskMax:])) {
		return nil, invalid("kernel and initramfs are too large for each other")
	}
	le.PutUint16(setup[fieldVideo:], videoNormal)
	setup[fieldLoader] = otherLoader
	setup[fieldFlags] |= flagHeap
	le.PutUint16(setup[fieldHeapEnd:], heapEnd-0x200)
	le.PutUint32(setup[fieldCmdline:], setupAt+heapEnd)
	le.PutUint32(setup[fieldRamdisk:], uint32(ramdisk))
	le.PutUint32(setup[fieldRamdiskSize:], uint32(len(b.Initrd)))
	l := &layout{parts: [3]part{{setup, setupAt}, {code, kernelAt}, {b.Initrd, uint32(ramdisk)}}}
	// The initramfs is unpacked beside itself.
	l.memory = caisson.Bytes(roundUp(ramdisk+3*int64(len(b.Initrd)))) + 32*caisson.MiB
	return l, nil
}
