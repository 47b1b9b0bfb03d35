//go:build unix

package qemu

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson/internal/ext4"
	"github.com/caissonrun/caisson/internal/safefs"
)

// tinyName is where the tiny program is on the disk of a probe.
const tinyName = "probe"

// tinyCode ends at once, successfully. With an argument it waits to be killed, and
// with two it connects to 192.0.2.1:443 and ends, successfully if that works:
//
//	mov rax, [rsp]
//	xor edi, edi
//	cmp rax, 2
//	jl exit
//	jg connect
//	wait: mov eax, 34 ; pause
//	syscall
//	jmp wait
//	connect: mov edi, 2 ; AF_INET
//	mov esi, 1 ; SOCK_STREAM
//	xor edx, edx
//	mov eax, 41 ; socket
//	syscall
//	mov edi, eax
//	push 0
//	mov rax, 0x010200c0bb010002 ; AF_INET, 443, 192.0.2.1
//	push rax
//	mov rsi, rsp
//	mov edx, 16
//	mov eax, 42 ; connect
//	syscall
//	mov edi, eax
//	exit: mov eax, 60
//	syscall
var tinyCode = []byte{
	0x48, 0x8b, 0x04, 0x24,
	0x31, 0xff,
	0x48, 0x83, 0xf8, 0x02,
	0x7c, 0x3e,
	0x7f, 0x09,
	0xb8, 0x22, 0x00, 0x00, 0x00,
	0x0f, 0x05,
	0xeb, 0xf7,
	0xbf, 0x02, 0x00, 0x00, 0x00,
	0xbe, 0x01, 0x00, 0x00, 0x00,
	0x31, 0xd2,
	0xb8, 0x29, 0x00, 0x00, 0x00,
	0x0f, 0x05,
	0x89, 0xc7,
	0x6a, 0x00,
	0x48, 0xb8, 0x02, 0x00, 0x01, 0xbb, 0xc0, 0x00, 0x02, 0x01,
	0x50,
	0x48, 0x89, 0xe6,
	0xba, 0x10, 0x00, 0x00, 0x00,
	0xb8, 0x2a, 0x00, 0x00, 0x00,
	0x0f, 0x05,
	0x89, 0xc7,
	0xb8, 0x3c, 0x00, 0x00, 0x00,
	0x0f, 0x05,
}

// tiny is a program for Linux on x86-64, so that a probe needs no image.
func tiny() []byte {
	const headers, at = 64 + 56, 0x400000
	size := uint64(headers + len(tinyCode))
	h := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Entry: at + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	p := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: at, Paddr: at, Filesz: size, Memsz: size, Align: 0x1000,
	}
	var b bytes.Buffer
	// Neither can fail.
	_ = binary.Write(&b, binary.LittleEndian, &h)
	_ = binary.Write(&b, binary.LittleEndian, &p)
	b.Write(tinyCode)
	return b.Bytes()
}

// tinyDisk makes a root file system with the tiny program in dir: a tree, and the
// disk of it.
func tinyDisk(ctx context.Context, dir string) (tree, disk string, err error) {
	tree, disk = filepath.Join(dir, "tree"), filepath.Join(dir, "disk")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", "", err
	}
	const everyone = 0o755
	program := filepath.Join(tree, tinyName)
	if err := errors.Join(os.WriteFile(program, tiny(), everyone), os.Chmod(program, everyone)); err != nil {
		return "", "", err
	}
	root, err := safefs.Open(tree, nil)
	if err != nil {
		return "", "", err
	}
	defer root.Close()
	f, err := os.OpenFile(disk, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return "", "", err
	}
	_, err = ext4.WriteTree(ctx, f, root, &ext4.TreeOptions{Options: ext4.Options{Name: "probe", Label: "caisson-probe"}})
	return tree, disk, errors.Join(err, f.Close())
}
