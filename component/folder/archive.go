//go:build unix

package folder

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/keeper/redact"
)

// maxHidden is how large a document may be whose # values are hidden one by one;
// of a larger one nothing is shown.
const maxHidden = component.MaxConfiguration

// Archive writes the whole of data/ as a zip, with empty folders: stage_<i>.zip
// or stage_output.zip. Of the configuration and of states what is under # keys is
// [hidden], and secrets are taken out of every file. Links and special files are
// left out.
//
// Errors: ErrInvalid if there are more than MaxFiles files.
func (f *Folder) Archive(ctx context.Context, w io.Writer, secrets []string) error {
	a := archiver{f: f, zw: zip.NewWriter(w), ctx: ctx, hidden: map[string][]byte{}}
	err := a.documents(secrets)
	if err == nil {
		err = f.root.Walk(ctx, "data", &safefs.WalkOptions{MaxEntries: MaxFiles}, a.entry)
	}
	switch {
	case err == nil:
		return a.zw.Close()
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, safefs.ErrTooMany):
		return invalid(caisson.OpStageOut, "data", "has more than %d files and folders", MaxFiles)
	}
	return safefs.Sorted(caisson.OpStageOut, "archive of the data folder", err)
}

// An archiver writes one archive.
type archiver struct {
	f      *Folder
	ctx    context.Context
	zw     *zip.Writer
	set    *redact.Set
	hidden map[string][]byte // contents by path in W
}

// documents reads what has # keys. What is found there is a secret too: a
// component may just have made it.
func (a *archiver) documents(secrets []string) error {
	all := slices.Clone(secrets)
	for _, name := range []string{"config.json", "config.yml", "in/state.json", "in/state.yml", "out/state.json", "out/state.yml"} {
		data, err := a.document(name)
		name = path.Join("data", name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, safefs.ErrLink) || errors.Is(err, safefs.ErrType) {
			continue
		}
		var value *component.Value
		if err == nil {
			value, err = component.ParseValue(name, data)
		}
		if err != nil {
			a.hidden[name] = []byte(hiddenText + "\n")
			continue
		}
		all = append(all, component.Secrets(value)...)
		a.hidden[name] = Encode(hide(value), formatOf(name), a.f.opts.Encoding)
	}
	set, err := compile(all)
	a.set = set
	return err
}

// document reads a document of data/, or the one that is to be mounted over it.
func (a *archiver) document(name string) ([]byte, error) {
	source := a.f.bound(name)
	if source == "" {
		return a.f.root.ReadFile(path.Join("data", name), maxHidden)
	}
	info, err := os.Stat(source)
	if err == nil && info.Size() > maxHidden {
		err = fmt.Errorf("%s is too large to be shown", name)
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(source)
}

func formatOf(name string) component.Format {
	if strings.HasSuffix(name, component.YAML.Extension()) {
		return component.YAML
	}
	return component.JSON
}

// compile makes a set of the secrets that can be told from other text.
func compile(secrets []string) (*redact.Set, error) {
	var values [][]byte
	for _, s := range secrets {
		if n := len(strings.TrimRight(s, "\r\n")); n >= redact.MinSecret && len(s) <= redact.MaxSecret {
			values = append(values, []byte(s))
		}
	}
	return redact.Compile(values)
}

func (a *archiver) entry(e *safefs.Entry) error {
	name := strings.TrimPrefix(strings.TrimPrefix(e.Path, "data"), "/")
	switch {
	case name == "":
		return nil
	case e.Mode.IsDir():
		_, err := a.create(name+"/", e)
		return err
	case !e.Mode.IsRegular():
		return nil
	}
	w, err := a.create(name, e)
	if err != nil {
		return err
	}
	if data, ok := a.hidden[e.Path]; ok {
		return a.redacted(w, strings.NewReader(string(data)))
	}
	file, err := a.open(e, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	return a.redacted(w, io.LimitReader(file, fileSize(file)))
}

// open opens a file of data/, or the host's that is to be mounted over it.
func (a *archiver) open(e *safefs.Entry, name string) (*os.File, error) {
	if source := a.f.bound(name); source != "" {
		return os.Open(source)
	}
	return e.Open()
}

// fileSize is where reading ends, also where somebody writes on.
func fileSize(file *os.File) int64 {
	info, err := file.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

func (a *archiver) create(name string, e *safefs.Entry) (io.Writer, error) {
	h := &zip.FileHeader{Name: portable(name), Method: zip.Deflate, Modified: e.ModTime}
	if e.Mode.IsDir() {
		h.Method = zip.Store
		h.SetMode(fs.ModeDir | 0o755)
	} else {
		h.SetMode(0o644)
	}
	return a.zw.CreateHeader(h)
}

// portable writes what some program would misread in a name as %XX.
func portable(name string) string {
	var out strings.Builder
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRuneInString(name[i:])
		bad := r == utf8.RuneError && size == 1 || unicode.IsControl(r) || strings.ContainsRune(`\:%`, r)
		for _, c := range []byte(name[i : i+size]) {
			if bad {
				fmt.Fprintf(&out, "%%%02X", c)
			} else {
				out.WriteByte(c)
			}
		}
		i += size
	}
	return out.String()
}

// redacted copies r without the secrets.
func (a *archiver) redacted(w io.Writer, r io.Reader) error {
	if a.set.Empty() {
		_, err := io.Copy(w, &reader{a.ctx, r})
		return err
	}
	out := a.set.NewWriter(func(p []byte) error {
		_, err := w.Write(p)
		return err
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := (&reader{a.ctx, r}).Read(buf)
		if writeErr := out.Write(buf[:n]); writeErr != nil {
			return writeErr
		}
		if errors.Is(err, io.EOF) {
			return out.Close()
		}
		if err != nil {
			return err
		}
	}
}

// A reader reads until its context ends.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (c *reader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
