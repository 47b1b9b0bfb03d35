// Package redact takes secret values out of a stream of bytes.
//
// A value is found however the stream is cut into pieces, as it is and in the
// forms in which programs print it: base64 with either alphabet, at every
// alignment inside of longer data, padded or not; in hexadecimal; escaped for
// URLs and for JSON. Each is replaced by [Marker], and no other byte is touched.
//
// In base64 the first and last character may hold bits of what stands beside
// the value. These characters stay: they tell at most four bits of it.
//
// A short value would be found where it is not meant, so values shorter than
// [MinSecret] are refused, and encoded forms shorter than [MinForm] are not
// looked for.
package redact

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/caissonrun/caisson"
)

// Marker stands where a value was.
const Marker = "[redacted]"

// Sizes in bytes.
const (
	MinSecret = 4        // the shortest value, without line ends behind it
	MinForm   = 6        // the shortest encoded form that is looked for
	MaxSecret = 64 << 10 // the longest value
)

// The search looks at blocks of three bytes, each hashed to an index of the
// table of shifts.
const (
	blockSize = 3
	tableBits = 16
)

// A Set is a set of values to be found. It does not change, and may be used by
// several Writers at once. Its memory does not grow with the stream.
//
// The search is that of Wu and Manber: the last block of a window as long as
// the shortest pattern tells how far the window can be moved. So most bytes are
// never looked at.
type Set struct {
	patterns [][]byte // sorted, none twice
	window   int      // the length of the shortest
	longest  int
	shifts   []uint8 // by hash of a block

	// Patterns by the hash of their window's last block, sorted by it.
	hashes []uint16
	byHash []int32

	// Whether a pattern begins with a byte, or with two.
	first  [256 / 64]uint64
	second [65536 / 64]uint64
}

// Compile returns the set of secrets with all their forms. Empty secrets are
// skipped.
//
// Errors: ErrInvalid if one is shorter than MinSecret or longer than MaxSecret;
// the message tells which by its place in the list, not its value.
func Compile(secrets [][]byte) (*Set, error) {
	var patterns [][]byte
	for i, secret := range secrets {
		if len(secret) == 0 {
			continue
		}
		value := bytes.TrimRight(secret, "\r\n")
		if len(value) < MinSecret {
			return nil, invalid(fmt.Errorf("secret %d is shorter than %d bytes: it can't be told from other output", i+1, MinSecret))
		}
		if len(secret) > MaxSecret {
			return nil, invalid(fmt.Errorf("secret %d is longer than %d bytes", i+1, MaxSecret))
		}
		patterns = append(patterns, forms(value)...)
		if len(value) < len(secret) {
			patterns = append(patterns, forms(secret)...)
		}
	}
	slices.SortFunc(patterns, bytes.Compare)
	patterns = slices.CompactFunc(patterns, bytes.Equal)
	s := &Set{patterns: slices.Clip(patterns)}
	if len(patterns) > 0 {
		s.index()
	}
	return s, nil
}

func invalid(err error) error {
	return &caisson.Error{Item: "secrets", Kind: caisson.ErrInvalid, Err: err}
}

// Empty reports whether there is nothing to be found.
func (s *Set) Empty() bool { return len(s.patterns) == 0 }

// index makes the tables.
func (s *Set) index() {
	s.window = len(s.patterns[0])
	for _, p := range s.patterns {
		s.window = min(s.window, len(p))
		s.longest = max(s.longest, len(p))
		s.first[p[0]/64] |= 1 << (p[0] % 64)
		pair := uint16(p[0]) | uint16(p[1])<<8
		s.second[pair/64] |= 1 << (pair % 64)
	}
	// A shift must fit its type.
	s.window = min(s.window, 255)

	s.shifts = bytes.Repeat([]byte{uint8(s.window - blockSize + 1)}, 1<<tableBits)
	for i, p := range s.patterns {
		for end := blockSize; end <= s.window; end++ {
			h := hash(uint32(p[end-3]) | uint32(p[end-2])<<8 | uint32(p[end-1])<<16)
			s.shifts[h] = min(s.shifts[h], uint8(s.window-end))
			if end == s.window {
				s.hashes = append(s.hashes, h)
				s.byHash = append(s.byHash, int32(i))
			}
		}
	}
	s.sortByHash()
}

func (s *Set) sortByHash() {
	order := slices.Clone(s.byHash)
	slices.SortFunc(order, func(a, b int32) int { return int(s.hashes[a]) - int(s.hashes[b]) })
	hashes := make([]uint16, len(order))
	for i, p := range order {
		hashes[i] = s.hashes[p]
	}
	s.hashes, s.byHash = hashes, order
}

func hash(block uint32) uint16 {
	return uint16(block * 0x9e3779b1 >> (32 - tableBits))
}

// find returns the first place, from start on and before end, where a pattern
// lies in data, and the length of the longest one there. It returns end and 0
// if there is none.
func (s *Set) find(data []byte, start, end int) (at, length int) {
	window, shifts := s.window, s.shifts
	stop := min(end, len(data)-window+1)
	for start < stop {
		h := hash(binary.LittleEndian.Uint32(data[start+window-4:]) >> 8)
		if shift := shifts[h]; shift > 0 {
			start += int(shift)
			continue
		}
		if n := s.match(data[start:], h); n > 0 {
			return start, n
		}
		start++
	}
	return end, 0
}

// match returns the length of the longest pattern with hash h that data begins
// with, or 0.
func (s *Set) match(data []byte, h uint16) int {
	longest := 0
	i, _ := slices.BinarySearch(s.hashes, h)
	for ; i < len(s.hashes) && s.hashes[i] == h; i++ {
		if p := s.patterns[s.byHash[i]]; len(p) > longest && bytes.HasPrefix(data, p) {
			longest = len(p)
		}
	}
	return longest
}

// hold returns the first place in data, from start on, from which on data may
// be the beginning of a pattern, and len(data) if there is none. With most,
// only beginnings that are more than half of a pattern count.
func (s *Set) hold(data []byte, start int, most bool) int {
	n := len(data)
	for i := max(start, n-s.longest+1); i < n; i++ {
		if i+1 < n {
			pair := uint16(data[i]) | uint16(data[i+1])<<8
			if s.second[pair/64]&(1<<(pair%64)) == 0 {
				continue
			}
		} else if s.first[data[i]/64]&(1<<(data[i]%64)) == 0 {
			continue
		}
		if s.begins(data[i:], most) {
			return i
		}
	}
	return n
}

// begins reports whether a longer pattern begins with part, and, with most,
// whether part is more than half of it.
func (s *Set) begins(part []byte, most bool) bool {
	i, _ := slices.BinarySearchFunc(s.patterns, part, bytes.Compare)
	for ; i < len(s.patterns) && bytes.HasPrefix(s.patterns[i], part); i++ {
		length := len(s.patterns[i])
		if length > len(part) && (!most || len(part) > length/2) {
			return true
		}
	}
	return false
}
