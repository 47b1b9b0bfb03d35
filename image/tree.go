//go:build unix

package image

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image/machine"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
)

// The names in the folder of trees.
const (
	treesDir   = "trees"
	newSuffix  = ".new"
	rootName   = "rootfs"
	treeFile   = "tree.json"
	treeFormat = 1 // counts up when the unpacker makes something else of a layer
	userFormat = 2 // likewise, where all files are the caller's
)

// ratioFree is what a layer may become however small it is sent.
const ratioFree = 256 << 20

// maxWindow is the most memory that a zstd stream may ask for.
const maxWindow = 128 << 20

// treeInfo is what tree.json holds.
type treeInfo struct {
	Version int           `json:"version"`
	Bytes   caisson.Bytes `json:"bytes"`   // on disk
	Entries int           `json:"entries"` // of all layers
	Skipped []string      `json:"skipped,omitempty"`
	// Machine is what the tree is where it is no root file system.
	Machine *machine.Image `json:"machine,omitempty"`
}

// treeKey names the tree of an image: by its layers as they were sent, which
// were checked, and by what the unpacker does with them. What a configuration
// says of its layers does not count, or it would give access to others' trees.
func treeKey(m *v1.Manifest, owned, setID bool) string {
	sum := sha256.New()
	format := treeFormat
	if !owned {
		format = userFormat
	}
	fmt.Fprintf(sum, "%d %t %t\n", format, owned, setID)
	for i := range m.Layers {
		fmt.Fprintln(sum, m.Layers[i].Digest)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// treeKeys returns all keys that the image's tree can have.
func treeKeys(m *v1.Manifest) []string {
	if isMachine(m) {
		return []string{machineKey(m)}
	}
	return []string{treeKey(m, true, false), treeKey(m, false, false), treeKey(m, true, true), treeKey(m, false, true)}
}

func (s *Store) treeKey(img *Image) string {
	if img.isMachine() {
		return machineKey(img.manifest)
	}
	return treeKey(img.manifest, os.Geteuid() == 0, s.opts.SetID)
}

// tree makes the image's tree be there and returns its folder. Of several
// callers, in all processes, one unpacks and the others wait.
func (s *Store) tree(ctx context.Context, img *Image, tell func(Progress)) (string, error) {
	dir := s.path(treesDir, s.treeKey(img))
	if _, err := os.Lstat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(s.path(treesDir), 0o700); err != nil {
		return "", sorted(img.Name, err)
	}
	lock, err := lockfile.Acquire(ctx, dir+lockSuffix)
	if err != nil {
		return "", sorted(img.Name, err)
	}
	defer func() {
		os.Remove(dir + lockSuffix)
		lock.Release()
	}()
	if _, err := os.Lstat(dir); err == nil {
		return dir, nil
	}
	if err := s.unpack(ctx, img, dir, tell); err != nil {
		return "", err
	}
	return dir, nil
}

// unpack makes the tree dir under another name, and renames it once it is
// complete and durable.
func (s *Store) unpack(ctx context.Context, img *Image, dir string, tell func(Progress)) (err error) {
	trees, err := safefs.Open(s.path(treesDir), nil)
	if err != nil {
		return sorted(img.Name, err)
	}
	defer trees.Close()
	temp := filepath.Base(dir) + newSuffix
	if err := trees.RemoveAll(ctx, temp); err != nil {
		return sorted(img.Name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, trees.RemoveAll(context.WithoutCancel(ctx), temp))
		}
	}()
	name, fill := rootName, s.unpackLayers
	if img.isMachine() {
		name, fill = machineName, s.unpackMachine
	}
	if err := trees.MkdirAll(temp+"/"+name, 0o755, nil); err != nil {
		return sorted(img.Name, err)
	}
	if err := fill(ctx, img, trees, temp, tell); err != nil {
		return err
	}
	crash.Point(crash.TreeBefore)
	if err := syncAll(s.path(treesDir)); err != nil {
		return sorted(img.Name, err)
	}
	if err := trees.Rename(temp, filepath.Base(dir)); err != nil {
		return sorted(img.Name, err)
	}
	crash.Point(crash.TreeAfter)
	return sorted(img.Name, trees.Sync("."))
}

func (s *Store) unpackLayers(ctx context.Context, img *Image, trees *safefs.Root, temp string, tell func(Progress)) error {
	root, err := trees.Sub(temp + "/" + rootName)
	if err != nil {
		return sorted(img.Name, err)
	}
	defer root.Close()
	u := newUnpacker(ctx, root, s.opts.Limits)
	u.setID = s.opts.SetID
	p := &progress{tell: tell, total: img.Size}
	for i := range img.manifest.Layers {
		crash.Point(crash.LayerBefore)
		digest := img.manifest.Layers[i].Digest
		if err := s.unpackLayer(u, digest, img.diffIDs[i], p); err != nil {
			if errors.Is(err, caisson.ErrInvalid) {
				// Who is to blame: who made the layer, or this disk?
				err = cmp.Or(s.blobs.verify(digest), err)
			}
			return layerError(img, digest, err)
		}
	}
	onDisk, err := u.finish()
	if err != nil {
		return sorted(img.Name, err)
	}
	info := &treeInfo{Version: treeFormat, Bytes: caisson.Bytes(onDisk), Entries: u.entries, Skipped: u.skippedNames()}
	data, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if u.owners != nil {
		if err := trees.WriteFile(temp+"/"+ownersFile, u.owners, 0o600, nil); err != nil {
			return sorted(img.Name, err)
		}
	}
	return sorted(img.Name, trees.WriteFile(temp+"/"+treeFile, append(data, '\n'), 0o600, nil))
}

// layerError says in which layer of which image it was.
func layerError(img *Image, digest v1.Hash, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &caisson.Error{Op: OpImage, Item: img.Name, Kind: safefs.Kind(err), Err: fmt.Errorf("layer %s: %w", shortDigest(digest), err)}
}

// shortDigest is a digest as people know it.
func shortDigest(digest v1.Hash) string {
	return digest.Algorithm + ":" + digest.Hex[:min(12, len(digest.Hex))]
}

// skippedNames returns some of the devices that were left out.
func (u *unpacker) skippedNames() []string {
	names := make([]string, 0, len(u.skipped))
	for name := range u.skipped {
		names = append(names, name)
	}
	slices.Sort(names)
	return names[:min(len(names), maxSkipped)]
}

// progress adds up what was unpacked, in bytes as they were sent.
type progress struct {
	tell        func(Progress)
	done, total caisson.Bytes
}

func (p *progress) add(n int) {
	p.done += caisson.Bytes(n)
	if p.tell != nil {
		p.tell(Progress{Done: p.done, Total: p.total})
	}
}

// unpackLayer unpacks a blob and checks that what it holds is what the image's
// configuration says.
func (s *Store) unpackLayer(u *unpacker, digest, diffID v1.Hash, p *progress) error {
	blob, err := s.blobs.open(digest)
	if err != nil {
		return err
	}
	defer blob.Close()
	info, err := blob.Stat()
	if err != nil {
		return err
	}
	plain, err := decompress(bufio.NewReaderSize(&countingReader{blob, p}, 256<<10))
	if err != nil {
		return err
	}
	plain = readAhead(plain)
	defer plain.Close()
	// A file that is one large hole is small in the stream, too.
	u.most = u.bytes + info.Size()*int64(s.opts.Limits.Ratio) + ratioFree
	stream := &layerStream{
		rd: plain, u: u, sum: sha256.New(),
		most: min(info.Size()*int64(s.opts.Limits.Ratio)+ratioFree, int64(s.opts.Limits.Bytes)-u.streamed),
	}
	if err := u.layer(stream); err != nil {
		return err
	}
	// What comes behind the archive's end belongs to the digest as well.
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return u.damaged(err)
	}
	if got := hex.EncodeToString(stream.sum.Sum(nil)); diffID.Algorithm != "sha256" || got != diffID.Hex {
		return &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("it holds sha256:%s, but the image's configuration says %s", got, diffID)}
	}
	return nil
}

type countingReader struct {
	rd io.Reader
	p  *progress
}

func (r *countingReader) Read(buf []byte) (int, error) {
	n, err := r.rd.Read(buf)
	r.p.add(n)
	return n, err
}

// layerStream computes a layer's digest and ends a bomb.
type layerStream struct {
	rd   io.Reader
	u    *unpacker
	sum  hash.Hash
	most int64
	have int64
}

func (l *layerStream) Read(p []byte) (int, error) {
	n, err := l.rd.Read(p)
	l.sum.Write(p[:n])
	l.have += int64(n)
	l.u.streamed += int64(n)
	if l.have > l.most {
		return n, overLimit("bytes, or too many times what was sent", l.most)
	}
	return n, err
}

// decompress tells how a layer is compressed by its first bytes: what a
// manifest says of it is often wrong.
func decompress(rd *bufio.Reader) (io.ReadCloser, error) {
	magic, err := rd.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		zr, err := gzip.NewReader(rd)
		if err != nil {
			return nil, &caisson.Error{Kind: caisson.ErrInvalid, Err: err}
		}
		return zr, nil
	case string(magic) == "\x28\xb5\x2f\xfd":
		zr, err := zstd.NewReader(rd, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, &caisson.Error{Kind: caisson.ErrInvalid, Err: err}
		}
		return zr.IOReadCloser(), nil
	case len(magic) >= 3 && string(magic[:3]) == "BZh", string(magic) == "\xfd7zX":
		return nil, &caisson.Error{Kind: caisson.ErrUnsupported, Err: errors.New("compressed by bzip2 or xz: only gzip and zstd are supported")}
	}
	return io.NopCloser(rd), nil
}

// ahead decompresses on one processor while another one writes files.
type ahead struct {
	chunks chan []byte
	stop   chan struct{}
	done   chan struct{}
	err    error // that ended the reading, once chunks is closed; io.EOF if all came
	rest   []byte
}

// readAhead reads rd in a goroutine, which ends with Close or the end of rd, and
// closes it.
func readAhead(rd io.ReadCloser) *ahead {
	a := &ahead{chunks: make(chan []byte, 8), stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(a.done)
		defer close(a.chunks)
		defer rd.Close()
		for a.err == nil {
			chunk := make([]byte, 256<<10)
			n := 0
			for n < len(chunk) && a.err == nil {
				var more int
				more, a.err = rd.Read(chunk[n:])
				n += more
			}
			select {
			case a.chunks <- chunk[:n]:
			case <-a.stop:
				return
			}
		}
	}()
	return a
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		chunk, ok := <-a.chunks
		if !ok {
			return 0, a.err
		}
		a.rest = chunk
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close ends the reading and waits for it.
func (a *ahead) Close() error {
	close(a.stop)
	<-a.done
	return nil
}

// treeInfoOf reads what is known of a tree. Errors: fs.ErrNotExist.
func treeInfoOf(dir string) (*treeInfo, error) {
	data, err := os.ReadFile(filepath.Join(dir, treeFile))
	if err != nil {
		return nil, err
	}
	info := new(treeInfo)
	if err := json.Unmarshal(data, info); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", dir, fs.ErrInvalid, err)
	}
	return info, nil
}
