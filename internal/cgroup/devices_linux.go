package cgroup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// devicesController is a hierarchy of version 1 only. On version 2 a program in
// the kernel decides instead: admin-guide/cgroup-v2, "Device controller".
const devicesController = "devices"

// setDevices lets the group's processes open character devices of the list and
// no other device at all.
func (g *Group) setDevices(list []Device) error {
	list = merged(list)
	if d, err := g.controller(devicesController); err == nil {
		return d.allow(list)
	}
	d, ok := g.unified()
	if !ok {
		return g.whyMissing(devicesController)
	}
	return d.attach(deviceProgram(list))
}

// merged returns the list with each device once: what may be written to in one
// place may be.
func merged(list []Device) []Device {
	var out []Device
	for _, d := range list {
		i := slices.IndexFunc(out, func(o Device) bool {
			return o.Major == d.Major && o.AnyMinor == d.AnyMinor && (o.AnyMinor || o.Minor == d.Minor)
		})
		if i < 0 {
			out = append(out, d)
			continue
		}
		out[i].ReadOnly = out[i].ReadOnly && d.ReadOnly
	}
	return out
}

// allow writes the rules of version 1, and reads them back.
func (d *folder) allow(list []Device) error {
	if err := write(filepath.Join(d.path, "devices.deny"), "a"); err != nil {
		return err
	}
	var want []string
	for _, one := range list {
		if err := write(filepath.Join(d.path, "devices.allow"), one.rule()); err != nil {
			return fmt.Errorf("%s: %w", one.rule(), err)
		}
		want = append(want, one.rule())
	}
	data, err := os.ReadFile(filepath.Join(d.path, "devices.list"))
	if err != nil {
		return err
	}
	have := strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		return fmt.Errorf("devices.list: the kernel says %q, want %q", have, want)
	}
	return nil
}

// rule is the device in the words of version 1, see admin-guide/cgroup-v1/devices.
func (d *Device) rule() string {
	minor, access := strconv.FormatUint(uint64(d.Minor), 10), "r"
	if d.AnyMinor {
		minor = "*"
	}
	if !d.ReadOnly {
		access = "rw"
	}
	return fmt.Sprintf("c %d:%s %s", d.Major, minor, access)
}

// attach gives the group a program that decides about devices. It goes with the
// group.
func (d *folder) attach(program []instruction) error {
	fd, err := load(program)
	if err != nil {
		return fmt.Errorf("load the program that decides about devices: %w", err)
	}
	defer unix.Close(fd)
	dir, err := unix.Open(d.path, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	attr := struct{ target, program, kind, flags uint32 }{
		uint32(dir), uint32(fd), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI,
	}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)); errno != 0 {
		return fmt.Errorf("attach the program that decides about devices: %w", errno)
	}
	return nil
}

// An instruction is one of the kernel's virtual machine, see the standard
// "BPF instruction set architecture" (RFC 9669).
type instruction struct {
	code byte
	regs byte // destination, and source times 16
	off  int16
	imm  int32
}

// The codes that are used.
const (
	loadWord  = 0x61 // dst = *(u32 *)(src + off)
	move      = 0xbf // dst = src
	moveNow   = 0xb7 // dst = imm
	andNow    = 0x57 // dst &= imm
	shiftNow  = 0x77 // dst >>= imm
	unlessNow = 0x55 // skip off instructions if dst != imm
	exitCode  = 0x95
)

// Registers: 0 is the answer, 1 the question, a struct bpf_cgroup_dev_ctx.
const (
	answer, question, kind, access, major, minor, rest = 0, 1, 2, 3, 4, 5, 6
)

// deviceProgram answers 1 for what the list allows, and else 0.
func deviceProgram(list []Device) []instruction {
	p := []instruction{
		{loadWord, kind | question<<4, 0, 0},
		{move, access | kind<<4, 0, 0},
		{andNow, kind, 0, 0xffff},
		{shiftNow, access, 0, 16},
		{loadWord, major | question<<4, 4, 0},
		{loadWord, minor | question<<4, 8, 0},
	}
	for _, d := range list {
		p = append(p, d.instructions()...)
	}
	return append(p, instruction{moveNow, answer, 0, 0}, instruction{exitCode, 0, 0, 0})
}

// instructions answer 1 if it is this device and no access is asked for that is
// not allowed, and otherwise come to their end.
func (d *Device) instructions() []instruction {
	forbidden := int32(0xffff &^ unix.BPF_DEVCG_ACC_READ)
	if !d.ReadOnly {
		forbidden &^= unix.BPF_DEVCG_ACC_WRITE
	}
	tests := []instruction{
		{unlessNow, kind, 0, unix.BPF_DEVCG_DEV_CHAR},
		{move, rest | access<<4, 0, 0},
		{andNow, rest, 0, forbidden},
		{unlessNow, rest, 0, 0},
		{unlessNow, major, 0, int32(d.Major)},
	}
	if !d.AnyMinor {
		tests = append(tests, instruction{unlessNow, minor, 0, int32(d.Minor)})
	}
	for i := range tests {
		if tests[i].code == unlessNow {
			tests[i].off = int16(len(tests) - i + 1) // past the answer
		}
	}
	return append(tests, instruction{moveNow, answer, 0, 1}, instruction{exitCode, 0, 0, 0})
}

// load gives a program to the kernel, which checks it.
func load(program []instruction) (int, error) {
	var code bytes.Buffer
	for _, i := range program {
		code.WriteByte(i.code)
		code.WriteByte(i.regs)
		_ = binary.Write(&code, binary.NativeEndian, i.off) // a buffer never fails
		_ = binary.Write(&code, binary.NativeEndian, i.imm)
	}
	text, license := code.Bytes(), []byte("Apache-2.0\x00")
	attr := struct {
		kind, count   uint32
		text, license uint64
		level, size   uint32
		log           uint64
		kernel, flags uint32
	}{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(program)),
		text: uint64(uintptr(unsafe.Pointer(&text[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(text)
	runtime.KeepAlive(license)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// errBadDevice is of numbers that no device has.
var errBadDevice = errors.New("no number of a device")

func checkDevices(list []Device) error {
	for _, d := range list {
		if d.Major >= 1<<12 || d.Minor >= 1<<20 {
			return fmt.Errorf("%d:%d: %w", d.Major, d.Minor, errBadDevice)
		}
	}
	return nil
}
