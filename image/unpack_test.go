//go:build unix

package image_test

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/imagetest"
)

type entries []imagetest.Entry

func file(name, data string) imagetest.Entry { return imagetest.File(name, data) }

func folder(name string) imagetest.Entry {
	return imagetest.Entry{Header: tar.Header{Name: name + "/", Mode: 0o755}}
}

func special(kind byte, name, target string) imagetest.Entry {
	return imagetest.Entry{Header: tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: 0o644}}
}

func symlink(name, target string) imagetest.Entry { return special(tar.TypeSymlink, name, target) }

func hardLink(name, target string) imagetest.Entry { return special(tar.TypeLink, name, target) }

// openStore opens a store in a folder of its own, with images by reference.
func openStore(t *testing.T, opts *image.Options, images map[string]v1.Image) *image.Store {
	t.Helper()
	if opts == nil {
		opts = &image.Options{}
	}
	if opts.Dir == "" {
		opts.Dir = filepath.Join(t.TempDir(), "images")
	}
	s, err := image.OpenWith(opts, images)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func imageOf(t *testing.T, layers ...entries) v1.Image {
	t.Helper()
	list := make([]v1.Layer, len(layers))
	for i, l := range layers {
		list[i] = imagetest.Layer(t, l...)
	}
	return imagetest.Image(t, nil, list...)
}

// unpack unpacks an image and returns its root.
func unpack(t *testing.T, opts *image.Options, layers ...entries) (string, error) {
	t.Helper()
	s := openStore(t, opts, map[string]v1.Image{"x": imageOf(t, layers...)})
	img, err := s.Get(t.Context(), &image.Request{Ref: "x"})
	if err != nil {
		t.Fatal(err)
	}
	root, err := s.RootFS(t.Context(), img, &image.Lease{Owner: "test"})
	if err != nil {
		return "", err
	}
	return root.Path, nil
}

// tree lists what is in a folder: a line for each entry.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := strings.TrimPrefix(path, root+"/")
		switch {
		case info.IsDir():
			line += "/"
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " = " + string(data)
		default:
			line += " " + info.Mode().Type().String()
		}
		list = append(list, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// TestUnpack holds what layers become.
func TestUnpack(t *testing.T) {
	for name, c := range map[string]struct {
		layers []entries
		want   []string
	}{
		"Files":          {[]entries{{file("a", "1"), file("d/b", "2"), folder("e")}}, []string{"a = 1", "d/", "d/b = 2", "e/"}},
		"LaterWins":      {[]entries{{file("a", "1")}, {file("a", "2")}}, []string{"a = 2"}},
		"Duplicate":      {[]entries{{file("a", "1"), file("a", "2")}}, []string{"a = 2"}},
		"CaseClash":      {[]entries{{file("a", "1"), file("A", "2")}}, []string{"A = 2", "a = 1"}},
		"DotNames":       {[]entries{{folder("."), file("./a", "1"), file("/b", "2"), file("c//d", "3")}}, []string{"a = 1", "b = 2", "c/", "c/d = 3"}},
		"Whiteout":       {[]entries{{file("a", "1"), file("d/b", "2"), file("d/c", "3")}, {file(".wh.a", ""), file("d/.wh.b", "")}}, []string{"d/", "d/c = 3"}},
		"WhiteoutFolder": {[]entries{{file("d/e/b", "2"), file("f", "")}, {file(".wh.d", "")}}, []string{"f = "}},
		"WhiteoutAbsent": {[]entries{{file("a", "1")}, {file(".wh.b", ""), file("n/.wh.c", ""), file("n/.wh..wh..opq", "")}}, []string{"a = 1"}},
		// What a layer hides is below it, whatever the order of its entries.
		"WhiteoutAfterOwn":    {[]entries{{file("d/a", "1"), file("d/b", "1")}, {file("d/a", "2"), file(".wh.d", "")}}, []string{"d/", "d/a = 2"}},
		"WhiteoutBeforeOwn":   {[]entries{{file("d/a", "1"), file("d/b", "1")}, {file(".wh.d", ""), file("d/a", "2")}}, []string{"d/", "d/a = 2"}},
		"Opaque":              {[]entries{{file("d/a", "1"), file("d/e/b", "1")}, {folder("d"), file("d/.wh..wh..opq", ""), file("d/n", "2")}}, []string{"d/", "d/n = 2"}},
		"OpaqueAfterOwn":      {[]entries{{file("d/a", "1"), file("d/e/b", "1")}, {folder("d"), file("d/e/n", "2"), file("d/.wh..wh..opq", "")}}, []string{"d/", "d/e/", "d/e/n = 2"}},
		"AufsBookkeeping":     {[]entries{{file("a", "1"), file(".wh..wh.plnk", ""), folder(".wh..wh.orph")}}, []string{"a = 1"}},
		"FileOverFolder":      {[]entries{{file("d/a", "1")}, {file("d", "2")}}, []string{"d = 2"}},
		"FolderOverFile":      {[]entries{{file("d", "1")}, {file("d/a", "2")}}, []string{"d/", "d/a = 2"}},
		"FolderOverLink":      {[]entries{{file("e/a", "1"), symlink("d", "e")}, {folder("d"), file("d/b", "2")}}, []string{"d/", "d/b = 2", "e/", "e/a = 1"}},
		"LinkOverFolder":      {[]entries{{file("d/a", "1")}, {symlink("d", "e")}}, []string{"d -> e"}},
		"ThroughLink":         {[]entries{{folder("usr/lib"), symlink("lib", "usr/lib")}, {file("lib/a", "1")}}, []string{"lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/a = 1"}},
		"ThroughAbsolute":     {[]entries{{folder("usr/lib"), symlink("lib", "/usr/lib")}, {file("lib/a", "1")}}, []string{"lib -> /usr/lib", "usr/", "usr/lib/", "usr/lib/a = 1"}},
		"WhiteoutThrough":     {[]entries{{file("usr/lib/a", "1"), symlink("lib", "usr/lib")}, {file("lib/.wh.a", "")}}, []string{"lib -> usr/lib", "usr/", "usr/lib/"}},
		"LinksOfTheHost":      {[]entries{{symlink("etc", "/etc"), symlink("dev", "../../../../dev"), symlink("proc", "/proc/self/root"), symlink("tmp", "/tmp")}}, []string{"dev -> ../../../../dev", "etc -> /etc", "proc -> /proc/self/root", "tmp -> /tmp"}},
		"HardLink":            {[]entries{{file("a", "1"), hardLink("b", "a")}, {hardLink("c", "/a")}}, []string{"a = 1", "b = 1", "c = 1"}},
		"HardLinkToLink":      {[]entries{{symlink("a", "x"), hardLink("b", "a")}}, []string{"a -> x", "b -> x"}},
		"HardLinkToItself":    {[]entries{{file("a", "1"), hardLink("a", "a"), hardLink("a", "./a")}}, []string{"a = 1"}},
		"HardLinkReplaces":    {[]entries{{file("a", "1"), file("d/x", "")}, {hardLink("d", "a")}}, []string{"a = 1", "d = 1"}},
		"Fifo":                {[]entries{{special(tar.TypeFifo, "p", "")}}, []string{"p p---------"}},
		"DeviceLeftOut":       {[]entries{{file("n", "1"), special(tar.TypeChar, "n", ""), special(tar.TypeBlock, "b", ""), hardLink("c", "b"), file("x", "")}}, []string{"x = "}},
		"OpaqueKeepsLinkInto": {[]entries{{file("d/a", "1"), symlink("l", "d")}, {file("l/.wh..wh..opq", "")}}, []string{"d/", "l -> d"}},
	} {
		t.Run(name, func(t *testing.T) {
			root, err := unpack(t, nil, c.layers...)
			if err != nil {
				t.Fatal(err)
			}
			if got := tree(t, root); !slices.Equal(got, c.want) {
				t.Errorf("unpacked: %q\nwant:     %q", got, c.want)
			}
		})
	}
}

// outside makes files next to the store that no layer may reach, and returns
// a function that looks whether they are as before.
func outside(t *testing.T) (dir string, check func()) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"flag", "folder/flag"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("untouched"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	look := func() string {
		var b strings.Builder
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && path == filepath.Join(dir, "images") {
				return fs.SkipDir
			}
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			st := info.Sys().(*syscall.Stat_t)
			// The folder itself gets the store.
			if path != dir {
				fmt.Fprintln(&b, path, info.Mode(), st.Nlink, st.Uid, st.Gid, info.ModTime())
			}
			if info.Mode().IsRegular() {
				data, err := os.ReadFile(path)
				fmt.Fprintln(&b, string(data), err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return b.String()
	}
	before := look()
	return dir, func() {
		t.Helper()
		if after := look(); after != before {
			t.Errorf("outside of the store there is now\n%s\nwhere there was\n%s", after, before)
		}
	}
}

// TestUnpackHostile unpacks layers that want to reach the host. Whatever becomes
// of them, the host's files are as before.
func TestUnpackHostile(t *testing.T) {
	const refused, held = "refused", "held" // held: unpacked, and harmless
	for name, c := range map[string]struct {
		want   string
		layers func(host string) []entries
	}{
		"DotDot":           {refused, func(string) []entries { return []entries{{file("../../../../flag", "x")}} }},
		"DotDotInside":     {refused, func(string) []entries { return []entries{{file("a/../../flag", "x")}} }},
		"DotDotFolder":     {refused, func(string) []entries { return []entries{{folder(".."), file("x", "")}} }},
		"Absolute":         {held, func(host string) []entries { return []entries{{file(host+"/flag", "x")}} }},
		"LinkThenFile":     {refused, func(host string) []entries { return []entries{{symlink("l", host), file("l/flag", "x")}} }},
		"LinkThenFileMade": {held, func(host string) []entries { return []entries{{folder(host), symlink("l", host), file("l/flag", "x")}} }},
		"LinkUpThenFile": {refused, func(string) []entries {
			return []entries{{symlink("l", "../../../../../../../../tmp/no-such"), file("l/flag", "x")}}
		}},
		"LinkOtherLayer": {refused, func(host string) []entries { return []entries{{symlink("l", host)}, {file("l/flag", "x")}} }},
		"LinkChain": {refused, func(host string) []entries {
			return []entries{{folder("a"), symlink("a/b", ".."), symlink("a/c", "b/../../.."+host), file("a/c/flag", "x")}}
		}},
		"LinkItself":      {refused, func(string) []entries { return []entries{{symlink("l", "l"), file("l/flag", "x")}} }},
		"LinkOverwritten": {held, func(host string) []entries { return []entries{{symlink("l", host+"/flag"), file("l", "x")}} }},
		"LinkAsFolder": {held, func(host string) []entries {
			return []entries{{symlink("l", host+"/folder"), folder("l"), file("l/flag", "x")}}
		}},
		"LinkMode":        {held, func(host string) []entries { return []entries{{symlink("l", host+"/flag"), hardLink("h", "l")}} }},
		"HardLinkOutside": {refused, func(host string) []entries { return []entries{{hardLink("h", host+"/flag"), file("h", "x")}} }},
		"HardLinkDotDot":  {refused, func(string) []entries { return []entries{{hardLink("h", "../../../../flag")}} }},
		"HardLinkByLink": {refused, func(host string) []entries {
			return []entries{{symlink("l", host), hardLink("h", "l/flag"), file("h", "x")}}
		}},
		"HardLinkToFolder": {refused, func(string) []entries { return []entries{{folder("d"), hardLink("h", "d")}} }},
		"HardLinkToFifo":   {refused, func(string) []entries { return []entries{{special(tar.TypeFifo, "p", ""), hardLink("h", "p")}} }},
		"WhiteoutDotDot":   {refused, func(string) []entries { return []entries{{file(".wh...", "")}} }},
		"WhiteoutDot":      {refused, func(string) []entries { return []entries{{file("d/.wh..", "")}} }},
		"WhiteoutEmpty":    {refused, func(string) []entries { return []entries{{file("d/.wh.", "")}} }},
		"WhiteoutByLink":   {held, func(host string) []entries { return []entries{{symlink("l", host)}, {file("l/.wh.flag", "")}} }},
		"OpaqueByLink":     {held, func(host string) []entries { return []entries{{symlink("l", host)}, {file("l/.wh..wh..opq", "")}} }},
		"FolderMode":       {held, func(host string) []entries { return []entries{{symlink("l", host), special(tar.TypeDir, "l", "")}} }},
		"ProcSelf": {refused, func(host string) []entries {
			return []entries{{symlink("l", "/proc/self/root"+host), file("l/flag", "x")}}
		}},
		"DeviceByName": {held, func(string) []entries {
			return []entries{{imagetest.Entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "dev/zero", Devmajor: 1, Devminor: 5, Mode: 0o666}}}}
		}},
		"RootAsFile":        {refused, func(string) []entries { return []entries{{file(".", "x")}} }},
		"RootAsLink":        {refused, func(host string) []entries { return []entries{{symlink(".", host)}} }},
		"RootWhiteout":      {held, func(string) []entries { return []entries{{file("a", "")}, {file(".wh..wh..opq", "")}} }},
		"LongName":          {refused, func(string) []entries { return []entries{{file(strings.Repeat("n/", 3000)+"x", "")}} }},
		"LongElement":       {refused, func(string) []entries { return []entries{{file(strings.Repeat("n", 300), "")}} }},
		"TooDeep":           {refused, func(string) []entries { return []entries{{file(strings.Repeat("n/", 300)+"x", "")}} }},
		"LinkWithoutTarget": {refused, func(string) []entries { return []entries{{symlink("l", "")}} }},
	} {
		t.Run(name, func(t *testing.T) {
			host, check := outside(t)
			opts := &image.Options{Dir: filepath.Join(host, "images")}
			root, err := unpack(t, opts, c.layers(host)...)
			check()
			if c.want == held {
				if err != nil {
					t.Fatalf("RootFS = %v, want it unpacked", err)
				}
				onlyHarmless(t, root)
				return
			}
			if !errors.Is(err, caisson.ErrInvalid) && !errors.Is(err, caisson.ErrDenied) {
				t.Errorf("RootFS = %v, want it refused", err)
			}
			if left, _ := filepath.Glob(filepath.Join(opts.Dir, "trees", "*")); len(left) > 0 {
				t.Errorf("left after a refusal: %q", left)
			}
		})
	}
}

// onlyHarmless looks that there is nothing special in a tree.
func onlyHarmless(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&(fs.ModeDevice|fs.ModeSocket) != 0 {
			t.Errorf("%s is %v", path, d.Type())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestUnpackBombs holds the limits.
func TestUnpackBombs(t *testing.T) {
	many := make(entries, 0, 60)
	for i := range 60 {
		many = append(many, file(fmt.Sprint("f", i), ""))
	}
	zeros := strings.Repeat("\x00", 4<<20)
	for name, c := range map[string]struct {
		limits image.Limits
		layers []entries
	}{
		"Entries":         {image.Limits{Entries: 50}, []entries{many}},
		"EntriesOfLayers": {image.Limits{Entries: 50}, []entries{many[:30], many[30:]}},
		"Implied":         {image.Limits{Entries: 50}, []entries{{file(strings.Repeat("d/", 100)+"x", "")}}},
		"Depth":           {image.Limits{Depth: 10}, []entries{{file(strings.Repeat("d/", 20)+"x", "")}}},
		"Bytes":           {image.Limits{Bytes: 1 << 20}, []entries{{file("zeros", zeros)}}},
		"Ratio":           {image.Limits{Ratio: 1}, []entries{{file("a", strings.Repeat("\x00", 300<<20))}}},
		"BytesOfLayers":   {image.Limits{Bytes: 5 << 20}, []entries{{file("a", zeros)}, {file("b", zeros)}}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "images")
			_, err := unpack(t, &image.Options{Dir: dir, Limits: c.limits}, c.layers...)
			if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), "limit") {
				t.Errorf("RootFS = %v, want the limit named", err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "trees", "*")); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestUnpackSparse holds that zeros take no room: a file of nothing else is one
// hole.
func TestUnpackSparse(t *testing.T) {
	root, err := unpack(t, nil, entries{file("zeros", strings.Repeat("\x00", 8<<20))})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(root, "zeros"))
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); info.Size() != 8<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes take %d on disk", info.Size(), st.Blocks*512)
	}
}

// TestUnpackAttributes holds modes, owners, times and extended attributes.
func TestUnpackAttributes(t *testing.T) {
	when := time.Unix(1_000_000_000, 0)
	entry := func(h tar.Header) imagetest.Entry {
		h.ModTime = when
		return imagetest.Entry{Header: h}
	}
	layer := entries{
		entry(tar.Header{Name: "tmp/", Mode: 0o1777}),
		entry(tar.Header{Name: "locked/", Mode: 0o555, Uid: 12, Gid: 34}),
		entry(tar.Header{Name: "locked/su", Mode: 0o6755, Uid: 12, Gid: 34}),
		entry(tar.Header{Name: "secret", Mode: 0o640, PAXRecords: map[string]string{
			"SCHILY.xattr.user.kept": "value", "SCHILY.xattr.user.overlay.redirect": "/etc",
			"SCHILY.xattr.security.capability":    "\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			"SCHILY.xattr.trusted.overlay.opaque": "y",
		}}),
	}
	for _, setID := range []bool{false, true} {
		root, err := unpack(t, &image.Options{SetID: setID}, layer, entries{file("locked/more", "")})
		if err != nil {
			t.Fatal(err)
		}
		want := fs.FileMode(0o755)
		if setID {
			want |= fs.ModeSetuid | fs.ModeSetgid
		}
		locked := fs.ModeDir | 0o555
		if os.Geteuid() != 0 {
			locked = fs.ModeDir | 0o755
		}
		for name, mode := range map[string]fs.FileMode{
			"tmp": fs.ModeDir | fs.ModeSticky | 0o777, "locked": locked, "locked/su": want, "secret": 0o640,
		} {
			info, err := os.Stat(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != mode || !info.ModTime().Equal(when) {
				t.Errorf("set-id %v: %s is %v of %v, want %v of %v", setID, name, info.Mode(), info.ModTime(), mode, when)
			}
			st := info.Sys().(*syscall.Stat_t)
			if os.Geteuid() == 0 && strings.HasPrefix(name, "locked") && (st.Uid != 12 || st.Gid != 34) {
				t.Errorf("%s belongs to %d:%d, want 12:34", name, st.Uid, st.Gid)
			}
		}
		names := make([]byte, 1024)
		n, err := unix.Llistxattr(filepath.Join(root, "secret"), names)
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			t.Fatal(err)
		}
		if got := strings.Trim(string(names[:max(n, 0)]), "\x00"); got != "user.kept" && got != "" && !strings.HasPrefix(got, "security.selinux") {
			t.Errorf("extended attributes: %q, want user.kept alone", got)
		}
	}
}

// TestUnpackOwners holds that ids which no sandbox has are refused, where ids
// are kept.
func TestUnpackOwners(t *testing.T) {
	for _, id := range []int{65536, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
		_, err := unpack(t, nil, entries{{Header: tar.Header{Name: "a", Uid: id}}})
		if os.Geteuid() == 0 && !errors.Is(err, caisson.ErrInvalid) || os.Geteuid() != 0 && err != nil {
			t.Errorf("owner %d: %v", id, err)
		}
	}
}

// TestUnpackDamaged holds that damaged streams and wrong digests leave nothing.
func TestUnpackDamaged(t *testing.T) {
	good := imagetest.Tar(t, file("a", strings.Repeat("x", 100_000)))
	for name, c := range map[string]struct {
		data []byte
		kind caisson.Kind
	}{
		"NoTar":     {[]byte(strings.Repeat("junk", 1000)), caisson.ErrInvalid},
		"Cut":       {good[:50_000], caisson.ErrInvalid},
		"BadGzip":   {[]byte("\x1f\x8b\x08junkjunkjunkjunk"), caisson.ErrInvalid},
		"BadZstd":   {[]byte("\x28\xb5\x2f\xfdjunkjunkjunk"), caisson.ErrInvalid},
		"Bzip2":     {[]byte("BZh9junkjunk"), caisson.ErrUnsupported},
		"OtherDiff": {good, caisson.ErrInvalid}, // the configuration says something else
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "images")
			s := openStore(t, &image.Options{Dir: dir}, map[string]v1.Image{"x": rawImage(t, c.data)})
			img, err := s.Get(t.Context(), &image.Request{Ref: "x"})
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.RootFS(t.Context(), img, &image.Lease{Owner: "test"})
			if !errors.Is(err, c.kind) {
				t.Errorf("RootFS = %v, want kind %v", err, c.kind)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "trees", "*")); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestUnpackCancel holds that an unpacking can be ended, and leaves nothing.
func TestUnpackCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := filepath.Join(t.TempDir(), "images")
	s := openStore(t, &image.Options{Dir: dir}, map[string]v1.Image{"x": imageOf(t, entries{file("a", "1")}, entries{file("b", "1")})})
	img, err := s.Get(ctx, &image.Request{Ref: "x"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.RootFS(ctx, img, &image.Lease{Owner: "test", Progress: func(image.Progress) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("RootFS = %v, want context.Canceled", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "trees", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
