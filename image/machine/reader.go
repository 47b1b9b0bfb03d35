//go:build unix

package machine

import (
	"context"
	"errors"
	"hash"
	"io"

	"github.com/caissonrun/caisson"
)

// sentReader is what is read from outside: bounded, and with its digest.
type sentReader struct {
	ctx   context.Context
	rd    io.Reader
	sum   hash.Hash
	left  int64
	limit caisson.Bytes
	err   error // of what is read: it says nothing about the image
}

func (r *sentReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.rd.Read(p)
	r.sum.Write(p[:n])
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	if r.left -= int64(n); r.left < 0 {
		return n, invalid("more than %s were sent, the limit", r.limit)
	}
	return n, err
}

// plainReader is what comes out of a decompressor. It ends one that makes more
// than an archive's members can be: headers upon headers, or padding.
type plainReader struct {
	ctx  context.Context
	rd   io.Reader
	left int64
}

func (r *plainReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.rd.Read(p)
	if r.left -= int64(n); r.left < 0 {
		return n, invalid("it becomes more than its members can be")
	}
	return n, err
}
