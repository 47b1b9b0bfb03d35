//go:build unix

package selftest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine/attack"
	"github.com/caissonrun/caisson/image"
)

// imageData returns the attacks on the store of images.
func imageData() []attack.Attack {
	return []attack.Attack{
		{
			ID: "B18", Name: "layers/outside", Run: layersOutside, Bound: ownFolder,
			Tries: "layers with .., absolute names, links that later entries go through, hard links to outside, whiteouts of ..",
			CVE:   []string{"CVE-2019-14271", "CVE-2021-30465", "CVE-2025-47290"},
		},
		{
			ID: "B18", Name: "layers/bombs", Run: layersBombs, Bound: "the store's limits are small for it, and what is unpacked is 64 MiB at most",
			Tries: "layers that become too large, too many, too deep, with names without end, or cut in the middle",
		},
		{
			ID: "B18", Name: "layers/rights", Run: layersRights, Bound: ownFolder,
			Tries: "layers with devices, set-id bits, capabilities in extended attributes, folders that nobody can enter",
			CVE:   []string{"CVE-2024-25621", "CVE-2021-41091"},
		},
		{
			ID: "B20", Name: "images/redirected", Run: redirected, Bound: ownFolder,
			Tries: "a registry that sends the puller to a private server, or to a file",
			CVE:   []string{"CVE-2020-15157", "CVE-2024-3727"},
		},
		{
			ID: "H50", Name: "images/digest", Run: wrongDigest, Bound: ownFolder,
			Tries: "a registry that gives other bytes than the digest says: of a manifest, a configuration, a layer",
		},
		{
			ID: "H50", Name: "images/unsigned", Run: unsigned, Bound: ownFolder,
			Tries: "run an image without a signature, or with one by another key, of another image or another repository",
		},
		{
			ID: "H50", Name: "images/tag-moved", Run: tagMoved, Bound: ownFolder,
			Tries: "move a tag between the look at its signature and the pull",
		},
		{
			ID: "H50", Name: "images/confusion", Run: confusion, Bound: ownFolder,
			Tries: "a document that is an index to one reader and a manifest to another",
			CVE:   []string{"CVE-2021-41190"},
		},
	}
}

// store opens a store of an attack's own.
func store(t *attack.Trial, opts *image.Options) *image.Store {
	opts.Dir = filepath.Join(t.Dir, "store")
	s, err := image.Open(opts)
	t.OK(err, "image.Open")
	return s
}

// unpack loads and unpacks an image of these layers, and returns its folder.
func unpack(t *attack.Trial, opts *image.Options, layers ...[]byte) (string, error) {
	s := store(t, opts)
	path := filepath.Join(t.Dir, "image.tar")
	t.OK(writeLayers(path, nil, layers...), "making an image")
	img, _, err := s.Load(t.Context(), &image.Request{Ref: "docker-archive:" + path, Dir: t.Dir, Trusted: true})
	if err != nil {
		return "", err
	}
	root, err := s.RootFS(t.Context(), img, &image.Lease{Owner: "selftest", Mode: image.ModeCopy})
	t.After(func() { os.RemoveAll(filepath.Join(t.Dir, "store")) })
	if err != nil {
		return "", err
	}
	return root.Path, nil
}

func layersOutside(t *attack.Trial) {
	victim := t.Folder("victim")
	t.OK(os.WriteFile(filepath.Join(victim, "kept"), []byte("kept"), 0o644), "WriteFile")
	up := strings.Repeat("../", 30) + victim[1:]
	link := func(name, target string) attack.Entry {
		return attack.Entry{Name: name, Kind: tar.TypeSymlink, Link: target}
	}
	hard := func(name, target string) attack.Entry {
		return attack.Entry{Name: name, Kind: tar.TypeLink, Link: target}
	}
	file := func(name string) attack.Entry { return attack.Entry{Name: name, Text: "made"} }
	for i, layers := range [][][]attack.Entry{
		{{file(up + "/made")}},
		{{file(victim + "/made")}},
		{{file("a/../../made")}},
		{{link("l", victim), file("l/made")}},
		{{link("l", victim)}, {file("l/made")}},
		{{link("l", up)}, {file("l/made")}},
		{{link("a", "b"), link("b", victim), file("a/made")}},
		{{link("l", "/proc/self/root"+victim)}, {file("l/made")}},
		{{link("l", "/proc/self/cwd")}, {file("l/made")}},
		{{hard("h", victim+"/kept"), file("h")}},
		{{hard("h", up+"/kept")}, {file("h")}},
		{{link("l", victim)}, {hard("h", "l/kept"), file("h")}},
		{{link("l", victim)}, {file("l/.wh.kept")}},
		{{link("l", victim)}, {file("l/.wh..wh..opq")}},
		{{file(".wh...")}},
		{{file(".wh..")}},
		{{file(".wh.../x")}},
		{{file("a/.wh.../.wh.kept")}},
		{{link("l", victim)}, {{Name: "l/", Kind: tar.TypeDir, Mode: 0o777}}},
		{{link("l", victim+"/kept")}, {{Name: "l", Text: "other"}}},
	} {
		var packed [][]byte
		for _, layer := range layers {
			packed = append(packed, attack.Pack(layer...).Bytes())
		}
		// It may be refused, or be unpacked inside of its root.
		_, _ = unpack(t, &image.Options{}, packed...)
		t.OK(os.RemoveAll(filepath.Join(t.Dir, "store")), "RemoveAll")
		data, err := os.ReadFile(filepath.Join(victim, "kept"))
		entries, _ := os.ReadDir(victim)
		if string(data) != "kept" || err != nil || len(entries) != 1 {
			t.Errorf("image %d changed a folder of the host: %q, %v, %d entries", i, data, err, len(entries))
			return
		}
	}
	if info, err := os.Stat(victim); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("a folder of the host has the mode %v, %v", info.Mode(), err)
	}
}

func layersBombs(t *attack.Trial) {
	zeros := func(size int) []byte {
		return attack.Pack(attack.Entry{Name: "z", Text: strings.Repeat("\x00", size)}).Bytes()
	}
	squeezed := func(data []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, err := w.Write(data)
		t.OK(errors.Join(err, w.Close()), "compressing")
		return out.Bytes()
	}
	var many []attack.Entry
	for i := range 3000 {
		many = append(many, attack.Entry{Name: fmt.Sprint("f", i)})
	}
	small := image.Limits{Bytes: 8 * caisson.MiB, Entries: 1000, Layers: 4, Depth: 32, LayerBytes: 32 * caisson.MiB}
	whole := attack.Pack(attack.Entry{Name: "cut", Text: strings.Repeat("x", 1<<20)}).Bytes()
	for name, layers := range map[string][][]byte{
		"too large":        {zeros(16 << 20)},
		"large together":   {zeros(6 << 20), attack.Pack(attack.Entry{Name: "y", Text: strings.Repeat("y", 6<<20)}).Bytes()},
		"compressed":       {squeezed(zeros(64 << 20))},
		"too many":         {attack.Pack(many...).Bytes()},
		"too deep":         {attack.Pack(attack.Entry{Name: strings.Repeat("d/", 100) + "f"}).Bytes()},
		"a long name":      {attack.Pack(attack.Entry{Name: strings.Repeat("n", 5000)}).Bytes()},
		"too many layers":  {zeros(1), zeros(2), zeros(3), zeros(4), zeros(5)},
		"cut":              {whole[:len(whole)/2]},
		"garbage":          {bytes.Repeat([]byte("garbage "), 1000)},
		"garbage squeezed": {squeezed(bytes.Repeat([]byte("garbage "), 1000))},
	} {
		_, err := unpack(t, &image.Options{Limits: small}, layers...)
		if !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("an image that is %s: %v, want an error of kind %v", name, err, caisson.ErrInvalid)
		}
		t.OK(os.RemoveAll(filepath.Join(t.Dir, "store")), "RemoveAll")
	}
}

func layersRights(t *attack.Trial) {
	layer := layerOf([]attack.File{
		{Path: "block", Mode: fs.ModeDevice | 0o666, Major: 7},
		{Path: "char", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Major: 1, Minor: 1},
		{Path: "setid", Text: "x", Mode: 0o755 | fs.ModeSetuid | fs.ModeSetgid},
		{Path: "closed", Mode: fs.ModeDir},
		{Path: "closed/file", Text: "x"},
		{Path: "open", Mode: fs.ModeDir | 0o777},
	})
	path, err := unpack(t, &image.Options{}, layer)
	if err != nil {
		return // refused as a whole
	}
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if bad := info.Mode() & (fs.ModeDevice | fs.ModeSetuid | fs.ModeSetgid); bad != 0 {
			t.Errorf("%s was unpacked with %v", strings.TrimPrefix(name, path), bad)
		}
		return nil
	})
	t.OK(err, "looking at what was unpacked")
	// No other user of the host may reach what an image has.
	for dir := filepath.Dir(path); strings.HasPrefix(dir, t.Dir+"/"); dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o007 == 0 {
			return
		}
	}
	t.Errorf("every user of this host can reach the root file systems of images")
}
