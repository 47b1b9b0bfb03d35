package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
)

// A Kernel is a Linux kernel that a guest can boot.
type Kernel struct {
	// Image is its file, by an absolute path.
	Image string
	// Arch is the processor that it is for, in Go's words, such as amd64.
	Arch string
	// Version is what uname -r would say, such as 6.1.0-56-cloud-amd64; empty
	// where neither the image nor its name tell.
	Version string
	// Modules is the folder of its modules. Empty: there are none, and what a
	// guest needs must be built in.
	Modules string
}

// KernelOptions say where to look for a kernel.
type KernelOptions struct {
	// Image is the operator's choice: no other is looked for.
	Image string
	// Modules is the folder of Image's modules. Empty: lib/modules/VERSION, beside
	// the folder that Image is in and then on this host, if it exists.
	Modules string
	// Roots are folders with a kernel as distributions install it, such as an
	// unpacked package: boot/vmlinuz-VERSION or lib/modules/VERSION/vmlinuz. The
	// first with a kernel that fits is taken. Nil: this host's root folder.
	Roots []string
	// Arch is the processor that the kernel must be for. Empty: this host's.
	Arch string
}

// FindKernel looks for a kernel, and reads from its image what it is. Of several
// in one root it takes the newest that has modules.
//
// Errors: ErrNotFound if there is none; ErrUnsupported if it is for another
// processor; ErrInvalid if it is no kernel; ErrDenied if it can't be read.
func FindKernel(o *KernelOptions) (*Kernel, error) {
	if o == nil {
		o = &KernelOptions{}
	}
	arch := o.Arch
	if arch == "" {
		arch = runtime.GOARCH
	}
	if o.Image != "" {
		return namedKernel(o, arch)
	}
	roots := o.Roots
	if roots == nil {
		roots = []string{"/"}
	}
	var first error
	for _, root := range roots {
		k, err := installedKernel(root, arch)
		if err == nil {
			return k, nil
		}
		// One that is there and does not fit says more than one that is not.
		if first == nil || errors.Is(first, caisson.ErrNotFound) && !errors.Is(err, caisson.ErrNotFound) {
			first = err
		}
	}
	if first == nil {
		first = kernelError("", caisson.ErrNotFound, errors.New("none is installed and none is named"))
	}
	return nil, first
}

// namedKernel is the operator's choice.
func namedKernel(o *KernelOptions, arch string) (*Kernel, error) {
	k, err := readKernel(o.Image, arch)
	if err != nil {
		return nil, err
	}
	if o.Modules != "" {
		if k.Modules, err = filepath.Abs(o.Modules); err != nil {
			return nil, err
		}
		if !isDir(k.Modules) {
			return nil, kernelError(o.Modules, caisson.ErrNotFound, errors.New("there is no such folder of modules"))
		}
		return k, nil
	}
	k.Modules = findModules(k, filepath.Dir(filepath.Dir(k.Image)), "/")
	return k, nil
}

// installedKernel is the best one in a root.
func installedKernel(root, arch string) (*Kernel, error) {
	var best *Kernel
	var problem error
	for _, pattern := range []string{"boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz"} {
		images, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, kernelError(root, caisson.ErrInvalid, err)
		}
		for _, image := range images {
			k, err := readKernel(image, arch)
			if err != nil {
				problem = err
				continue
			}
			k.Modules = findModules(k, root)
			if best == nil || better(k, best) {
				best = k
			}
		}
	}
	switch {
	case best != nil:
		return best, nil
	case problem != nil:
		return nil, problem
	}
	return nil, kernelError(root, caisson.ErrNotFound, errors.New("there is neither boot/vmlinuz-* nor lib/modules/*/vmlinuz"))
}

// better reports whether a is to be taken rather than b.
func better(a, b *Kernel) bool {
	if (a.Modules == "") != (b.Modules == "") {
		return a.Modules != ""
	}
	return compareVersions(a.Version, b.Version) > 0
}

// compareVersions compares numbers in versions as numbers: 6.10 is later than
// 6.9.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		x, restA := chunk(a)
		y, restB := chunk(b)
		m, errM := strconv.Atoi(x)
		n, errN := strconv.Atoi(y)
		switch {
		case errM == nil && errN == nil && m != n:
			return m - n
		case (errM != nil || errN != nil) && x != y:
			return strings.Compare(x, y)
		}
		a, b = restA, restB
	}
	return len(a) - len(b)
}

// chunk cuts off the leading digits, or what is in front of the next.
func chunk(s string) (first, rest string) {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	n := 1
	for n < len(s) && digit(s[n]) == digit(s[0]) {
		n++
	}
	return s[:n], s[n:]
}

// readKernel reads what the image says of itself, and refuses another processor's.
func readKernel(image, arch string) (*Kernel, error) {
	path, err := filepath.Abs(image)
	if err != nil {
		return nil, err
	}
	// Opening a pipe would wait for somebody to write to it.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, kernelError(image, caisson.ErrInvalid, errors.New("it is not a regular file"))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, kernelError(image, fileKind(err), plainCause(err))
	}
	defer f.Close()
	h, err := readHeader(f)
	if err != nil {
		return nil, kernelError(image, caisson.ErrInvalid, err)
	}
	if h.arch != arch {
		return nil, kernelError(image, caisson.ErrUnsupported, fmt.Errorf("it is for %s, and %s is needed", h.arch, arch))
	}
	if h.version == "" {
		h.version = nameVersion(path)
	}
	return &Kernel{Image: path, Arch: h.arch, Version: h.version}, nil
}

// nameVersion is what a file's place says of the version.
func nameVersion(path string) string {
	if _, version, found := strings.Cut(filepath.Base(path), "vmlinuz-"); found {
		return version
	}
	if dir := filepath.Dir(path); filepath.Base(filepath.Dir(dir)) == "modules" {
		return filepath.Base(dir)
	}
	return ""
}

// findModules returns the folder of the kernel's modules in the first root that
// has it.
func findModules(k *Kernel, roots ...string) string {
	if k.Version == "" || k.Version != filepath.Base(k.Version) {
		return ""
	}
	for _, root := range roots {
		for _, dir := range []string{"lib/modules", "usr/lib/modules"} {
			if path := filepath.Join(root, dir, k.Version); isDir(path) {
				return path
			}
		}
	}
	return ""
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// kernelError is an error about a kernel.
func kernelError(item string, kind caisson.Kind, err error) error {
	name := "kernel"
	if item != "" {
		name += " " + item
	}
	return &caisson.Error{Op: caisson.OpProbe, Item: name, Kind: kind, Err: err}
}

// fileKind sorts an error of a file that was named.
func fileKind(err error) caisson.Kind {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return caisson.ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		return caisson.ErrDenied
	}
	return caisson.ErrInternal
}

// plainCause is err without the path, which the message has already.
func plainCause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
