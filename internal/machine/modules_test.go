package machine

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/caissonrun/caisson"
)

// ko makes a module that says info of itself.
func ko(info ...string) []byte {
	text := []byte(strings.Join(info, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	var b bytes.Buffer
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: uint64(64 + len(text) + len(names)), Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2,
	}
	for _, part := range []any{
		h, text, names,
		elf.Section64{},
		elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(text))},
		elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(text)), Size: uint64(len(names))},
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func gzipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

func zstded(data []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(data, nil)
}

// tree makes a kernel with modules, by their paths.
func tree(t *testing.T, files map[string][]byte) *Modules {
	t.Helper()
	dir := t.TempDir()
	for path, data := range files {
		put(t, filepath.Join(dir, path), data)
	}
	m, err := OpenModules(&Kernel{Modules: dir})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// names are those of modules, in order.
func names(list []Module) (out []string) {
	for _, m := range list {
		out = append(out, m.Name)
	}
	return out
}

func TestResolve(t *testing.T) {
	m := tree(t, map[string][]byte{
		"modules.builtin":                       []byte("kernel/drivers/a/built-in.ko\nkernel/fs/ext4/ext4.ko\n"),
		"kernel/drivers/virtio/virtio.ko":       ko("depends="),
		"kernel/drivers/virtio/virtio_ring.ko":  ko("license=GPL", "depends=virtio"),
		"kernel/drivers/virtio/virtio_pci.ko":   ko("depends=virtio-ring,virtio,built-in"),
		"kernel/drivers/char/virtio-rng.ko.zst": zstded(ko("depends=virtio_ring")),
		"kernel/fs/soft.ko.gz":                  gzipped(ko("softdep=pre: first nothing post: second", "depends=")),
		"kernel/fs/first.ko":                    ko("depends="),
		"kernel/fs/second.ko":                   ko("depends="),
		"kernel/fs/broken.ko":                   ko("depends=first,gone"),
		"kernel/fs/own.ko":                      ko("depends=gone"),
		"updates/own.ko":                        ko("depends="),
		"kernel/fs/readme.txt":                  []byte("text"),
	})
	tests := []struct {
		name          string
		wanted        string
		load          string
		built, absent string
	}{
		{"Order", "virtio_pci", "virtio virtio_ring virtio_pci", "", ""},
		{"OnceEach", "virtio_rng virtio_pci virtio_rng", "virtio virtio_ring virtio_rng virtio_pci", "", ""},
		{"Dashes", "virtio-rng", "virtio virtio_ring virtio_rng", "", ""},
		{"BuiltIn", "ext4 built-in", "", "ext4 built_in", ""},
		{"SoftBeforeOnly", "soft", "first soft", "", ""},
		{"Missing", "gone virtio", "virtio", "", "gone"},
		{"MissingInTurn", "broken virtio", "virtio", "", "broken"},
		{"MissingThenPartOfIt", "broken first", "first", "", "broken"},
		{"PartThenMissing", "first broken", "first", "", "broken"},
		{"OperatorsOwnFirst", "own", "own", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := m.Resolve(strings.Fields(tt.wanted)...)
			if err != nil {
				t.Fatal(err)
			}
			got := [][]string{names(p.Load), p.Builtin, p.Missing}
			for i, want := range []string{tt.load, tt.built, tt.absent} {
				if !slices.Equal(got[i], strings.Fields(want)) {
					t.Errorf("Resolve(%s)[%d] = %q, want %q", tt.wanted, i, got[i], want)
				}
			}
		})
	}
}

func TestResolveErrors(t *testing.T) {
	m := tree(t, map[string][]byte{
		"kernel/a.ko":         ko("depends=b"),
		"kernel/b.ko":         ko("depends=a"),
		"kernel/text.ko":      []byte("no module"),
		"kernel/silent.ko.xz": []byte("no xz"),
		"kernel/bomb.ko.gz":   gzipped(make([]byte, maxModule+1)),
		"kernel/bomb2.ko.zst": zstded(make([]byte, maxModule+1)),
	})
	tests := []struct {
		name string
		err  string
	}{
		{"a", "needs itself"},
		{"text", "not a module"},
		{"silent", "xz"},
		{"bomb", "larger than 64 MiB"},
		{"bomb2", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := m.Resolve(tt.name)
			if p != nil || err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), tt.name) {
				t.Errorf("Resolve(%s) = %+v, %v, want an error that says %q", tt.name, p, err, tt.err)
			}
		})
	}
	t.Run("NoXZ", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if _, err := m.Resolve("silent"); !errors.Is(err, caisson.ErrUnsupported) || !matches(err, "no program xz") {
			t.Errorf("Resolve() = %v, want ErrUnsupported that names xz", err)
		}
	})
}

func TestXZ(t *testing.T) {
	program, err := exec.LookPath("xz")
	if err != nil {
		t.Skip("there is no xz")
	}
	cmd := exec.Command(program, "--check=crc32", "--stdout")
	cmd.Stdin = bytes.NewReader(ko("depends="))
	data, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	p, err := tree(t, map[string][]byte{"kernel/x.ko.xz": data}).Resolve("x")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Load[0].Read(); err != nil || !bytes.Equal(got, ko("depends=")) {
		t.Errorf("Read() = %d bytes, %v, want the module", len(got), err)
	}
}

func TestNoModules(t *testing.T) {
	m, err := OpenModules(&Kernel{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Resolve("virtio_pci")
	if diff := cmp.Diff(&Plan{Missing: []string{"virtio_pci"}}, p); diff != "" || err != nil {
		t.Errorf("Resolve() = %v, -want +got:\n%s", err, diff)
	}
}

// TestRealModules holds that the plan for a distribution's kernel is whole: each
// module comes after all that it needs.
func TestRealModules(t *testing.T) {
	m, err := OpenModules(testKernel(t))
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Resolve(Wanted...)
	if err != nil {
		t.Fatal(err)
	}
	loaded := map[string]bool{}
	for _, mod := range p.Load {
		hard, _, err := mod.needs()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range hard {
			if !loaded[n] && !m.builtin[n] {
				t.Errorf("%s comes before %s, which it needs", mod.Name, n)
			}
		}
		loaded[mod.Name] = true
	}
	t.Logf("load %q, built in %q, missing %q", names(p.Load), p.Builtin, p.Missing)
	for _, name := range []string{"virtio_pci", "virtio_mmio", "virtio_console", "virtio_blk", "virtio_net", "virtio_rng"} {
		if !loaded[name] && !m.builtin[name] {
			t.Errorf("%s is neither in the plan nor built in", name)
		}
	}
}

func FuzzModinfo(f *testing.F) {
	f.Add(ko("depends=a,b", "softdep=pre: c"))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "x.ko")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, _ = (&Module{"x", path}).needs()
	})
}
