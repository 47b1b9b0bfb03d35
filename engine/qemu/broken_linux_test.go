package qemu

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/keeper"
)

// A broken host is one on which no guest can boot. Its parts are files that look as
// if one could.
type broken struct {
	t    *testing.T
	dir  string
	opts *Options
}

func newBroken(t *testing.T) *broken {
	dir := t.TempDir()
	b := &broken{t: t, dir: dir, opts: &Options{
		Runtime: filepath.Join(dir, "run"), Cache: filepath.Join(dir, "cache"), Keeper: keeper.Command{"/absent"},
	}}
	b.opts.KernelRoot, b.opts.Agent = filepath.Join(dir, "root"), b.file("agent", "a program")
	b.qemu(7, `[{"name": "tcg-accel"}, {"name": "kvm-accel"}]`)
	b.kernel(true)
	b.file("root/lib/modules/6.1.0-test/modules.builtin", "kernel/"+strings.Join(needed, ".ko\nkernel/")+".ko\n")
	return b
}

func (b *broken) file(name, text string) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// qemu makes a QEMU of a version, which says what it has.
func (b *broken) qemu(major int, accels string) {
	b.opts.Program = b.file("qemu", `#!/bin/sh
echo '{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": `+string(rune('0'+major))+`}, "package": ""}, "capabilities": []}}' >&0
while read -r line; do
	id=${line##*\"id\":}
	answer='[]'
	case $line in
	*query-target*) answer='{"arch": "x86_64"}' ;;
	*query-machines*) answer='[{"name": "q35"}, {"name": "pc"}]' ;;
	*\"accel\"*) answer='`+accels+`' ;;
	esac
	echo "{\"return\": $answer, \"id\": ${id%\}}}" >&0
done
`)
}

// kernel makes the beginning of a kernel for x86, of 64 bits or of 32.
func (b *broken) kernel(wide bool) {
	head := make([]byte, 4096)
	copy(head[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(head[0x206:], 0x20f)
	binary.LittleEndian.PutUint16(head[0x20e:], 0x600)
	head[0x211] = 1
	if wide {
		head[0x236] = 1
	}
	copy(head[0x800:], "6.1.0-test #1")
	b.file("root/boot/vmlinuz-6.1.0-test", string(head))
}

// TestBroken holds that whatever a host lacks is one line that says what to do about
// it, and that nothing but the cache is left.
func TestBroken(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*broken)
		why, do string
	}{
		{"NoQEMU", func(b *broken) { b.opts.Program = "/absent/qemu" }, "/absent/qemu: no such file", "install qemu-system-x86"},
		{"NotInPath", func(b *broken) { b.opts.Program = "absent-qemu" }, "absent-qemu: executable file not found in $PATH", "engine.qemu.program"},
		{"OldQEMU", func(b *broken) { b.qemu(4, "[]") }, "version 4.2.0 is too old: 5.2 is needed", "of version 5.2 or later"},
		{"OtherProgram", func(b *broken) { b.opts.Program = b.file("other", "#!/bin/sh\necho GNU bash >&0\n") }, "a message that is none", "name another QEMU"},
		{"NoKernel", func(b *broken) { b.opts.KernelRoot = b.dir + "/absent" }, "there is neither boot/vmlinuz-*", "linux-image-amd64"},
		{"NamedKernel", func(b *broken) { b.opts.KernelRoot, b.opts.Kernel = "", "/absent/vmlinuz" }, "/absent/vmlinuz: no such file", "engine.qemu.kernel"},
		{"NoKernelAtAll", func(b *broken) { b.file("root/boot/vmlinuz-6.1.0-test", "text") }, "not a Linux kernel that QEMU can boot", "name another one"},
		{"OtherArch", func(b *broken) { b.kernel(false) }, "it is for 386, and amd64 is needed", "name another one"},
		{"NoModules", func(b *broken) { b.file("root/lib/modules/6.1.0-test/modules.builtin", "") }, "has no virtio_console, virtio_blk, ext4, overlay", "see docs"},
		{"NoAgent", func(b *broken) { b.opts.Agent = "/absent/agent" }, "/absent/agent: no such file", "see docs"},
		{"NoAccel", func(b *broken) { b.qemu(7, "[]") }, "tcg: QEMU 7.2.0 has no accelerator tcg", "see docs"},
		{"NoKVM", func(b *broken) { b.opts.Accels = []string{machine.KVM}; b.qemu(7, `[{"name": "tcg-accel"}]`) }, "QEMU 7.2.0 has no accelerator kvm", "see docs"},
		{"NoType", func(b *broken) { b.opts.Types, b.opts.Accels = []string{machine.MicroVM}, []string{machine.TCG} }, "has no machine microvm", "see docs"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBroken(t)
			test.change(b)
			e, err := New(b.opts)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			f, err := e.Probe(t.Context())
			if err != nil || f.Usable || len(f.Missing) != 1 {
				t.Fatalf("Probe = %+v, %v, want one thing that is missing", f, err)
			}
			m := f.Missing[0]
			if !strings.Contains(m.Why, test.why) || !strings.Contains(m.Do, test.do) || strings.ContainsAny(m.Why+m.Do, "\n") {
				t.Errorf("missing is %q; %q, want %q; %q", m.Why, m.Do, test.why, test.do)
			}
			left, err := filepath.Glob(filepath.Join(b.opts.Runtime, "*"))
			if more, _ := filepath.Glob(filepath.Join(b.opts.Cache, ".*")); err != nil || len(left)+len(more) > 0 {
				t.Errorf("left are %q and %q, %v", left, more, err)
			}
		})
	}
}
