package cli

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestSplitPlace(t *testing.T) {
	for _, tt := range []struct {
		arg, id, inside string
		ok              bool
	}{
		{"01h9:out/x", "01h9", "out/x", true},
		{"01h9:", "01h9", ".", true},
		{"01h9:a:b", "01h9", "a:b", true},
		{"./a:b", "", "", false},
		{"/a:b", "", "", false},
		{"a.txt:b", "", "", false},
		{":x", "", "", false},
		{"plain", "", "", false},
		{"-", "", "", false},
	} {
		id, inside, ok := splitPlace(tt.arg)
		if id != tt.id || inside != tt.inside || ok != tt.ok {
			t.Errorf("splitPlace(%q) = %q, %q, %v, want %q, %q, %v", tt.arg, id, inside, ok, tt.id, tt.inside, tt.ok)
		}
	}
}

func TestRenameTar(t *testing.T) {
	var in bytes.Buffer
	w := tar.NewWriter(&in)
	for _, h := range []*tar.Header{
		{Name: "x/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "x/a", Typeflag: tar.TypeReg, Mode: 0o644, Size: 2},
		{Name: "x/deep/b", Typeflag: tar.TypeSymlink, Linkname: "../a"},
		{Name: "x/c", Typeflag: tar.TypeLink, Linkname: "x/a"},
		{Name: "x/d", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		{Name: "x/e", Typeflag: tar.TypeSymlink, Linkname: "../../e"},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(w, "hi")
		}
	}
	w.Close()
	var out bytes.Buffer
	var left []string
	leftOut := func(link, target string) { left = append(left, link+" "+target) }
	if err := renameTar(&out, &in, "new", leftOut); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(left, "|"), "x/d /etc/passwd|x/e ../../e"; got != want {
		t.Errorf("left out %q, want %q", got, want)
	}
	var got []string
	r := tar.NewReader(&out)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(r)
		got = append(got, h.Name+" "+h.Linkname+" "+string(data))
	}
	want := "new/  |new/a  hi|new/deep/b ../a |new/c new/a "
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("entries = %q, want %q", s, want)
	}
}

// TestPipeErrors tells whose error comes out of a pipe: the one that failed
// first.
func TestPipeErrors(t *testing.T) {
	errWrite, errRead := errors.New("write"), errors.New("read")
	all := func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
	for _, tt := range []struct {
		name  string
		write func(io.Writer) error
		read  func(io.Reader) error
		want  error
	}{
		{"OK", func(w io.Writer) error { _, err := io.WriteString(w, "x"); return err }, all, nil},
		{"Writer", func(io.Writer) error { return errWrite }, all, errWrite},
		{
			"Reader",
			func(w io.Writer) error { _, err := io.Copy(w, endless{}); return err },
			func(io.Reader) error { return errRead }, errRead,
		},
		{
			"ReaderHasEnough", func(w io.Writer) error { _, err := io.Copy(w, endless{}); return err },
			func(io.Reader) error { return errEnough }, errEnough,
		},
	} {
		if err := pipe(tt.write, tt.read); !errors.Is(err, tt.want) {
			t.Errorf("%s: pipe = %v, want %v", tt.name, err, tt.want)
		}
	}
}

// endless never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
