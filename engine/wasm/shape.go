package wasm

import (
	"errors"
	"fmt"
)

// What a module may have, as in browsers. A compiler takes memory by what a
// module says that it has, before it finds that it has not.
const (
	maxLocals = 50_000     // of one function
	maxCode   = 8 << 20    // bytes of one function
	maxTable  = 10_000_000 // entries that a table begins with
)

// Numbers of sections.
const (
	sectionCustom = 0
	sectionTable  = 4
	sectionMemory = 5
	sectionStart  = 8
	sectionCode   = 10
	sectionLast   = 12
)

// errShort says that a module ends too early.
var errShort = errors.New("it is cut off")

// checkShape refuses a module whose numbers are out of all proportion, and
// returns how large a memory it begins with, in pages. What is wrong with it
// otherwise the compiler finds.
func checkShape(module []byte) (memory uint64, err error) {
	r := &shape{data: module[8:]}
	for len(r.data) > 0 && r.err == nil {
		id := r.byte()
		body := &shape{data: r.take(r.number())}
		if r.err != nil {
			break
		}
		if err := body.section(id); err != nil {
			return 0, fmt.Errorf("section %d: %w", id, err)
		}
		memory += body.memory
	}
	return memory, r.err
}

// A shape is a part of a module that is read from its beginning.
type shape struct {
	data   []byte
	err    error  // the first one
	memory uint64 // pages that memories begin with
}

// byte returns the next byte.
func (s *shape) byte() byte {
	part := s.take(1)
	if len(part) == 0 {
		return 0
	}
	return part[0]
}

// take returns the next n bytes.
func (s *shape) take(n uint64) []byte {
	if n > uint64(len(s.data)) {
		s.err, s.data = errShort, nil
		return nil
	}
	part := s.data[:n]
	s.data = s.data[n:]
	return part
}

// number returns the next number of 32 bits.
func (s *shape) number() uint64 {
	var n uint64
	for shift := 0; shift < 35; shift += 7 {
		b := s.byte()
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
	s.err = errors.New("a number is too long")
	return 0
}

// section checks what is in a section. Each thing that it counts has a byte at
// least.
func (s *shape) section(id byte) error {
	if id == sectionCustom || id == sectionStart || id > sectionLast {
		return nil
	}
	count := s.number()
	// The last section only says how many there are in another one.
	if count > uint64(len(s.data)) && id != sectionLast {
		return errors.Join(s.err, fmt.Errorf("it says that it has %d entries in %d bytes", count, len(s.data)))
	}
	for range count {
		switch id {
		case sectionCode:
			s.function()
		case sectionTable:
			s.byte() // what is in it
			if n := s.least(); n > maxTable {
				s.err = fmt.Errorf("a table begins with %d entries, more than %d", n, maxTable)
			}
		case sectionMemory:
			s.memory += s.least()
		}
		if s.err != nil {
			return s.err
		}
	}
	return nil
}

// function checks a function's size and locals.
func (s *shape) function() {
	size := s.number()
	if size > maxCode {
		s.err = fmt.Errorf("a function of %d bytes is larger than %d", size, maxCode)
		return
	}
	body := &shape{data: s.take(size)}
	var locals uint64
	for range min(body.number(), maxLocals) {
		locals += body.number()
		body.byte()
		if locals > maxLocals {
			s.err = fmt.Errorf("a function has more than %d locals", maxLocals)
			return
		}
	}
}

// least returns the first of the bounds that a table or memory has.
func (s *shape) least() uint64 {
	bounded := s.byte()
	n := s.number()
	if bounded&1 == 1 {
		s.number()
	}
	return n
}
