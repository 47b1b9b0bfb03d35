//go:build unix

package folder_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/google/go-cmp/cmp"
)

// summary writes a listing in short.
func summary(l *folder.Listing) []string {
	var out []string
	for _, item := range l.Items {
		text := fmt.Sprintf("%s %d", item.Name, item.Size)
		if item.Manifest {
			text += " manifest"
		}
		if item.Sliced {
			text += " sliced"
		}
		for _, s := range item.Slices {
			if s.Name != item.Name {
				text += fmt.Sprintf(" %s:%d", s.Name, s.Size)
			}
		}
		out = append(out, text)
	}
	for _, name := range l.Orphans {
		out = append(out, "orphan "+name)
	}
	return out
}

var outputs = map[string]string{
	"out/%s/b.csv": "12345", "out/%s/b.csv.manifest": "{}", "out/%s/a.csv": "1", "out/%s/lost.csv.manifest": "{}",
	"out/%s/.hidden": "x", "out/%s/.hidden.manifest": "{}", "out/%s/.dir/x": "x", "out/%s/é x": "",
	"out/%s/sliced/2": "22", "out/%s/sliced/1": "1", "out/%s/sliced/.hidden": "x", "out/%s/sliced/sub/x": "x", "out/%s/sliced.manifest": "{}",
	"out/%s/none/": "", "out/%s/folder.manifest/x": "x",
}

func TestList(t *testing.T) {
	tests := map[folder.Part][]string{
		folder.Tables: {
			"a.csv 1", "b.csv 5 manifest", "none 0 sliced", "sliced 3 manifest sliced sliced/1:1 sliced/2:2", "é x 0",
			"orphan lost.csv.manifest",
		},
		folder.Files: {"a.csv 1", "b.csv 5 manifest", "é x 0", "orphan lost.csv.manifest", "orphan sliced.manifest"},
	}
	for part, want := range tests {
		t.Run(string(part), func(t *testing.T) {
			f := newFolder(t, nil)
			files := map[string]string{}
			for name, text := range outputs {
				files[fmt.Sprintf(name, part)] = text
			}
			step(t, f, files)
			l, err := f.List(context.Background(), part)
			must(t, err)
			if diff := cmp.Diff(want, summary(l)); diff != "" {
				t.Errorf("listing (-want +got):\n%s", diff)
			}
		})
	}
}

func TestListNothing(t *testing.T) {
	f := newFolder(t, nil)
	for _, remove := range []string{"", "out/tables", "out"} {
		if remove != "" {
			must(t, os.RemoveAll(filepath.Join(f.Data(), remove)))
		}
		l, err := f.List(context.Background(), folder.Tables)
		if err != nil || len(l.Items)+len(l.Orphans) != 0 {
			t.Errorf("without %q: %+v, %v", remove, l, err)
		}
	}
}

func TestListHostile(t *testing.T) {
	places := []string{"out/tables", "out/tables/t", "out/tables/t/slice", "out/tables/t.manifest", "out/files", "out/files/f", "out"}
	for kind, make := range special {
		for _, place := range places {
			t.Run(kind+"/"+strings.ReplaceAll(place, "/", "_"), func(t *testing.T) {
				f := newFolder(t, nil)
				path := filepath.Join(f.Data(), place)
				must(t, os.RemoveAll(path))
				must(t, os.MkdirAll(filepath.Dir(path), 0o755))
				make(t, path, hostFile(t))
				part := folder.Tables
				if strings.HasPrefix(place, "out/files") {
					part = folder.Files
				}
				l, err := f.List(context.Background(), part)
				if err == nil {
					t.Fatalf("no error, but %q", summary(l))
				}
				wantErr(t, err, caisson.ErrInvalid, component.UserFault, "out")
			})
		}
	}
	names := map[string]string{
		"Newline": "a\nb", "Escape": "a\x1b[0m", "InvalidUTF8": "a\xff", "Long": strings.Repeat("x", 250), "Manifest": "a\xff.manifest",
	}
	for kind, name := range names {
		for _, place := range []string{"out/tables/", "out/files/", "out/tables/t/"} {
			t.Run(kind+"/"+strings.ReplaceAll(place, "/", "_"), func(t *testing.T) {
				f := newFolder(t, nil)
				step(t, f, map[string]string{place + name: "x"})
				part := folder.Tables
				if strings.HasPrefix(place, "out/files") {
					part = folder.Files
				}
				_, err := f.List(context.Background(), part)
				if err == nil {
					t.Fatal("no error")
				}
				wantErr(t, err, caisson.ErrInvalid, component.UserFault, "name")
				if strings.ContainsAny(err.Error(), "\n\x1b") || !utf8.ValidString(err.Error()) {
					t.Errorf("the error has the name as it is: %q", err)
				}
			})
		}
	}
}

// TestListTooMany has more files than are listed.
func TestListTooMany(t *testing.T) {
	f := newFolder(t, &folder.Options{MaxEntries: 1000})
	files := map[string]string{}
	for i := range 1001 {
		files[fmt.Sprintf("out/files/.%d", i)] = ""
	}
	step(t, f, files)
	_, err := f.List(context.Background(), folder.Files)
	wantErr(t, err, caisson.ErrInvalid, component.UserFault, "more files")
	must(t, os.Remove(filepath.Join(f.Data(), "out/files/.0")))
	_, err = f.List(context.Background(), folder.Files)
	must(t, err)
	step(t, f, files)
	_, err = f.Swap(context.Background(), 0)
	wantErr(t, err, caisson.ErrInvalid, component.UserFault, "more files")
}

func TestOpenSlice(t *testing.T) {
	ctx := context.Background()
	open := func(t *testing.T, change func(path string)) (string, error) {
		f := newFolder(t, nil)
		step(t, f, map[string]string{"out/tables/t": "text"})
		l, err := f.List(ctx, folder.Tables)
		must(t, err)
		change(filepath.Join(f.Data(), "out/tables/t"))
		file, err := f.OpenSlice(folder.Tables, &l.Items[0].Slices[0])
		if err != nil {
			return "", err
		}
		defer file.Close()
		text, err := io.ReadAll(file)
		must(t, err)
		return string(text), f.CheckSlice(folder.Tables, &l.Items[0].Slices[0], file)
	}
	outside := hostFile(t)
	if text, err := open(t, func(string) {}); text != "text" || err != nil {
		t.Errorf("OpenSlice = %q, %v", text, err)
	}
	changes := map[string]func(path string){
		"Removed":  func(path string) { must(t, os.Remove(path)) },
		"Replaced": func(path string) { must(t, os.Remove(path)); must(t, os.WriteFile(path, []byte("text"), 0o644)) },
		"Longer":   func(path string) { must(t, os.WriteFile(path, []byte("longer"), 0o644)) },
		"Link":     func(path string) { must(t, os.Remove(path)); must(t, os.Symlink(outside, path)) },
		"FIFO":     func(path string) { must(t, os.Remove(path)); special["FIFO"](t, path, "") },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			text, err := open(t, change)
			if err == nil {
				t.Fatalf("no error, but %q", text)
			}
			wantErr(t, err, caisson.ErrInvalid, component.UserFault, "out/tables/t")
		})
	}
	t.Run("Kept", func(t *testing.T) {
		f := newFolder(t, nil)
		step(t, f, map[string]string{"out/tables/t": "text"})
		file, err := f.OpenSlice(folder.Tables, &folder.Slice{Name: "t", Size: 4})
		must(t, err)
		file.Close()
		_, err = f.OpenSlice(folder.Tables, &folder.Slice{Name: "t", Size: 5})
		wantErr(t, err, caisson.ErrInvalid, component.UserFault, "changed")
	})
}

// TestCheckSlice has a program that got away write on.
func TestCheckSlice(t *testing.T) {
	f := newFolder(t, nil)
	step(t, f, map[string]string{"out/tables/t": "text"})
	l, err := f.List(context.Background(), folder.Tables)
	must(t, err)
	s := &l.Items[0].Slices[0]
	file, err := f.OpenSlice(folder.Tables, s)
	must(t, err)
	defer file.Close()
	step(t, f, map[string]string{"out/tables/t": "later"})
	wantErr(t, f.CheckSlice(folder.Tables, s, file), caisson.ErrInvalid, component.UserFault, "changed")
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "a.csv", ".hidden", "in.c-main.x", "é", "a b", strings.Repeat("x", 246)} {
		if err := folder.CheckName(name); err != nil {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "../x", "a/b", "/a", "a\x00", "a\n", "\xff", "x.manifest", strings.Repeat("x", 247)} {
		err := folder.CheckName(name)
		if err == nil {
			t.Errorf("CheckName(%q) is nil", name)
			continue
		}
		wantErr(t, err, caisson.ErrInvalid, component.UserFault, "name")
	}
}

// FuzzList has a component make two names of any bytes, one of them in a folder.
func FuzzList(f *testing.F) {
	f.Add([]byte("a.csv"), []byte("a.csv.manifest"), byte(0))
	f.Add([]byte("dir"), []byte("slice\n"), byte(1))
	f.Add([]byte("a\xff"), []byte(".x"), byte(2))
	w := newFolder(f, nil)
	f.Fuzz(func(t *testing.T, first, second []byte, how byte) {
		out := filepath.Join(w.Data(), "out/tables")
		must(t, os.RemoveAll(out))
		must(t, os.Mkdir(out, 0o755))
		one, two := filepath.Join(out, part(first)), filepath.Join(out, part(second))
		if how%2 == 1 {
			two = filepath.Join(one, part(second))
			os.Mkdir(one, 0o755)
		}
		os.WriteFile(one, []byte("x"), 0o644)
		if how%4 == 2 {
			os.Symlink("/etc/passwd", two)
		} else {
			os.WriteFile(two, []byte("xy"), 0o644)
		}
		l, err := w.List(context.Background(), folder.Tables)
		if err != nil {
			if !utf8.ValidString(err.Error()) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q", err)
			}
			return
		}
		for _, item := range l.Items {
			if err := folder.CheckName(item.Name); err != nil {
				t.Errorf("item %q: %v", item.Name, err)
			}
			for _, s := range item.Slices {
				file, err := w.OpenSlice(folder.Tables, &s)
				if err != nil {
					t.Errorf("slice %q: %v", s.Name, err)
					continue
				}
				file.Close()
			}
		}
	})
}

// part makes an element of a path of any bytes.
func part(data []byte) string {
	name := strings.NewReplacer("/", "_", "\x00", "_").Replace(string(data[:min(len(data), 255)]))
	if name == "" || name == "." || name == ".." {
		return "x"
	}
	return name
}
