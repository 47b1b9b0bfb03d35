//go:build unix

package image

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

// The file with what an ordinary user's tree can't have: all files in it are the
// user's, who can read them. A disk that is made of the tree has it again. It
// begins with ownersMagic, and has an ownership for each entry of the tree in the
// order of a walk.
const (
	ownersFile  = "owners"
	ownersMagic = "caisson owners 1\n"
	ownerSize   = 4 + 4 + 4 + 2
	// nobody is who a file belongs to whose owner no system has.
	nobody = 65534
)

// An ownership is what layers say of a file: its owner, and the bits of its mode.
type ownership struct {
	uid, gid uint32
	mode     fs.FileMode
}

// newOwnership takes the owner that an archive names.
func newOwnership(uid, gid int, mode fs.FileMode) ownership {
	id := func(n int) uint32 {
		if n < 0 || n > maxID {
			return nobody
		}
		return uint32(n)
	}
	return ownership{id(uid), id(gid), mode}
}

// append adds the ownership of a file to what the file has.
func (o ownership) append(b []byte, path string) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, crc32.ChecksumIEEE([]byte(path)))
	b = le.AppendUint32(b, o.uid)
	b = le.AppendUint32(b, o.gid)
	return le.AppendUint16(b, uint16(safefs.SysMode(o.mode)))
}

// ownersReader reads the file back beside a walk of the tree.
type ownersReader struct {
	f  *os.File
	rd *bufio.Reader
}

// errOwners says that the file and the tree do not belong together.
var errOwners = &caisson.Error{Item: ownersFile, Kind: caisson.ErrInvalid, Err: errors.New("it is not of this tree: remove the image and pull it again")}

// openOwners opens the file of the tree in dir, nil if the tree needs none.
func openOwners(dir *safefs.Root) (*ownersReader, error) {
	f, err := dir.Open(ownersFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &ownersReader{f: f, rd: bufio.NewReaderSize(f, 64<<10)}
	magic := make([]byte, len(ownersMagic))
	if _, err := io.ReadFull(r.rd, magic); err != nil || string(magic) != ownersMagic {
		f.Close()
		return nil, errOwners
	}
	return r, nil
}

func (r *ownersReader) close() { r.f.Close() }

// next gives the next entry of a walk what the layers say of it.
func (r *ownersReader) next(path string, info *safefs.Info) error {
	b := make([]byte, ownerSize)
	if _, err := io.ReadFull(r.rd, b); err != nil {
		return fmt.Errorf("%w: %w", errOwners, err)
	}
	le := binary.LittleEndian
	if le.Uint32(b) != crc32.ChecksumIEEE([]byte(path)) {
		return errOwners
	}
	info.UID, info.GID = int(le.Uint32(b[4:])), int(le.Uint32(b[8:]))
	info.Mode = modeBits(le.Uint16(b[12:]))
	return nil
}

// end is whether all that is in the file was read.
func (r *ownersReader) end() error {
	if _, err := r.rd.ReadByte(); !errors.Is(err, io.EOF) {
		return errOwners
	}
	return nil
}

// modeBits is the reverse of safefs.SysMode.
func modeBits(sys uint16) fs.FileMode {
	mode := fs.FileMode(sys) & fs.ModePerm
	for _, bit := range []fs.FileMode{fs.ModeSetuid, fs.ModeSetgid, fs.ModeSticky} {
		if uint32(sys)&safefs.SysMode(bit) != 0 {
			mode |= bit
		}
	}
	return mode
}
