//go:build unix

package folder_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/google/go-cmp/cmp"
)

// unzip lists an archive as tree does a folder.
func unzip(t *testing.T, data []byte) []string {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	must(t, err)
	var list []string
	for _, file := range r.File {
		if strings.HasSuffix(file.Name, "/") {
			list = append(list, file.Name)
			continue
		}
		rd, err := file.Open()
		must(t, err)
		text, err := io.ReadAll(rd)
		must(t, err)
		list = append(list, file.Name+"="+string(text))
	}
	slices.Sort(list)
	return list
}

func TestArchive(t *testing.T) {
	ctx := context.Background()
	f := newFolder(t, nil)
	must(t, f.WriteConfig(value(t, `{"parameters":{"#token":"s3cret-t0ken","x":"y","#o":{"a":"inner"},"#n":null}}`), component.JSON))
	must(t, f.WriteState(value(t, `{"#old":"0ld-state"}`)))
	encoded := base64.StdEncoding.EncodeToString([]byte("s3cret-t0ken"))
	step(t, f, map[string]string{
		"out/state.json": `{"#new":"n3w-state"}`, "out/tables/t": "a,s3cret-t0ken\nb," + encoded + "\nc,n3w-state\n", "out/tables/s/1": "x",
		"out/files/a\nb\\c:%\xff": "", "out/files/given": "g1ven!",
	})
	must(t, os.Symlink(hostFile(t), filepath.Join(f.Data(), "out/files/link")))
	special["FIFO"](t, filepath.Join(f.Data(), "out/files/fifo"), "")
	source := filepath.Join(t.TempDir(), "source")
	must(t, os.WriteFile(source, []byte("bound"), 0o444))
	_, err := f.PutFile(ctx, folder.Tables, "b", source, folder.Ways{Bind: true})
	must(t, err)

	var out bytes.Buffer
	must(t, f.Archive(ctx, &out, []string{"g1ven!", "", "x"}))
	want := []string{
		"config.json={\n    \"parameters\": {\n        \"#token\": \"[hidden]\",\n        \"x\": \"y\",\n        \"#o\": \"[hidden]\",\n        \"#n\": null\n    }\n}",
		"in/", "in/files/", "in/state.json={\n    \"#old\": \"[hidden]\"\n}", "in/tables/", "in/tables/b=bound", "in/user/",
		"out/", "out/files/", "out/files/a%0Ab%5Cc%3A%25%FF=", "out/files/given=[redacted]", "out/state.json={\n    \"#new\": \"[hidden]\"\n}",
		"out/tables/", "out/tables/s/", "out/tables/s/1=x", "out/tables/t=a,[redacted]\nb,[redacted]\nc,[redacted]\n",
	}
	if diff := cmp.Diff(want, unzip(t, out.Bytes())); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
}

// TestArchiveUnreadable has documents of which it can't be told what is secret.
func TestArchiveUnreadable(t *testing.T) {
	f := newFolder(t, nil)
	step(t, f, map[string]string{"config.json": `{"#a":"s3cret"`, "out/state.json": "{"})
	must(t, os.Truncate(filepath.Join(f.Data(), "out/state.json"), 1<<30))
	must(t, os.Symlink(hostFile(t), filepath.Join(f.Data(), "in/state.json")))
	var out bytes.Buffer
	must(t, f.Archive(context.Background(), &out, nil))
	got := unzip(t, out.Bytes())
	for _, name := range []string{"config.json=[hidden]\n", "out/state.json=[hidden]\n"} {
		if !slices.Contains(got, name) {
			t.Errorf("%q is not in %q", name, got)
		}
	}
	if text := strings.Join(got, " "); strings.Contains(text, "s3cret") || strings.Contains(text, "host") {
		t.Errorf("archive shows %q", got)
	}
}

func TestArchiveCancelled(t *testing.T) {
	f := newFolder(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.Archive(ctx, io.Discard, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestArtifacts(t *testing.T) {
	ctx := context.Background()
	f := newFolder(t, nil)
	must(t, f.MakeArtifacts())
	var out bytes.Buffer
	if any, err := f.Artifact(ctx, "current", &out); any || err != nil {
		t.Errorf("Artifact of nothing = %v, %v", any, err)
	}
	step(t, f, map[string]string{"artifacts/out/current/d/x": "y", "artifacts/out/current/z": ""})
	any, err := f.Artifact(ctx, "current", &out)
	if !any || err != nil {
		t.Fatalf("Artifact = %v, %v", any, err)
	}
	next := newFolder(t, nil)
	must(t, next.PutArtifact(ctx, "runs", "12", bytes.NewReader(out.Bytes())))
	want := []string{"d/", "d/x=y", "z="}
	if diff := cmp.Diff(want, tree(t, next.Data()+"/artifacts/in/runs/jobs/job-12")); diff != "" {
		t.Errorf("artifact (-want +got):\n%s", diff)
	}

	t.Run("ErrKind", func(t *testing.T) {
		wantErr(t, f.PutArtifact(ctx, "../x", "1", nil), caisson.ErrInvalid, component.UserFault, "kind")
		wantErr(t, f.PutArtifact(ctx, "runs", "../x", nil), caisson.ErrInvalid, component.UserFault, "job")
		_, err := f.Artifact(ctx, "../in", io.Discard)
		wantErr(t, err, caisson.ErrInvalid, component.UserFault, "kind")
	})
	t.Run("ErrLarge", func(t *testing.T) {
		must(t, os.Truncate(f.Data()+"/artifacts/out/current/z", folder.MaxArtifact+1))
		_, err := f.Artifact(ctx, "current", io.Discard)
		wantErr(t, err, caisson.ErrInvalid, component.UserFault, "larger than")
		must(t, os.Remove(f.Data()+"/artifacts/out/current/z"))
	})
	for name, make := range special {
		t.Run("Err"+name, func(t *testing.T) {
			path := filepath.Join(f.Data(), "artifacts/out/current/special")
			make(t, path, hostFile(t))
			defer os.Remove(path)
			_, err := f.Artifact(ctx, "current", io.Discard)
			wantErr(t, err, caisson.ErrInvalid, component.UserFault, "artifacts/out/current")
		})
	}
	t.Run("ErrArchive", func(t *testing.T) {
		for _, data := range [][]byte{[]byte("no archive at all"), {0x1f, 0x8b, 1}, hostileTar(t)} {
			if err := next.PutArtifact(ctx, "shared", "1", bytes.NewReader(data)); err == nil {
				t.Errorf("%q was unpacked", data[:min(len(data), 20)])
			}
		}
	})
}

// hostileTar has a link out of the folder and a file behind it.
func hostileTar(t *testing.T) []byte {
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	tw := tar.NewWriter(zw)
	must(t, tw.WriteHeader(&tar.Header{Name: "link", Linkname: "/tmp", Typeflag: tar.TypeSymlink}))
	must(t, tw.WriteHeader(&tar.Header{Name: "link/caisson-was-here", Mode: 0o644}))
	must(t, tw.Close())
	must(t, zw.Close())
	return out.Bytes()
}
