//go:build unix

package selftest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson/engine/attack"
)

// archivePath is where the archive of a root file system lies that has this
// folder's name, and archiveRef the reference of the image in it.
func archivePath(root string) string { return root + ".tar" }
func archiveRef(root string) string  { return "docker-archive:" + archivePath(root) }

// labels look like what daemons, runtimes and Caisson have taken for control
// input; program is one that must not be run because of them.
func labels(program string) map[string]string {
	return map[string]string{
		"containerd.io/restart.loguri": "binary://" + program, "io.containerd.runc.v2.group": "../../x",
		"org.criu.config": program, "run.oci.handler": "krun", "run.oci.hooks.stderr": program + ".made", "run.oci.seccomp_fail_unknown_syscall": "0",
		"run.oci.systemd.subgroup": "../x", "run.oci.keep_original_groups": "1", "io.kubernetes.cri-o.userns-mode": "host",
		"run.caisson.installation": "other", "run.caisson.sandbox": "other", "run.caisson.task": "../../x", "run.caisson.networks": "host",
	}
}

// writeArchive writes an image of one layer with files, as `docker save` does.
func writeArchive(path string, files []attack.File) error {
	return writeLayers(path, nil, layerOf(files))
}

// writeLayers writes an image of these layers, with labels.
func writeLayers(path string, labels map[string]string, layers ...[]byte) error {
	type config struct {
		Architecture string         `json:"architecture"`
		OS           string         `json:"os"`
		Config       map[string]any `json:"config"`
		RootFS       map[string]any `json:"rootfs"`
	}
	var ids, names []string
	entries := []attack.Entry{}
	for i, layer := range layers {
		ids = append(ids, fmt.Sprintf("sha256:%x", sha256.Sum256(layer)))
		names = append(names, fmt.Sprintf("%d.tar", i))
		entries = append(entries, attack.Entry{Name: names[i], Text: string(layer)})
	}
	settings, err := json.Marshal(config{
		Architecture: runtime.GOARCH, OS: "linux",
		Config: map[string]any{"Labels": labels}, RootFS: map[string]any{"type": "layers", "diff_ids": ids},
	})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%x.json", sha256.Sum256(settings))
	manifest, err := json.Marshal([]map[string]any{{"Config": name, "RepoTags": []string{}, "Layers": names}})
	if err != nil {
		return err
	}
	entries = append(entries, attack.Entry{Name: name, Text: string(settings)}, attack.Entry{Name: "manifest.json", Text: string(manifest)})
	return os.WriteFile(path, attack.Pack(entries...).Bytes(), 0o644)
}

// layerOf returns files as a layer; of several with the same path the last.
func layerOf(files []attack.File) []byte {
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	for i, f := range files {
		later := func(o attack.File) bool { return o.Path == f.Path }
		if slices.ContainsFunc(files[i+1:], later) || replaced(f.Path, files[i+1:]) {
			continue
		}
		header := headerOf(&f)
		if err := w.WriteHeader(header); err != nil {
			panic(err)
		}
		if header.Size > 0 {
			if _, err := w.Write([]byte(f.Text)); err != nil {
				panic(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return data.Bytes()
}

// replaced reports whether a folder above path is replaced by a link.
func replaced(path string, later []attack.File) bool {
	return slices.ContainsFunc(later, func(o attack.File) bool {
		return o.Mode.Type() == fs.ModeSymlink && strings.HasPrefix(path, o.Path+"/")
	})
}

// headerOf returns what a layer says of a file.
func headerOf(f *attack.File) *tar.Header {
	h := &tar.Header{Name: f.Path, Mode: int64(f.Mode.Perm()), ModTime: time.Unix(1e9, 0), Typeflag: tar.TypeReg}
	if f.Mode == 0 {
		h.Mode = 0o644
	}
	for bit, value := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if f.Mode&bit != 0 {
			h.Mode |= value
		}
	}
	switch f.Mode.Type() {
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, f.Path+"/"
	case fs.ModeSymlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
	case fs.ModeNamedPipe:
		h.Typeflag = tar.TypeFifo
	case fs.ModeDevice:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeBlock, int64(f.Major), int64(f.Minor)
	case fs.ModeDevice | fs.ModeCharDevice:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(f.Major), int64(f.Minor)
	default:
		h.Size = int64(len(f.Text))
	}
	return h
}
