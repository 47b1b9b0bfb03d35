//go:build unix

package mapping

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/folder"
)

// maxSlices is how many slices a file may have.
const maxSlices = 100_000

// unpack puts a sliced file into a folder of its name: its contents are a tar
// with nothing but files.
func (f *fetcher) unpack(ctx context.Context, name string, r io.Reader) (int64, error) {
	var sum int64
	in := tar.NewReader(stopReader{ctx, r})
	for n := 0; ; n++ {
		h, err := in.Next()
		switch {
		case errors.Is(err, io.EOF):
			return sum, nil
		case err != nil:
			return sum, err
		case n == maxSlices:
			return sum, &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("it has more than %d slices", maxSlices)}
		case h.Typeflag == tar.TypeDir:
			continue
		case h.Typeflag != tar.TypeReg:
			return sum, &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("its slice %q is no regular file", h.Name)}
		}
		k, err := f.slice(name, path.Base(h.Name), in)
		if sum += k; err != nil {
			return sum, err
		}
	}
}

func (f *fetcher) slice(name, slice string, r io.Reader) (int64, error) {
	out, err := f.Folder.CreateSlice(folder.Files, name, slice)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	n, err := io.Copy(out, r)
	if err != nil {
		return n, err
	}
	return n, out.Commit(false)
}
