package attack

import (
	"encoding/binary"
	"slices"
)

// A module is a WebAssembly module in the making: its _start calls functions of
// WASI, one after the other, with arguments that no compiler would make, and
// prints what each of them answered and what they have written.
type module struct {
	memory  []byte   // as it begins, from address 0
	names   []string // of imported functions, in their order
	kinds   [][]byte // their parameters
	body    []byte
	results int // calls so far
}

// Where things are in a module's memory.
const (
	outVector   = 0     // of what is printed
	outCount    = 8     // how much of it was
	firstFree   = 64    // of texts and vectors
	resultsAt   = 32768 // what calls have answered, 4 bytes each
	maxResults  = 1024
	bufferAt    = resultsAt + 4*maxResults // what calls may write to
	bufferSize  = 4096
	memoryPages = 1
)

// The types of values.
const (
	i32 = 0x7f
	i64 = 0x7e
)

// An operand is an argument of a call.
type operand struct {
	kind byte
	n    int64
	load bool // n is the address of the argument
}

// num is a number of 32 bits, large one of 64, and at the one that is at an
// address when the call is made.
func num(n int64) operand   { return operand{kind: i32, n: n} }
func large(n int64) operand { return operand{kind: i64, n: n} }
func at(n int64) operand    { return operand{kind: i32, n: n, load: true} }

func newModule() *module {
	m := &module{memory: make([]byte, firstFree)}
	binary.LittleEndian.PutUint32(m.memory[outVector:], resultsAt)
	return m
}

// text puts a text into the memory and returns where it is, as two arguments.
func (m *module) text(s string) (address, size operand) {
	a := len(m.memory)
	m.memory = append(m.memory, s...)
	for len(m.memory)%8 != 0 {
		m.memory = append(m.memory, 0)
	}
	return num(int64(a)), num(int64(len(s)))
}

// vector puts the address and size of a buffer into the memory and returns where
// they are.
func (m *module) vector(address, size uint32) operand {
	a := len(m.memory)
	m.memory = binary.LittleEndian.AppendUint32(m.memory, address)
	m.memory = binary.LittleEndian.AppendUint32(m.memory, size)
	return num(int64(a))
}

// call calls a function of WASI. What it answers is printed.
func (m *module) call(name string, args ...operand) {
	m.number(int64(resultsAt + 4*m.results))
	m.results++
	for _, a := range args {
		switch {
		case a.kind == i64:
			m.body = append(m.body, 0x42)
			m.body = appendSigned(m.body, a.n)
		default:
			m.number(a.n)
		}
		if a.load {
			m.body = append(m.body, 0x28, 2, 0)
		}
	}
	m.body = append(m.body, 0x10)
	m.body = appendUnsigned(m.body, uint64(m.function(name, args)))
	m.body = append(m.body, 0x36, 2, 0)
}

// number puts a number of 32 bits on the stack.
func (m *module) number(n int64) {
	m.body = appendSigned(append(m.body, 0x41), int64(int32(uint32(n))))
}

// function returns the index of an imported function.
func (m *module) function(name string, args []operand) int {
	if i := slices.Index(m.names, name); i >= 0 {
		return i
	}
	kinds := make([]byte, len(args))
	for i, a := range args {
		kinds[i] = a.kind
	}
	m.names, m.kinds = append(m.names, name), append(m.kinds, kinds)
	return len(m.names) - 1
}

// bytes returns the module, which prints results and buffer at its end.
func (m *module) bytes() []byte {
	binary.LittleEndian.PutUint32(m.memory[outVector+4:], uint32(bufferAt+bufferSize-resultsAt))
	m.call("fd_write", num(1), num(outVector), num(1), num(outCount))

	const wasi = "wasi_snapshot_preview1"
	types, imports := appendUnsigned(nil, uint64(len(m.names)+1)), appendUnsigned(nil, uint64(len(m.names)))
	for i, name := range m.names {
		types = append(append(append(types, 0x60, byte(len(m.kinds[i]))), m.kinds[i]...), 1, i32)
		imports = append(append(imports, byte(len(wasi))), wasi...)
		imports = append(append(append(imports, byte(len(name))), name...), 0, byte(i))
	}
	types = append(types, 0x60, 0, 0)
	code := append(append([]byte{0}, m.body...), 0x0b)
	code = append(appendUnsigned([]byte{1}, uint64(len(code))), code...)
	data := appendUnsigned([]byte{1, 0, 0x41, 0, 0x0b}, uint64(len(m.memory)))

	out := []byte{0, 'a', 's', 'm', 1, 0, 0, 0}
	for _, s := range []struct {
		id   byte
		body []byte
	}{
		{1, types},
		{2, imports},
		{3, []byte{1, byte(len(m.names))}},
		{5, []byte{1, 0, memoryPages}},
		{7, append([]byte{2, 6, '_', 's', 't', 'a', 'r', 't', 0, byte(len(m.names)), 6}, "memory\x02\x00"...)},
		{10, code},
		{11, append(data, m.memory...)},
	} {
		out = append(appendUnsigned(append(out, s.id), uint64(len(s.body))), s.body...)
	}
	return out
}

// appendUnsigned and appendSigned append a number as WebAssembly writes it.
func appendUnsigned(out []byte, n uint64) []byte {
	for n >= 0x80 {
		out = append(out, byte(n)|0x80)
		n >>= 7
	}
	return append(out, byte(n))
}

func appendSigned(out []byte, n int64) []byte {
	for {
		b := byte(n & 0x7f)
		n >>= 7
		if n == 0 && b&0x40 == 0 || n == -1 && b&0x40 != 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}
