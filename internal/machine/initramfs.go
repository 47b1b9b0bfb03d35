package machine

import (
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/machine/early"
)

// maxConfig bounds an initramfs's configuration.
const maxConfig = 1 << 20

// An Initramfs is what a guest's kernel unpacks and starts /init from.
type Initramfs struct {
	// Init is the file of the static program that becomes /init.
	Init string
	// Modules are what Init is to load, in this order.
	Modules []Module
	// Config is for Init, which knows what it means. Nil: there is none.
	Config []byte
	// Raw leaves out the compression by gzip: the file is larger, and an emulated
	// processor has less to do.
	Raw bool
}

// WriteTo writes the initramfs, one file after the other. The same contents are
// the same bytes.
func (i *Initramfs) WriteTo(w io.Writer) (int64, error) {
	count := &counter{w: w}
	if i.Raw {
		err := i.write(count)
		return count.n, err
	}
	z, err := gzip.NewWriterLevel(count, gzip.BestSpeed)
	if err != nil {
		return 0, err
	}
	if err := i.write(z); err != nil {
		return count.n, err
	}
	err = z.Close()
	return count.n, err
}

var _ io.WriterTo = (*Initramfs)(nil)

// write writes the archive.
func (i *Initramfs) write(w io.Writer) error {
	if len(i.Config) > maxConfig {
		return &caisson.Error{Op: caisson.OpCreate, Item: "initramfs", Kind: caisson.ErrInvalid, Err: fmt.Errorf("its configuration is beyond %d bytes", maxConfig)}
	}
	a := newArchive(w)
	for _, dir := range []string{"dev", "proc", "sys", "run"} {
		a.dir(dir, 0o755)
	}
	// The kernel opens it for init before anything is mounted.
	a.device("dev/console", 0o600, 5, 1)
	if err := addInit(a, i.Init); err != nil {
		return err
	}
	if i.Config != nil {
		a.bytes(inArchive(early.ConfigFile), 0o600, i.Config)
	}
	for n, m := range i.Modules {
		data, err := m.Read()
		if err != nil {
			return err
		}
		// As many digits as keep names in the order of numbers.
		name := fmt.Sprintf("%04d-%s.ko", n, m.Name)
		a.bytes(inArchive(path.Join(folderOf(&m), name)), 0o600, data)
	}
	return a.close()
}

// folderOf is where the guest has a module.
func folderOf(m *Module) string {
	if m.Name == diskModule {
		return early.DisksDir
	}
	return early.ModulesDir
}

// addInit adds the program that the kernel starts.
func addInit(a *archive, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return &caisson.Error{Op: caisson.OpCreate, Item: "initramfs", Kind: fileKind(err), Err: err}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	a.file("init", 0o755, info.Size(), f)
	return a.err
}

// inArchive is a path of the guest as an archive has it.
func inArchive(path string) string { return strings.TrimPrefix(path, "/") }

// A counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
