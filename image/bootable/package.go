//go:build unix

package bootable

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

const (
	// maxPackage bounds what is unpacked of a package.
	maxPackage = 4 << 30
	maxWords   = 1000 // of what dpkg-deb says
)

// unpackPackage unpacks what a kernel is of in a package of Debian's: boot and
// lib/modules. It is dpkg-deb that knows how packages are compressed.
func unpackPackage(ctx context.Context, file, dir string) error {
	if _, err := os.Stat(file); err != nil {
		return safefs.Sorted("", file, err)
	}
	tool, err := exec.LookPath("dpkg-deb")
	if err != nil {
		return problem(file, caisson.ErrUnsupported, errors.New("packages are unpacked by dpkg-deb, which is not here: unpack it elsewhere and name the folder"))
	}
	file, err = filepath.Abs(file)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, tool, "--fsys-tarfile", file)
	said := &limited{left: maxWords}
	cmd.Env, cmd.Stderr = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}, said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return problem(file, caisson.ErrUnavailable, err)
	}
	unpacked := extract(ctx, out, dir)
	// It ends, also if nobody reads on.
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil && ctx.Err() == nil {
		return problem(file, caisson.ErrInvalid, fmt.Errorf("dpkg-deb: %s", strings.Join(strings.Fields(said.text.String()), " ")))
	}
	if unpacked != nil {
		return problem(file, caisson.ErrInvalid, unpacked)
	}
	return ctx.Err()
}

// extract unpacks what is wanted of a package's files.
func extract(ctx context.Context, rd io.Reader, dir string) error {
	root, err := safefs.Open(dir, nil)
	if err != nil {
		return err
	}
	defer root.Close()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := wanted(rd, w)
		w.CloseWithError(err)
		done <- err
	}()
	err = root.Untar(ctx, ".", r, &safefs.UntarOptions{MaxBytes: maxPackage})
	r.CloseWithError(err)
	return errors.Join(err, <-done)
}

// wanted copies the members of a tar stream that a kernel is of.
func wanted(rd io.Reader, w io.Writer) error {
	tr, tw := tar.NewReader(rd), tar.NewWriter(w)
	for {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return tw.Close()
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Clean("/"+header.Name), "/")
		name = strings.TrimPrefix(name, "usr/")
		keep := header.Typeflag == tar.TypeReg && (strings.HasPrefix(name, "boot/") || strings.HasPrefix(name, "lib/modules/"))
		if !keep {
			continue
		}
		plain := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: header.Size}
		if err := tw.WriteHeader(plain); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}

// limited keeps the beginning of what is written.
type limited struct {
	text strings.Builder
	left int
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.text.Write(p[:n])
	l.left -= n
	return len(p), nil
}
