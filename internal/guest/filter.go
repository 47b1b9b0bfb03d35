//go:build unix

package guest

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// filter copies a tar stream, with nothing in it but what safefs.Root.Tar writes:
// whoever unpacks it elsewhere is not to be harmed by names, links or sizes that no
// file has.
func filter(w io.Writer, r io.Reader) error {
	from, to := tar.NewReader(r), tar.NewWriter(w)
	var before walked
	for {
		header, err := from.Next()
		if errors.Is(err, io.EOF) {
			return to.Close()
		}
		if err != nil {
			return badArchive(err)
		}
		clean, err := cleanHeader(header)
		if err != nil {
			return err
		}
		if !before.next(strings.TrimSuffix(clean.Name, "/"), clean.Typeflag == tar.TypeDir) {
			return refuse(header, "it is not where a walk would find it")
		}
		if err := to.WriteHeader(clean); err != nil {
			return err
		}
		if _, err := io.Copy(to, from); err != nil {
			return badArchive(err)
		}
	}
}

// A walked is the path of the entry before. Entries come as safefs.Root.Walk finds
// them: a folder, then what it holds, in the order of the bytes of names. So none is
// there twice, and none is below what is not a folder: whoever unpacks the stream
// writes through no link of it.
type walked struct {
	path   []string
	folder bool
}

// next takes the next entry, and reports whether it may be that.
func (w *walked) next(name string, folder bool) bool {
	path := strings.Split(name, "/")
	level := len(path) - 1
	if level > len(w.path) || !slices.Equal(path[:level], w.path[:level]) {
		return false
	}
	switch {
	case level < len(w.path) && path[level] <= w.path[level]:
		return false
	case level == len(w.path) && level > 0 && !w.folder:
		return false
	}
	w.path, w.folder = path, folder
	return true
}

// badArchive describes an error of the stream.
func badArchive(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) {
		return fmt.Errorf("archive: %w: %w", fs.ErrInvalid, err)
	}
	return err
}

// cleanHeader returns a header with what it may say.
func cleanHeader(h *tar.Header) (*tar.Header, error) {
	clean := &tar.Header{
		Typeflag: h.Typeflag, Name: h.Name, Mode: h.Mode & 0o777, ModTime: h.ModTime, Format: tar.FormatPAX,
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			return nil, refuse(h, "it is shorter than it says")
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		clean.Size = h.Size
	case tar.TypeDir:
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) >= maxPath {
			return nil, refuse(h, "a link without a target")
		}
		clean.Linkname = h.Linkname
	default:
		return nil, refuse(h, "neither a file, a folder nor a link")
	}
	if checkName(strings.TrimSuffix(h.Name, "/")) != nil || len(h.Name) >= maxPath {
		return nil, refuse(h, "a name that is not clean")
	}
	return clean, nil
}

func refuse(h *tar.Header, why string) error {
	return fmt.Errorf("archive: entry %q: %s: %w", h.Name[:min(len(h.Name), maxNameLen)], why, fs.ErrInvalid)
}
