// Package tasklog is the format of the log of one step: records of output
// bytes, each with its stream, time and offset. Bytes are kept as they were
// written; which stream they came from is out of band, so that no task can
// forge it.
//
// A log is a file that begins with [Header]. Records follow, each a head of 32
// bytes and then its data:
//
//	0   1  0xca
//	1   1  stream
//	2   1  flags: bit 0 is set in the record that tells that the limit was reached
//	3   1  zero
//	4   4  length of the data
//	8   8  time, nanoseconds since 1970 UTC
//	16  8  offset of the data's first byte in its stream
//	24  4  zero
//	28  4  CRC-32C of the 28 bytes before it and of the data
//
// Numbers are little-endian. A record appears at once or not at all to a
// reader: one that is incomplete, or damaged at the very end of the file, is
// one that is being written, or was when its writer died.
//
// Offsets count what the program wrote, also what was lost because the disk
// was full. So a gap in them is a loss, which a System record puts in words.
package tasklog

import (
	"encoding/binary"
	"hash/crc32"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
)

// Header is what a log file begins with; its number is the format's version.
const Header = "caisson log 1\n\n\n"

// MaxData is the largest amount of data in one record, in bytes. It is the
// size of a pipe, which is the most that one read gives.
const MaxData = 64 << 10

const (
	headSize  = 32
	magic     = 0xca
	flagLimit = 1
)

// A Stream is where bytes came from.
type Stream uint8

// The streams.
const (
	Stdout Stream = 1
	Stderr Stream = 2
	System Stream = 3 // what Caisson says, such as that the limit was reached
)

// String returns the stream's name in lower case: stdout, stderr or system.
func (s Stream) String() string {
	switch s {
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	case System:
		return "system"
	}
	return "unknown"
}

// A Record is some bytes of one stream.
type Record struct {
	Stream Stream
	Time   time.Time
	Offset int64 // of Data's first byte in its stream
	Data   []byte
	Pos    int64 // where the next record begins in the file; to follow from
}

// A head is the part of a record before its data.
type head struct {
	stream Stream
	flags  uint8
	length int
	time   int64
	offset int64
	sum    uint32
}

// castagnoli is made when it is first needed: a keeper whose program prints
// nothing starts sooner without.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// sum returns the sum of a record.
func sum(head, data []byte) uint32 {
	table := castagnoli()
	return crc32.Update(crc32.Checksum(head[:28], table), table, data)
}

// appendRecord appends a whole record to buf.
func appendRecord(buf []byte, h head, data []byte) []byte {
	start := len(buf)
	buf = append(buf, magic, byte(h.stream), h.flags, 0)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(data)))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(h.time))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(h.offset))
	buf = binary.LittleEndian.AppendUint32(buf, 0)
	buf = binary.LittleEndian.AppendUint32(buf, sum(buf[start:], data))
	return append(buf, data...)
}

// parseHead reads the head of a record; ok is false if it can't be one.
func parseHead(b []byte) (h head, ok bool) {
	h = head{
		stream: Stream(b[1]),
		flags:  b[2],
		length: int(binary.LittleEndian.Uint32(b[4:])),
		time:   int64(binary.LittleEndian.Uint64(b[8:])),
		offset: int64(binary.LittleEndian.Uint64(b[16:])),
		sum:    binary.LittleEndian.Uint32(b[28:]),
	}
	known := h.stream >= Stdout && h.stream <= System
	return h, b[0] == magic && known && h.length <= MaxData && h.offset >= 0
}

func invalid(path, cause string) error {
	return &caisson.Error{Item: path, Kind: caisson.ErrInvalid, Err: errorString(cause)}
}

type errorString string

func (e errorString) Error() string { return string(e) }
