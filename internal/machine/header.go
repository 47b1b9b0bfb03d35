package machine

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"strings"
)

// A header is what an image says of itself.
type header struct {
	arch    string // in Go's words, or the number that the image has
	version string // as of uname -r; empty where it does not tell
}

// maxImage is how much of an image is searched for its version.
const maxImage = 256 << 20

// errNoKernel says that a file has none of the forms that kernels have.
var errNoKernel = errors.New("it is not a Linux kernel that QEMU can boot")

// readHeader tells an image's form by its first bytes: bzImage, as of x86; Image,
// as of arm64; a compressed one that unpacks itself as an EFI program; ELF.
func readHeader(r io.ReaderAt) (header, error) {
	head := make([]byte, 4096)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return header{}, err
	}
	head = head[:n]
	switch {
	case len(head) >= 0x240 && string(head[0x202:0x206]) == "HdrS":
		return bzImage(r, head)
	case len(head) >= 64 && string(head[56:60]) == "ARM\x64":
		version, err := scanVersion(r)
		return header{"arm64", version}, err
	case len(head) >= 64 && string(head[:2]) == "MZ" && string(head[4:8]) == "zimg":
		arch, err := peArch(head)
		return header{arch: arch}, err
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return elfImage(r)
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return header{}, errors.New("it is compressed by gzip as a whole: unpack it first")
	case len(head) == 0:
		return header{}, errors.New("it is empty")
	}
	return header{}, errNoKernel
}

// Places in the header of a bzImage, from the boot protocol of x86.
const (
	x86Protocol   = 0x206
	x86Version    = 0x20e // of the text, less 0x200
	x86LoadFlags  = 0x211
	x86XLoadFlags = 0x236
	// Since this protocol there are XLoadFlags.
	x86Protocol64 = 0x20c
)

// bzImage reads the header of the boot protocol of x86.
func bzImage(r io.ReaderAt, head []byte) (header, error) {
	if head[x86LoadFlags]&1 == 0 {
		return header{}, errNoKernel
	}
	h := header{arch: "386"}
	if binary.LittleEndian.Uint16(head[x86Protocol:]) >= x86Protocol64 && head[x86XLoadFlags]&1 != 0 {
		h.arch = "amd64"
	}
	at := binary.LittleEndian.Uint16(head[x86Version:])
	if at == 0 {
		return h, nil
	}
	text := make([]byte, 256)
	n, err := r.ReadAt(text, int64(at)+0x200)
	if err != nil && err != io.EOF {
		return header{}, err
	}
	h.version = firstWord(text[:n])
	if h.version == "" {
		return header{}, errors.New("it is truncated, or its header is damaged")
	}
	return h, nil
}

// firstWord is the version in front of what else a kernel says of its build.
func firstWord(text []byte) string {
	end := bytes.IndexAny(text, " \x00\n")
	if end < 0 {
		return ""
	}
	for _, c := range text[:end] {
		if c <= ' ' || c > '~' || c == '/' {
			return ""
		}
	}
	return string(text[:end])
}

// peArch reads which processor an EFI program is for.
func peArch(head []byte) (string, error) {
	at := int(binary.LittleEndian.Uint32(head[0x3c:]))
	if at < 0 || at > len(head)-6 || string(head[at:at+4]) != "PE\x00\x00" {
		return "", errNoKernel
	}
	switch binary.LittleEndian.Uint16(head[at+4:]) {
	case 0xaa64:
		return "arm64", nil
	case 0x8664:
		return "amd64", nil
	case 0x5064:
		return "riscv64", nil
	}
	return "an unknown processor", nil
}

// elfImage reads an uncompressed kernel.
func elfImage(r io.ReaderAt) (header, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return header{}, errNoKernel
	}
	arch := strings.ToLower(strings.TrimPrefix(f.Machine.String(), "EM_"))
	switch f.Machine {
	case elf.EM_X86_64:
		arch = "amd64"
	case elf.EM_AARCH64:
		arch = "arm64"
	}
	version, err := scanVersion(r)
	if err == nil && version == "" {
		err = errNoKernel
	}
	return header{arch, version}, err
}

// scanVersion looks for the line that a kernel begins its log with.
func scanVersion(r io.ReaderAt) (string, error) {
	const mark = "Linux version "
	buf := make([]byte, 1<<20)
	for off := int64(0); off < maxImage; off += int64(len(buf)) - 256 {
		n, err := r.ReadAt(buf, off)
		for rest := buf[:n]; ; {
			_, after, found := bytes.Cut(rest, []byte(mark))
			if !found {
				break
			}
			// The same words stand in a format too.
			if v := firstWord(after); v != "" && v[0] >= '0' && v[0] <= '9' {
				return v, nil
			}
			rest = after
		}
		if err == io.EOF {
			return "", nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
}
