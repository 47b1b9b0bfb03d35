package act

import (
	"encoding/binary"
	"io"
)

// Pattern returns an endless stream of bytes of every value that depends only
// on seed, and that looks the same at no two places.
func Pattern(seed uint64) io.Reader { return &pattern{state: seed*2862933555777941757 + 3037000493} }

type pattern struct {
	state uint64
	block [8]byte
	left  int // bytes of block that were not read yet
}

// Read implements io.Reader with a xorshift generator.
func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		if p.left == 0 {
			p.state ^= p.state << 13
			p.state ^= p.state >> 7
			p.state ^= p.state << 17
			binary.LittleEndian.PutUint64(p.block[:], p.state)
			p.left = len(p.block)
		}
		b[i] = p.block[len(p.block)-p.left]
		p.left--
	}
	return len(b), nil
}
