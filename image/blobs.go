//go:build unix

package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
)

// OpImage is the operation of the errors of this package.
const OpImage caisson.Op = "image"

// The folders of blobs, and the ends of names in them.
const (
	blobsDir   = "blobs"
	partialDir = "partial"
	grantsDir  = "grants"
	lockSuffix = ".lock"
	public     = "public" // the grant to everybody
)

// blobs keeps blobs under their digests. What has a name there is complete,
// durable and has that digest.
//
// A blob is had only by who has a grant: those who have downloaded all of it
// with the same credentials once, or everybody. Nobody gets at somebody else's
// image by claiming to have one with the same layers.
type blobs struct{ dir string }

// path returns where a blob is, or would be. Errors: ErrUnsupported for other
// digests than sha256.
func (b *blobs) path(digest v1.Hash) (string, error) {
	if digest.Algorithm != "sha256" || !isHex(digest.Hex, sha256.Size) {
		return "", problem(digest.String(), caisson.ErrUnsupported, errors.New("digests other than sha256 are not supported"))
	}
	return filepath.Join(b.dir, blobsDir, digest.Hex), nil
}

// isHex reports whether text is size bytes in lower-case hexadecimal.
func isHex(text string, size int) bool {
	data, err := hex.DecodeString(text)
	return err == nil && len(data) == size && strings.ToLower(text) == text
}

// open opens a blob for reading. Errors: ErrNotFound.
func (b *blobs) open(digest v1.Hash) (*os.File, error) {
	path, err := b.path(digest)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem(digest.String(), caisson.ErrNotFound, errors.New("not in the store"))
	}
	return f, sorted(digest.String(), err)
}

// size returns a blob's size, -1 if it is not there.
func (b *blobs) size(digest v1.Hash) int64 {
	path, err := b.path(digest)
	if err != nil {
		return -1
	}
	info, err := os.Stat(path)
	if err != nil {
		return -1
	}
	return info.Size()
}

// read returns a blob of at most limit bytes. Errors: ErrNotFound, also if it
// was damaged, and is then removed; ErrInvalid if it is larger.
func (b *blobs) read(digest v1.Hash, limit int64) ([]byte, error) {
	f, err := b.open(digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, problem(digest.String(), caisson.ErrInvalid, fmt.Errorf("larger than %d bytes", limit))
	}
	if err != nil {
		return nil, sorted(digest.String(), err)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != digest.Hex {
		return nil, b.dropDamaged(digest)
	}
	return data, nil
}

// dropDamaged removes a blob that the disk has damaged, so that it is pulled
// again.
func (b *blobs) dropDamaged(digest v1.Hash) error {
	path, err := b.path(digest)
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return sorted(digest.String(), err)
	}
	return problem(digest.String(), caisson.ErrNotFound, errors.New("it was damaged on disk, and is removed: pull the image again"))
}

// verify reads a whole blob. Errors: ErrNotFound, as read.
func (b *blobs) verify(digest v1.Hash) error {
	f, err := b.open(digest)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return sorted(digest.String(), err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != digest.Hex {
		return b.dropDamaged(digest)
	}
	return nil
}

// write stores data, whose digest must be the given one (ErrInvalid), and grants
// it to access.
func (b *blobs) write(digest v1.Hash, data []byte, access string) error {
	path, err := b.path(digest)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	if hex.EncodeToString(sum[:]) != digest.Hex {
		return wrongDigest(digest, sum[:])
	}
	if b.size(digest) < 0 {
		if err := b.put(path, data); err != nil {
			return sorted(digest.String(), err)
		}
	}
	return b.grant(digest, access)
}

func (b *blobs) put(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	crash.Point(crash.BlobBefore)
	if err := atomicfile.Write(path, data, 0o600); err != nil {
		return err
	}
	crash.Point(crash.BlobAfter)
	return nil
}

func wrongDigest(want v1.Hash, got []byte) error {
	return problem(want.String(), caisson.ErrInvalid, fmt.Errorf("what came has the digest sha256:%x: it is damaged, or not what was asked for", got))
}

// granted reports whether access, or everybody, may have a blob.
func (b *blobs) granted(digest v1.Hash, access string) bool {
	for _, who := range []string{access, ""} {
		if _, err := os.Lstat(b.grantPath(digest, who)); err == nil {
			return true
		}
	}
	return false
}

// grant notes durably that access may have a blob.
func (b *blobs) grant(digest v1.Hash, access string) error {
	if b.granted(digest, access) {
		return nil
	}
	path := b.grantPath(digest, access)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return sorted(digest.String(), err)
	}
	crash.Point(crash.GrantBefore)
	if err := atomicfile.Write(path, nil, 0o600); err != nil {
		return sorted(digest.String(), err)
	}
	crash.Point(crash.GrantAfter)
	return nil
}

func (b *blobs) grantPath(digest v1.Hash, access string) string {
	return filepath.Join(b.dir, grantsDir, digest.Hex, accessName(access))
}

// accessName is access as a file's name.
func accessName(access string) string {
	if access == "" {
		return public
	}
	if isHex(access, sha256.Size) {
		return access
	}
	sum := sha256.Sum256([]byte(access))
	return hex.EncodeToString(sum[:])
}

// A fetch says how a blob is had.
type fetch struct {
	digest v1.Hash
	size   int64 // that it must have; -1: not known
	limit  int64 // the most that it may have; 0: no limit
	access string
	// open begins to read at offset, which is not 0 where a former download was
	// cut. It returns where the stream really begins: offset, or 0.
	open func(ctx context.Context, offset int64) (rd io.ReadCloser, at int64, err error)
	// tell is called with how much of it is here. May be nil.
	tell func(done int64)
}

// fetch makes the blob be there and granted. Of several callers with the same
// access, in all processes, one downloads and the others wait; what a killed or
// cut download has left is gone on with.
//
// Errors: ErrInvalid for a digest or size that is wrong, and nothing of it
// stays; those of open and of what it returns, and what came stays.
func (b *blobs) fetch(ctx context.Context, f *fetch) error {
	path, err := b.path(f.digest)
	if err != nil {
		return err
	}
	if b.size(f.digest) >= 0 && b.granted(f.digest, f.access) {
		return f.done(b.size(f.digest))
	}
	if f.limit > 0 && f.size > f.limit {
		return f.tooLarge()
	}
	d := &download{fetch: f, dir: filepath.Join(b.dir, partialDir), path: path}
	d.partial = filepath.Join(d.dir, f.digest.Hex+"-"+accessName(f.access))
	for _, dir := range []string{d.dir, filepath.Dir(path)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return sorted(f.digest.String(), err)
		}
	}
	lock, err := lockfile.Acquire(ctx, d.partial+lockSuffix)
	if err != nil {
		return sorted(f.digest.String(), err)
	}
	defer func() {
		os.Remove(d.partial + lockSuffix)
		lock.Release()
	}()
	// Somebody may have done it while this call waited.
	if b.size(f.digest) < 0 || !b.granted(f.digest, f.access) {
		if err := d.run(ctx); err != nil {
			return err
		}
		if err := b.grant(f.digest, f.access); err != nil {
			return err
		}
	}
	return f.done(b.size(f.digest))
}

func (f *fetch) done(size int64) error {
	if f.tell != nil && size >= 0 {
		f.tell(size)
	}
	return nil
}

func (f *fetch) tooLarge() error {
	return problem(f.digest.String(), caisson.ErrInvalid, fmt.Errorf("larger than %d bytes, the limit", f.limit))
}

// A download is one try to have a blob, by who holds its lock.
type download struct {
	*fetch
	dir, path string
	partial   string
	file      *os.File
	have      int64
	sum       hash.Hash
}

func (d *download) run(ctx context.Context) error {
	var err error
	if d.file, err = os.OpenFile(d.partial, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return sorted(d.digest.String(), err)
	}
	defer d.file.Close()
	if err := d.resume(); err != nil {
		return sorted(d.digest.String(), err)
	}
	resumed := d.have > 0
	err = d.receive(ctx)
	if err == nil {
		err = d.commit()
	}
	if resumed && errors.Is(err, caisson.ErrInvalid) {
		// What a crash has left may be damaged: that is not the other side's fault.
		if err = d.restart(); err == nil {
			if err = d.receive(ctx); err == nil {
				err = d.commit()
			}
		}
	}
	// What is wrong is of no use, and a full disk is not to stay full.
	if kind := caisson.KindOf(err); kind == caisson.ErrInvalid || kind == caisson.ErrExhausted {
		os.Remove(d.partial)
	}
	return err
}

// resume computes the digest of what is here.
func (d *download) resume() error {
	d.sum = sha256.New()
	n, err := io.Copy(d.sum, d.file)
	if err != nil || d.size >= 0 && n > d.size {
		return d.restart()
	}
	d.have = n
	return nil
}

func (d *download) restart() error {
	d.sum, d.have = sha256.New(), 0
	if _, err := d.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return d.file.Truncate(0)
}

// receive appends what is missing.
func (d *download) receive(ctx context.Context) error {
	if d.size >= 0 && d.have == d.size {
		return nil
	}
	rd, at, err := d.open(ctx, d.have)
	if err != nil {
		return err
	}
	defer rd.Close()
	if at != d.have {
		if at != 0 {
			return problem(d.digest.String(), caisson.ErrInternal, fmt.Errorf("bug: asked from byte %d on, got it from %d", d.have, at))
		}
		if err := d.restart(); err != nil {
			return sorted(d.digest.String(), err)
		}
	}
	return d.copy(ctx, rd)
}

func (d *download) copy(ctx context.Context, rd io.Reader) error {
	most := d.limit
	if d.size >= 0 {
		most = d.size
	}
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := rd.Read(buf)
		if most > 0 && d.have+int64(n) > most || d.size == 0 && n > 0 {
			return problem(d.digest.String(), caisson.ErrInvalid, fmt.Errorf("more than %d bytes came", most))
		}
		if n > 0 {
			d.sum.Write(buf[:n])
			if _, err := d.file.Write(buf[:n]); err != nil {
				return sorted(d.digest.String(), err)
			}
			d.have += int64(n)
			d.done(d.have)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", d.digest, err)
		}
	}
}

// commit checks what came and gives it its name.
func (d *download) commit() error {
	if d.size >= 0 && d.have != d.size {
		return problem(d.digest.String(), caisson.ErrInvalid, fmt.Errorf("%d bytes came, want %d", d.have, d.size))
	}
	if got := d.sum.Sum(nil); !bytes.Equal(got, mustHex(d.digest.Hex)) {
		return wrongDigest(d.digest, got)
	}
	crash.Point(crash.BlobBefore)
	if err := d.file.Sync(); err != nil {
		return sorted(d.digest.String(), err)
	}
	if err := os.Rename(d.partial, d.path); err != nil {
		return sorted(d.digest.String(), err)
	}
	crash.Point(crash.BlobAfter)
	return sorted(d.digest.String(), atomicfile.SyncDir(filepath.Dir(d.path)))
}

// mustHex decodes what isHex was true for.
func mustHex(text string) []byte {
	data, _ := hex.DecodeString(text)
	return data
}

// problem makes an error of this package.
func problem(item string, kind caisson.Kind, err error) error {
	return &caisson.Error{Op: OpImage, Item: item, Kind: kind, Err: err}
}

// sorted sorts an error of the system by what the reader can do.
func sorted(item string, err error) error { return safefs.Sorted(OpImage, item, err) }
