//go:build unix

package wasm

import (
	"sync/atomic"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// A ceiling bounds the memories of one module together, and remembers what was
// asked of it. It implements experimental.MemoryAllocator.
type ceiling struct {
	limit  caisson.Bytes
	used   atomic.Int64
	peak   atomic.Int64
	denied atomic.Bool
}

var _ experimental.MemoryAllocator = (*ceiling)(nil)

// Allocate implements experimental.MemoryAllocator. The address space is had at
// once, the memory itself with its use.
func (c *ceiling) Allocate(_, most uint64) experimental.LinearMemory {
	size := min(most, uint64(c.limit))
	m := &memory{ceiling: c}
	if size > 0 {
		all, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|mapNoReserve)
		if err == nil {
			m.all = all
		}
	}
	return m
}

// A memory is one linear memory.
type memory struct {
	ceiling *ceiling
	all     []byte // as far as it can grow
	size    int64
}

// Reallocate implements experimental.LinearMemory.
func (m *memory) Reallocate(size uint64) []byte {
	more := int64(size) - m.size
	if size > uint64(len(m.all)) || m.ceiling.used.Load()+more > int64(m.ceiling.limit) {
		m.ceiling.denied.Store(true)
		return nil
	}
	m.size = int64(size)
	used := m.ceiling.used.Add(more)
	m.ceiling.peak.Store(max(m.ceiling.peak.Load(), used))
	return m.all[:size]
}

// Free implements experimental.LinearMemory.
func (m *memory) Free() {
	m.ceiling.used.Add(-m.size)
	m.size = 0
	if m.all != nil {
		_ = unix.Munmap(m.all)
		m.all = nil
	}
}
