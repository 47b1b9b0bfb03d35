package seccomp

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// Where the kernel puts what a filter looks at, see struct seccomp_data.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16 // eight bytes each, little endian on both architectures
)

// The short names of the instructions that are used.
const (
	opLoad    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opEqual   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opAtLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K // jumps where A >= K
	opHasBit  = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	opJump    = unix.BPF_JMP | unix.BPF_JA | unix.BPF_K
	opReturn  = unix.BPF_RET | unix.BPF_K
)

// An arch is what differs between architectures.
type arch struct {
	audit uint32
	calls []call
}

// archOf returns the architecture that Go calls goarch.
func archOf(goarch string) (arch, error) {
	switch goarch {
	case "amd64":
		return arch{unix.AUDIT_ARCH_X86_64, callsAMD64}, nil
	case "arm64":
		return arch{unix.AUDIT_ARCH_AARCH64, callsARM64}, nil
	}
	return arch{}, &caisson.Error{
		Item: "seccomp", Kind: caisson.ErrUnsupported,
		Err: fmt.Errorf("there is no filter for %s", goarch),
	}
}

// A span is what is done with the system calls from a number up to the next
// span's.
type span struct {
	from uint32
	code []unix.SockFilter // ends in returns only
}

// compile makes the filter of one architecture: a search tree over the
// numbers, because it runs for every system call.
func compile(a arch) []unix.SockFilter {
	filter := []unix.SockFilter{
		{Code: opLoad, K: offsetArch},
		{Code: opEqual, Jt: 1, K: a.audit},
		{Code: opReturn, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: opLoad, K: offsetNumber},
	}
	return append(filter, tree(spans(a))...)
}

// spans cuts the numbers into spans with the same answer. The numbers of the
// x32 variant of amd64 have a high bit set, so they are among the unknown ones.
func spans(a arch) []span {
	calls := slices.SortedFunc(slices.Values(a.calls), func(x, y call) int { return cmp.Compare(x.number, y.number) })
	unknown := refuse(syscall.ENOSYS)
	list := []span{{0, unknown}}
	answers := answers()
	add := func(from uint32, code []unix.SockFilter) {
		last := &list[len(list)-1]
		switch {
		case last.from == from:
			last.code = code
			if len(list) > 1 && slices.Equal(list[len(list)-2].code, code) {
				list = list[:len(list)-1]
			}
		case !slices.Equal(last.code, code):
			list = append(list, span{from, code})
		}
	}
	for _, c := range calls {
		code, known := answers[c.name]
		if !known {
			code = refuse(syscall.EPERM)
		}
		add(c.number, code)
		if c.number < math.MaxUint32 {
			add(c.number+1, unknown)
		}
	}
	return list
}

// answers returns the code for each system call that is not simply refused.
func answers() map[string][]unix.SockFilter {
	m := make(map[string][]unix.SockFilter, len(allowed)+len(absent)+len(conditions))
	yes, missing := allow(), refuse(syscall.ENOSYS)
	for _, name := range allowed {
		m[name] = yes
	}
	for _, name := range absent {
		m[name] = missing
	}
	for i := range conditions {
		m[conditions[i].name] = conditions[i].code()
	}
	return m
}

// code returns the instructions that decide by the argument.
func (c *condition) code() []unix.SockFilter {
	code := []unix.SockFilter{{Code: opLoad, K: offsetArgs + 8*uint32(c.arg)}}
	// Each test returns at once; what falls through all of them is allowed,
	// or with a list of what is allowed, refused.
	test := func(op uint16, k uint32, then []unix.SockFilter) {
		code = append(code, unix.SockFilter{Code: op, Jf: 1, K: k})
		code = append(code, then...)
	}
	if c.mask != 0 {
		test(opHasBit, c.mask, refuse(c.errno))
	}
	for _, v := range c.never {
		test(opEqual, v, refuse(c.errno))
	}
	for _, v := range c.only {
		test(opEqual, v, allow())
	}
	if c.only != nil {
		return append(code, refuse(c.errno)...)
	}
	return append(code, allow()...)
}

// tree returns the code that finds the span of the number in the accumulator.
func tree(list []span) []unix.SockFilter {
	if len(list) == 1 {
		return list[0].code
	}
	middle := len(list) / 2
	lower, upper := tree(list[:middle]), tree(list[middle:])
	branch := unix.SockFilter{Code: opAtLeast, Jt: uint8(len(lower)), K: list[middle].from}
	code := []unix.SockFilter{branch}
	if len(lower) > math.MaxUint8 {
		// A conditional jump reaches 255 instructions only.
		code = []unix.SockFilter{
			{Code: opAtLeast, Jf: 1, K: branch.K},
			{Code: opJump, K: uint32(len(lower))},
		}
	}
	return append(append(code, lower...), upper...)
}

func allow() []unix.SockFilter {
	return []unix.SockFilter{{Code: opReturn, K: unix.SECCOMP_RET_ALLOW}}
}

func refuse(errno syscall.Errno) []unix.SockFilter {
	return []unix.SockFilter{{Code: opReturn, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}}
}
