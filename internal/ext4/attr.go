//go:build unix

package ext4

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
)

// attrBlock is what the extended attributes of a file look like on the disk.
type attrBlock struct {
	data  []byte
	block int64 // counted from the first one of data
}

// attrPrefixes are the attributes that go to a disk, by the numbers that ext4
// has for what their names begin with. The others mean something to this host's
// kernel, or to its overlays.
var attrPrefixes = []struct {
	prefix string
	index  byte
}{{"user.", 1}, {"security.", 6}}

// wantedAttr reports whether a file on a disk gets the attribute.
func wantedAttr(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// attr is an attribute with its name as ext4 has it.
type attr struct {
	index byte
	name  string
	value []byte
}

// encodeAttrs returns the block with the attributes, nil without any. Errors:
// ErrUnsupported if there are more than fit.
func encodeAttrs(all map[string][]byte) ([]byte, error) {
	list := sortedAttrs(all)
	if len(list) == 0 {
		return nil, nil
	}
	b := make([]byte, blockSize)
	le := binary.LittleEndian
	le.PutUint32(b[0:], 0xea020000)
	le.PutUint32(b[4:], 1) // a file has it
	le.PutUint32(b[8:], 1) // block
	at, end := 32, blockSize
	for i := range list {
		a := &list[i]
		size := (16 + len(a.name) + 3) &^ 3
		// Four bytes of zeros end the list.
		if at+size+4 > end-pad4(len(a.value)) || len(a.name) > 255 {
			return nil, &caisson.Error{Kind: caisson.ErrUnsupported, Err: fmt.Errorf(
				"its extended attributes are more than the %d bytes that a file on a disk can have", blockSize)}
		}
		end -= pad4(len(a.value))
		copy(b[end:], a.value)
		b[at], b[at+1] = byte(len(a.name)), a.index
		le.PutUint16(b[at+2:], uint16(end))
		le.PutUint32(b[at+8:], uint32(len(a.value)))
		le.PutUint32(b[at+12:], attrHash(a.name, b[end:end+pad4(len(a.value))]))
		copy(b[at+16:], a.name)
		at += size
	}
	return b, nil
}

func pad4(n int) int { return (n + 3) &^ 3 }

// sortedAttrs returns what goes to the disk, in the order that the kernel looks
// names up in.
func sortedAttrs(all map[string][]byte) []attr {
	var list []attr
	for name, value := range all {
		if !wantedAttr(name) {
			continue
		}
		for _, p := range attrPrefixes {
			if rest, ok := strings.CutPrefix(name, p.prefix); ok && rest != "" {
				list = append(list, attr{p.index, rest, value})
			}
		}
	}
	slices.SortFunc(list, func(a, b attr) int {
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(len(a.name), len(b.name)), strings.Compare(a.name, b.name))
	})
	return list
}

// attrHash is the checksum of an attribute, its value filled up with zeros.
func attrHash(name string, value []byte) uint32 {
	var hash uint32
	for i := range len(name) {
		hash = hash<<5 ^ hash>>27 ^ uint32(name[i])
	}
	for ; len(value) >= 4; value = value[4:] {
		hash = hash<<16 ^ hash>>16 ^ binary.LittleEndian.Uint32(value)
	}
	return hash
}
