package filecopy

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// clone makes dst share the blocks of src, where the file system can.
func clone(dst, src *os.File) error {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
}

// nextData returns where the next data at or after an offset begins and ends.
// After the last of it both are size.
func nextData(f *os.File, at, size int64) (data, end int64, err error) {
	data, err = unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size, nil
	}
	if err != nil {
		return at, size, nil // a file system that does not know of holes
	}
	end, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
	if err != nil {
		end = size
	}
	return min(data, size), min(end, size), nil
}

// copyRange copies inside of the kernel. Errors: errors.ErrUnsupported where
// the file systems can't.
func copyRange(dst, src *os.File, at, n int64) (int64, error) {
	from, to := at, at
	for {
		done, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, int(n), 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS),
			errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM), errors.Is(err, unix.EBADF):
			return 0, errors.ErrUnsupported
		case err != nil:
			return 0, err
		case done == 0:
			// Some file systems answer so instead of refusing; reading tells.
			return 0, errors.ErrUnsupported
		}
		return int64(done), nil
	}
}
