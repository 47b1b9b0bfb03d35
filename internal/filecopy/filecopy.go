// Package filecopy copies the contents of regular files in the cheapest way
// that the file systems have: as a clone that shares its blocks, else inside of
// the kernel, else through memory; holes stay holes. It can compute the digest
// on the way.
package filecopy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
)

// The refusals of this package.
var (
	// ErrLimit says that the file is larger than is permitted.
	ErrLimit = errors.New("larger than is permitted")
	// ErrChanged says that somebody wrote to the file while it was read.
	ErrChanged = errors.New("its size changed while it was read")
)

// Options says how to copy.
type Options struct {
	Limit int64 // bytes; more is ErrLimit; 0: none
	// Sum has the digest computed.
	Sum bool
	// Progress is called with the number of bytes done since its last call.
	Progress func(n int64)
}

// A Result is what was copied.
type Result struct {
	Size   int64
	SHA256 string // in hex, if it was asked for
	Cloned bool   // the blocks are shared with the source
}

// Clone makes the empty file dst share all blocks of src. It fails at once where
// the file systems can't.
func Clone(dst, src *os.File) error { return clone(dst, src) }

// chunk is how much is copied between two looks at the context.
const chunk = 8 << 20

// Copy copies all of the regular file src to the empty file dst, which must be
// open for reading too. After an error dst's contents are undefined.
func Copy(ctx context.Context, dst, src *os.File, opts *Options) (Result, error) {
	c, err := begin(ctx, src, opts)
	if err != nil {
		return Result{}, err
	}
	if clone(dst, src) == nil {
		return c.cloned(dst)
	}
	c.dst = dst
	return c.run()
}

// Sum reads all of src and returns its size and digest.
func Sum(ctx context.Context, src *os.File, opts *Options) (Result, error) {
	summing := Options{}
	if opts != nil {
		summing = *opts
	}
	summing.Sum = true
	c, err := begin(ctx, src, &summing)
	if err != nil {
		return Result{}, err
	}
	return c.run()
}

// A copier copies one file.
type copier struct {
	Options
	ctx      context.Context
	src, dst *os.File // dst is nil where only the digest is wanted
	size     int64
	hash     hash.Hash
	buf      []byte
}

func begin(ctx context.Context, src *os.File, opts *Options) (*copier, error) {
	c := &copier{ctx: ctx, src: src}
	if opts != nil {
		c.Options = *opts
	}
	info, err := src.Stat()
	if err != nil {
		return nil, err
	}
	c.size = info.Size()
	if c.Limit > 0 && c.size > c.Limit {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrLimit, c.size, c.Limit)
	}
	if c.Sum {
		c.hash = sha256.New()
	}
	return c, nil
}

// cloned finishes a copy whose data is in place already. The digest is the
// clone's, which nobody else can write to.
func (c *copier) cloned(dst *os.File) (Result, error) {
	info, err := dst.Stat()
	if err != nil {
		return Result{}, err
	}
	c.size = info.Size()
	if c.Limit > 0 && c.size > c.Limit {
		return Result{}, fmt.Errorf("%w: %d bytes, the limit is %d", ErrLimit, c.size, c.Limit)
	}
	if !c.Sum {
		c.tell(c.size)
		return Result{Size: c.size, Cloned: true}, nil
	}
	c.src = dst
	result, err := c.run()
	result.Cloned = true
	return result, err
}

// run goes through the file, data and holes by turns.
func (c *copier) run() (Result, error) {
	for at := int64(0); at < c.size; {
		data, end, err := nextData(c.src, at, c.size)
		if err != nil {
			return Result{}, err
		}
		if err := c.hole(data - at); err != nil {
			return Result{}, err
		}
		for at = data; at < end; {
			n, err := c.data(at, min(end-at, chunk))
			if err != nil {
				return Result{}, err
			}
			at += n
		}
	}
	return c.finish()
}

func (c *copier) finish() (Result, error) {
	if c.dst != nil {
		if err := c.dst.Truncate(c.size); err != nil {
			return Result{}, err
		}
	}
	info, err := c.src.Stat()
	if err != nil {
		return Result{}, err
	}
	if info.Size() != c.size {
		return Result{}, ErrChanged
	}
	result := Result{Size: c.size}
	if c.Sum {
		result.SHA256 = hex.EncodeToString(c.hash.Sum(nil))
	}
	return result, nil
}

// data copies n bytes at an offset and returns how many it did.
func (c *copier) data(at, n int64) (int64, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	if c.dst != nil && !c.Sum {
		done, err := copyRange(c.dst, c.src, at, n)
		if err == nil {
			c.tell(done)
			return done, nil
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			return 0, err
		}
	}
	if c.buf == nil {
		c.buf = make([]byte, 1<<20)
	}
	buf := c.buf[:min(n, int64(len(c.buf)))]
	read, err := c.src.ReadAt(buf, at)
	if read == 0 && (err == nil || errors.Is(err, io.EOF)) {
		return 0, ErrChanged
	}
	if read == 0 {
		return 0, err
	}
	if c.hash != nil {
		c.hash.Write(buf[:read])
	}
	if c.dst != nil {
		if _, err := c.dst.WriteAt(buf[:read], at); err != nil {
			return 0, err
		}
	}
	c.tell(int64(read))
	return int64(read), nil
}

var zeros = make([]byte, 1<<16)

// hole passes over n bytes of zeros.
func (c *copier) hole(n int64) error {
	c.tell(n)
	if c.hash == nil {
		return nil
	}
	for n > 0 {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		step := min(n, chunk)
		for n -= step; step > 0; {
			part := zeros[:min(step, int64(len(zeros)))]
			c.hash.Write(part)
			step -= int64(len(part))
		}
	}
	return nil
}

func (c *copier) tell(n int64) {
	if c.Progress != nil && n > 0 {
		c.Progress(n)
	}
}
