//go:build unix

package mapping

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/caissonrun/caisson/component/storage/csv"
)

// maxHeader is how many bytes the name of a column may have. A header may have
// a few of that size; it is what is read into memory.
const maxHeader = 256 << 10

var errNoHeader = errors.New("it is empty: a header line is needed, or columns in its manifest or mapping")

// An output is a file of out/ that is being read. Its end is only an end if the
// file still is what was listed: a program that got away may write to it.
type output struct {
	folder *folder.Folder
	part   folder.Part
	slice  *folder.Slice
	file   *os.File
	count  *counter // nil: nobody counts
}

func openOutput(f *folder.Folder, part folder.Part, s *folder.Slice, c *counter) (*output, error) {
	file, err := f.OpenSlice(part, s)
	if err != nil {
		return nil, err
	}
	return &output{f, part, s, file, c}, nil
}

func (o *output) Read(p []byte) (int, error) {
	n, err := o.file.Read(p)
	if o.count != nil {
		o.count.add(n)
	}
	if err == io.EOF {
		if changed := o.folder.CheckSlice(o.part, o.slice, o.file); changed != nil {
			return n, changed
		}
	}
	return n, err
}

func (o *output) Close() error { return o.file.Close() }

// open opens a slice at its first row. What is compressed with gzip is unpacked;
// no text in UTF-8 begins as gzip does.
func (s *SliceFile) open(f *folder.Folder, c *counter) (io.ReadCloser, error) {
	out, err := openOutput(f, folder.Tables, &s.File, c)
	if err != nil {
		return nil, err
	}
	r, err := s.unpack(out)
	if err != nil {
		out.Close()
		return nil, s.bad(err)
	}
	return r, nil
}

func (s *SliceFile) unpack(out *output) (io.ReadCloser, error) {
	var magic [2]byte
	if n, err := out.file.ReadAt(magic[:], 0); err != nil && err != io.EOF {
		return nil, err
	} else if n == 2 {
		switch string(magic[:]) {
		case "\x1f\x8b":
			z, err := gzip.NewReader(bufio.NewReaderSize(out, 64<<10))
			if err != nil {
				return nil, err
			}
			r := &unzipped{s: s, z: z, out: out}
			_, err = io.CopyN(io.Discard, r, s.Offset)
			return r, err
		case "\xff\xfe", "\xfe\xff":
			return nil, errors.New("it is UTF-16 text: write UTF-8")
		}
	}
	_, err := out.file.Seek(s.Offset, io.SeekStart)
	return out, err
}

// bad says that the user's data are at fault.
func (s *SliceFile) bad(err error) error {
	if caisson.KindOf(err) != caisson.ErrUnknown {
		return err
	}
	item := ""
	if strings.Contains(s.File.Name, "/") {
		item = fmt.Sprintf("slice %q", s.File.Name)
	}
	return &caisson.Error{Item: item, Kind: caisson.ErrInvalid, Err: err}
}

// unzipped is what a compressed slice has inside.
type unzipped struct {
	s   *SliceFile
	z   *gzip.Reader
	out *output
}

func (u *unzipped) Read(p []byte) (int, error) {
	n, err := u.z.Read(p)
	if err != nil && err != io.EOF && caisson.KindOf(err) == caisson.ErrUnknown {
		// Not wrapped: that it ends too early must not look like an end.
		err = u.s.bad(fmt.Errorf("its gzip data are damaged: %v", err))
	}
	return n, err
}

func (u *unzipped) Close() error { return u.out.Close() }

// readHeader reads the first line, without moving the slice's Offset, and
// reading little more than it. Errors: ErrInvalid.
func (s *SliceFile) readHeader(f *folder.Folder, delimiter, enclosure byte) (*csv.Head, error) {
	r, err := s.open(f, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	head, err := csv.ReadHead(r, csv.Options{
		Delimiter: delimiter, Enclosure: enclosure, CellLimit: maxHeader,
	})
	if errors.Is(err, io.EOF) {
		return nil, errNoHeader
	}
	return head, err
}
