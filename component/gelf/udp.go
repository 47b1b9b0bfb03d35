package gelf

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// Bounds of messages in chunks, as the format has them.
const (
	maxChunks    = 128
	chunkHeader  = 12
	chunkTime    = 5 * time.Second
	maxSets      = 64 // that are waited for at once
	maxDatagram  = 64 << 10
	drainPerRead = 50 * time.Millisecond
)

// receive takes datagrams until Close, and then those that have arrived.
func (l *Listener) receive() {
	defer l.senders.Done()
	defer l.packets.Close()
	sets := chunkSets{l: l, sets: map[string]*chunkSet{}}
	defer sets.end()
	buf := make([]byte, maxDatagram)
	var last time.Time // when to stop after Close
	for {
		n, from, err := l.packets.ReadFrom(buf)
		switch {
		case err == nil:
			l.datagram(&sets, from, buf[:n])
		case errors.Is(err, os.ErrDeadlineExceeded) && last.IsZero() && l.closed():
			last = time.Now().Add(drainTime)
		case errors.Is(err, net.ErrClosed), l.closed():
			return
		}
		if l.closed() {
			if last.IsZero() {
				last = time.Now().Add(drainTime)
			}
			until := time.Now().Add(drainPerRead)
			if until.After(last) {
				return
			}
			l.packets.SetReadDeadline(until)
		}
	}
}

// datagram takes a message or a part of one.
func (l *Listener) datagram(sets *chunkSets, from net.Addr, data []byte) {
	if len(data) > 1 && data[0] == 0x1e && data[1] == 0x0f {
		sets.add(from, data)
		return
	}
	l.packed(data)
}

// packed takes a message that may be compressed.
func (l *Listener) packed(data []byte) {
	plain, err := unpack(data, l.opts.MaxMessage)
	if err != nil {
		l.give(bad(data, "%v", err))
		return
	}
	if plain = bytes.TrimRight(plain, "\x00 \r\n"); len(plain) > 0 {
		l.take(plain)
	}
}

// unpack decompresses what begins as zlib or gzip does.
func unpack(data []byte, most int) ([]byte, error) {
	var r io.Reader
	var err error
	switch {
	case len(data) > 1 && data[0] == 0x78:
		r, err = zlib.NewReader(bytes.NewReader(data))
	case len(data) > 1 && data[0] == 0x1f && data[1] == 0x8b:
		r, err = gzip.NewReader(bytes.NewReader(data))
	default:
		r = bytes.NewReader(data)
	}
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if len(plain) > most {
		return nil, fmt.Errorf("longer than %d bytes", most)
	}
	return plain, err
}

// chunkSets are messages of which some parts are there.
type chunkSets struct {
	l    *Listener
	sets map[string]*chunkSet // by sender and id
	lost int                  // sets that were given up
}

type chunkSet struct {
	began  time.Time
	chunks [][]byte
	have   int
	size   int
}

// add takes a chunk, and the message when it is the last one of it.
func (c *chunkSets) add(from net.Addr, data []byte) {
	if len(data) <= chunkHeader {
		c.l.give(bad(data, "a chunk without contents"))
		return
	}
	id, number, count := string(data[2:10]), int(data[10]), int(data[11])
	if count == 0 || count > maxChunks || number >= count {
		c.l.give(bad(data[:chunkHeader], "chunk %d of %d", number, count))
		return
	}
	c.expire()
	key := from.String() + "/" + id
	set := c.sets[key]
	if set == nil {
		set = &chunkSet{began: c.l.now(), chunks: make([][]byte, count)}
		c.sets[key] = set
	}
	if len(set.chunks) != count {
		c.l.give(bad(data[:chunkHeader], "a chunk of %d among those of %d", count, len(set.chunks)))
		return
	}
	if set.chunks[number] != nil {
		return
	}
	set.chunks[number] = bytes.Clone(data[chunkHeader:])
	set.have++
	set.size += len(data) - chunkHeader
	switch {
	case set.size > c.l.opts.MaxMessage:
		delete(c.sets, key)
		c.l.give(bad(nil, "longer than %d bytes", c.l.opts.MaxMessage))
	case set.have == count:
		delete(c.sets, key)
		c.l.packed(bytes.Join(set.chunks, nil))
	}
}

// expire gives up sets that take too long, and the oldest where there are too
// many.
func (c *chunkSets) expire() {
	oldest := ""
	for key, set := range c.sets {
		if c.l.now().Sub(set.began) > chunkTime {
			delete(c.sets, key)
			c.lost++
			continue
		}
		if oldest == "" || set.began.Before(c.sets[oldest].began) {
			oldest = key
		}
	}
	if len(c.sets) >= maxSets {
		delete(c.sets, oldest)
		c.lost++
	}
}

// end tells what never came.
func (c *chunkSets) end() {
	if lost := c.lost + len(c.sets); lost > 0 {
		c.l.give(bad(nil, "of %d messages in chunks some chunks did not arrive", lost))
	}
}
