package seccomp

import (
	"runtime"
	"slices"
	"syscall"
)

// A Profile is what the filter does in a form that other programs can be told:
// those that take names of system calls, and compare single arguments. What is
// in none of the lists is refused.
type Profile struct {
	Architectures []string // as libseccomp calls them
	Refused       syscall.Errno
	Allowed       []string
	Missing       []string // answered with Absent
	Absent        syscall.Errno
	Masked        []Argument // allowed where the argument has none of the bits of Mask
	Only          []Argument // allowed where the argument is one of Values
}

// An Argument is what is asked of a system call's argument.
type Argument struct {
	Name   string
	Arg    int
	Mask   uint32
	Values []uint32
}

// Outline returns the profile. It is a little coarser than the filter: a call
// that the filter refuses for single values is allowed.
func Outline() Profile {
	p := Profile{
		Refused: syscall.EPERM, Absent: syscall.ENOSYS,
		Allowed: slices.Clone(allowed), Missing: slices.Clone(absent),
	}
	switch runtime.GOARCH {
	case "amd64":
		p.Architectures = []string{"SCMP_ARCH_X86_64"}
	case "arm64":
		p.Architectures = []string{"SCMP_ARCH_AARCH64"}
	}
	for _, c := range conditions {
		switch {
		case c.mask != 0:
			p.Masked = append(p.Masked, Argument{Name: c.name, Arg: c.arg, Mask: c.mask})
		case c.only != nil:
			p.Only = append(p.Only, Argument{Name: c.name, Arg: c.arg, Values: slices.Clone(c.only)})
		default:
			p.Allowed = append(p.Allowed, c.name)
		}
	}
	return p
}
