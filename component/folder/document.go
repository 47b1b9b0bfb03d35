//go:build unix

package folder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/safefs"
	"golang.org/x/sys/unix"
)

// WriteConfig writes data/config.json (config.yml), in place of the former one:
// what component.Config.File or component.Processor.File returned. The format is
// that of the component that runs, which for a processor may be another one than
// the folder's.
func (f *Folder) WriteConfig(config *component.Value, format component.Format) error {
	if err := f.RemoveConfig(); err != nil {
		return err
	}
	return f.writeSecret("config"+format.Extension(), config, format)
}

// RemoveConfig removes it: secrets are in it.
func (f *Folder) RemoveConfig() error {
	for _, format := range []component.Format{component.JSON, component.YAML} {
		name := "config" + format.Extension()
		if err := f.root.RemoveAll(context.Background(), path.Join("data", name)); err != nil {
			return safefs.Sorted(caisson.OpStageOut, name, err)
		}
		if f.opts.Private == "" {
			continue
		}
		if err := os.Remove(f.private(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return safefs.Sorted(caisson.OpStageOut, name, err)
		}
		if err := f.unbind(name); err != nil {
			return err
		}
	}
	return nil
}

// private is where a document is that is kept off the disk.
func (f *Folder) private(target string) string {
	return filepath.Join(f.opts.Private, strings.ReplaceAll(target, "/", "-"))
}

// privateMode lets a program of any user read a document: nobody else can reach
// the folder that it is in.
const privateMode = 0o444

// writeSecret writes a document, and one with secrets where they don't reach a
// disk: then it notes that it is to be mounted.
func (f *Folder) writeSecret(target string, value *component.Value, format component.Format) error {
	data := Encode(value, format, f.opts.Encoding)
	if f.opts.Private == "" || !f.opts.Hide && len(component.Secrets(value)) == 0 {
		return f.write(target, data)
	}
	if err := f.write(target, nil); err != nil {
		return err
	}
	source := f.private(target)
	err := os.MkdirAll(f.opts.Private, 0o700)
	if err == nil {
		err = atomicfile.Write(source, data, privateMode)
	}
	if err != nil {
		return safefs.Sorted(caisson.OpStageIn, target, err)
	}
	return f.bind(Bind{Source: source, Target: target})
}

// WriteState writes in/state.json: the component's part of the stored state, in
// plain; {} for nil.
func (f *Folder) WriteState(state *component.Value) error {
	if state == nil {
		state = component.NewObject()
	}
	return f.writeSecret(path.Join("in", f.document("state")), state, f.opts.Format)
}

// PutManifest writes the manifest of in/PART/NAME. Times in it are as
// component.FormatTime writes them.
func (f *Folder) PutManifest(part Part, name string, manifest any) error {
	if err := CheckName(name); err != nil {
		return err
	}
	value, err := component.ValueOf(manifest)
	if err != nil {
		return fmt.Errorf("manifest of %q: %w", name, err)
	}
	return f.write(path.Join("in", string(part), name+ManifestSuffix), f.encode(value))
}

func (f *Folder) encode(value *component.Value) []byte {
	return Encode(value, f.opts.Format, f.opts.Encoding)
}

// write writes a document. A folder that a step left at its name goes away.
func (f *Folder) write(target string, data []byte) error {
	name := path.Join("data", target)
	err := f.root.WriteFile(name, data, inMode, f.opts.Owner)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.EISDIR) {
		if err = f.root.RemoveAll(context.Background(), name); err == nil {
			err = f.root.WriteFile(name, data, inMode, f.opts.Owner)
		}
	}
	return safefs.Sorted(caisson.OpStageIn, target, err)
}

// Encode returns a document as a component of that format reads it.
func Encode(value *component.Value, format component.Format, e component.Encoding) []byte {
	if format == component.YAML {
		return encodeYAML(value)
	}
	return value.Encode(e)
}

// ReadState returns out/state.json, and nil if there is none. Errors: the
// application's, if it is no JSON or too large.
func (f *Folder) ReadState() (*component.Value, error) {
	name := path.Join("out", f.document("state"))
	data, err := f.read(name, component.MaxState)
	if data == nil || err != nil {
		return nil, component.Application(err)
	}
	return component.ParseComponentState(name, data, f.opts.Format)
}

// DropState removes out/state.json, so that no later step sees it.
func (f *Folder) DropState() error {
	for _, name := range []string{"state.json", "state.yml"} {
		if err := f.root.RemoveAll(context.Background(), path.Join("data/out", name)); err != nil {
			return safefs.Sorted(caisson.OpStageOut, "out/"+name, err)
		}
	}
	return nil
}

// ReadUsage returns out/usage.json; nil if there is none. Errors: the
// application's.
func (f *Folder) ReadUsage() ([]component.Usage, error) {
	const name = "out/usage.json"
	data, err := f.read(name, component.MaxUsage)
	if data == nil || err != nil {
		return nil, component.Application(err)
	}
	return component.ParseUsage(name, data)
}

// ReadResult returns out/result.json; nil if there is none. Errors: for people to
// be warned with; they fail nothing.
func (f *Folder) ReadResult() (*component.ResultDoc, error) {
	const name = "out/result.json"
	data, err := f.read(name, component.MaxResult)
	if data == nil || err != nil {
		return nil, err
	}
	return component.ParseResultDoc(name, data)
}

// TableManifest returns the manifest of the table name in out/tables. Errors:
// ErrNotFound if there is none; ErrInvalid if it is not one or is too large.
func (f *Folder) TableManifest(name string) (*component.TableManifest, error) {
	file, data, err := f.readManifest(Tables, name)
	if err != nil {
		return nil, err
	}
	return component.ParseTableManifest(file, data, f.opts.Format)
}

// FileManifest is TableManifest for a file in out/files.
func (f *Folder) FileManifest(name string) (*component.FileManifest, error) {
	file, data, err := f.readManifest(Files, name)
	if err != nil {
		return nil, err
	}
	return component.ParseFileManifest(file, data, f.opts.Format)
}

func (f *Folder) readManifest(part Part, name string) (file string, data []byte, err error) {
	if err := CheckName(name); err != nil {
		return "", nil, err
	}
	file = path.Join("out", string(part), name+ManifestSuffix)
	data, err = f.read(file, component.MaxManifest)
	if err == nil && data == nil {
		err = &caisson.Error{Op: caisson.OpStageOut, Item: file, Kind: caisson.ErrNotFound}
	}
	return file, data, err
}

// read returns what a step wrote to target; nil if it did not. Errors:
// ErrInvalid if it is no regular file or larger than limit.
func (f *Folder) read(target string, limit int64) ([]byte, error) {
	data, err := f.root.ReadFile(path.Join("data", target), limit)
	if data == nil && err == nil {
		data = []byte{}
	}
	switch {
	case err == nil:
		return data, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, safefs.ErrTooMany):
		return nil, invalid(caisson.OpStageOut, target, "larger than %s", caisson.Bytes(limit))
	}
	return nil, outputError(target, err)
}

// outputError sorts an error about something that a step made.
func outputError(target string, err error) error {
	var sorted *caisson.Error
	switch {
	case errors.As(err, &sorted):
		return err
	case errors.Is(err, safefs.ErrLink):
		return invalid(caisson.OpStageOut, target, "is a symbolic link: a component must write the file itself")
	case errors.Is(err, safefs.ErrType):
		return invalid(caisson.OpStageOut, target, "is neither a file nor a folder")
	case errors.Is(err, safefs.ErrTooMany):
		return invalid(caisson.OpStageOut, target, "has more files and folders than are permitted")
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR):
		return invalid(caisson.OpStageOut, target, "a file is where a folder must be, or a folder where a file must be")
	case errors.Is(err, errAfterwards):
		return invalid(caisson.OpStageOut, target, "%w", err)
	case errors.Is(err, fs.ErrPermission):
		return invalid(caisson.OpStageOut, target, "can't be read: permission denied")
	}
	var place *fs.PathError
	if errors.As(err, &place) {
		err = place.Err
	}
	return safefs.Sorted(caisson.OpStageOut, target, err)
}
