//go:build unix

package image_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/imagetest"
	"github.com/caissonrun/caisson/image/machine"
)

// machineFile is an archive of a machine, and its digest.
func machineFile(t *testing.T) (file, sum string) {
	t.Helper()
	disk, err := os.Create(filepath.Join(t.TempDir(), "raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if err := errors.Join(machine.CreateRaw(disk, 64*caisson.MiB), os.WriteFile(disk.Name(), bytes.Repeat([]byte("boot"), 1024), 0o600)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := machine.Pack(t.Context(), &out, disk, &machine.Machine{Version: 1, Memory: 256}); err != nil {
		t.Fatal(err)
	}
	return writeFile(t, filepath.Join(t.TempDir(), "image.tar.zst"), out.Bytes()), sumOf(out.Bytes())
}

func sumOf(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

// TestMachine keeps the image of a machine as long as a name or a lease needs it.
func TestMachine(t *testing.T) {
	s := openStore(t, nil, nil)
	file, sum := machineFile(t)
	for _, ref := range []string{"https://host.example/image.tar.zst", file} {
		if _, err := s.KeptMachine(t.Context(), ref, sum); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("KeptMachine(%s) = %v, want ErrNotFound", ref, err)
		}
		img, err := s.KeepMachine(t.Context(), ref, sum, file)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.KeptMachine(t.Context(), ref, sum); err != nil || again.Digest != img.Digest {
			t.Errorf("KeptMachine(%s) = %+v, %v, want %s", ref, again, err, img.Digest)
		}
	}
	img, err := s.KeptMachine(t.Context(), file, sum)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Machine(t.Context(), img, &image.Lease{Owner: "one"})
	if err != nil || strings.Join(m.Files, " ") != "disk.img layer.qcow2" || m.SHA256 != sum || m.Image.Machine.Memory != 256 {
		t.Fatalf("Machine = %+v, %v", m, err)
	}
	if data, err := os.ReadFile(filepath.Join(m.Dir, m.Files[0])); err != nil || !bytes.HasPrefix(data, []byte("bootboot")) {
		t.Errorf("the disk has %d bytes, %v", len(data), err)
	}
	if again, err := s.Machine(t.Context(), img, &image.Lease{Owner: "two"}); err != nil || again.Dir != m.Dir {
		t.Errorf("Machine again = %+v, %v", again, err)
	}
	if list, err := s.List(t.Context()); err != nil || len(list) != 2 || !list[0].InUse || !list[0].Unpacked || list[0].UnpackedSize == 0 {
		t.Errorf("List = %+v, %v", list, err)
	}
	for _, owner := range []string{"one", "two"} {
		collect(t, s, image.GCOptions{All: true})
		if _, err := os.Stat(filepath.Join(m.Dir, m.Files[1])); err != nil {
			t.Fatalf("before %s is done: %v", owner, err)
		}
		if err := s.Unlease(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
	}
	collect(t, s, image.GCOptions{All: true})
	if left := holds(t, s.Dir()); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

func TestMachineErrors(t *testing.T) {
	s := openStore(t, nil, map[string]v1.Image{"app": imageOf(t, entries{file("a", "1")})})
	good, sum := machineFile(t)
	t.Run("Sum", func(t *testing.T) {
		if _, err := s.KeepMachine(t.Context(), good, strings.Repeat("0", 64), good); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("KeepMachine = %v, want ErrInvalid", err)
		}
	})
	t.Run("Digest", func(t *testing.T) {
		for _, bad := range []string{"", "abc", "../../x"} {
			if _, err := s.KeepMachine(t.Context(), good, bad, good); !errors.Is(err, caisson.ErrInvalid) {
				t.Errorf("KeepMachine with digest %q = %v, want ErrInvalid", bad, err)
			}
		}
	})
	t.Run("Ref", func(t *testing.T) {
		for _, ref := range []string{"", "image.qcow2", "https://"} {
			if _, err := s.KeepMachine(t.Context(), ref, sum, good); !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), "neither a URL") {
				t.Errorf("KeepMachine of %q = %v, want ErrInvalid", ref, err)
			}
		}
	})
	t.Run("Absent", func(t *testing.T) {
		if _, err := s.KeepMachine(t.Context(), good, sum, good+"x"); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("KeepMachine = %v, want ErrNotFound", err)
		}
	})
	t.Run("Damaged", func(t *testing.T) {
		data := []byte("\x28\xb5\x2f\xfd and no more")
		bad := writeFile(t, filepath.Join(t.TempDir(), "bad"), data)
		img, err := s.KeepMachine(t.Context(), bad, sumOf(data), bad)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := s.Machine(t.Context(), img, &image.Lease{Owner: "bad"}); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Machine = %+v, %v, want ErrInvalid", m, err)
		}
		if left := glob(t, s, "trees", "*"); len(left) > 0 {
			t.Errorf("left %q", left)
		}
	})
	t.Run("OtherKind", func(t *testing.T) {
		img, err := s.KeepMachine(t.Context(), good, sum, good)
		if err != nil {
			t.Fatal(err)
		}
		lease := &image.Lease{Owner: "other"}
		if _, err := s.RootFS(t.Context(), img, lease); !errors.Is(err, caisson.ErrUnsupported) {
			t.Errorf("RootFS of a machine = %v, want ErrUnsupported", err)
		}
		if _, err := s.Disk(t.Context(), img, lease); !errors.Is(err, caisson.ErrUnsupported) {
			t.Errorf("Disk of a machine = %v, want ErrUnsupported", err)
		}
		if _, err := s.Machine(t.Context(), fetched(t, s, "app"), lease); !errors.Is(err, caisson.ErrUnsupported) {
			t.Errorf("Machine of an image = %v, want ErrUnsupported", err)
		}
		if _, err := s.Get(t.Context(), &image.Request{Ref: good + "@sha256:" + sum, Pull: image.PullNever}); err == nil {
			t.Error("Get gives a machine for an image")
		}
	})
}

// TestGetMachine brings the image of a machine from a registry.
func TestGetMachine(t *testing.T) {
	reg := imagetest.NewHTTPRegistry(t)
	s := pullStore(t, image.Sources{AuthFile: authFile(t, `{}`), HTTP: []string{reg.Host}})
	file, sum := machineFile(t)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const kind, config types.MediaType = "application/vnd.caisson.machine.v1", "application/vnd.oci.empty.v1+json"
	ref := reg.Push(t, "vm:1", imagetest.Module(t, string(data), kind, config))
	img, err := s.GetMachine(t.Context(), &image.Request{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := s.Machine(t.Context(), img, &image.Lease{Owner: "one"}); err != nil || m.SHA256 != sum || m.Size != caisson.Bytes(4096) {
		t.Errorf("Machine = %+v, %v", m, err)
	}
	before := reg.Count("manifests")
	if again, err := s.GetMachine(t.Context(), &image.Request{Ref: ref, Pull: image.PullNever}); err != nil || again.Digest != img.Digest || reg.Count("manifests") != before {
		t.Errorf("from the store: %+v, %v", again, err)
	}
	if _, err := s.Get(t.Context(), &image.Request{Ref: ref}); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("a machine as an image: %v, want ErrUnsupported", err)
	}
	for name, other := range map[string]v1.Image{
		"image:1": imageOf(t, entries{}), "module:1": imagetest.Module(t, "x", wasmType, wasmConfig), "config:1": imagetest.Module(t, "x", kind, ""),
	} {
		if _, err := s.GetMachine(t.Context(), &image.Request{Ref: reg.Push(t, name, other)}); !errors.Is(err, caisson.ErrUnsupported) {
			t.Errorf("%s: %v, want ErrUnsupported", name, err)
		}
	}
	index := reg.PushIndex(t, "index:1", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: imagetest.Module(t, "x", kind, config)}))
	if _, err := s.GetMachine(t.Context(), &image.Request{Ref: index}); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("an index: %v, want ErrUnsupported", err)
	}
}
