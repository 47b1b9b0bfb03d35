package enginetest

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func rootCases() []Case {
	return []Case{
		{
			Name: "root/no-image", Rules: []int{4}, Needs: []string{"image_only"},
			Rule: "a program without an image is refused where every program needs one",
			body: rootNoImage,
		},
		{
			Name: "root/shared", Rules: []int{126, 132}, Needs: []string{"rootfs", "overlay"}, wants: []facility{imaged},
			Rule: "of sandboxes that share an image none sees what another one changes, and the image stays as it is",
			body: rootShared,
		},
		{
			Name: "root/own", Rules: []int{116}, Needs: []string{"rootfs"}, wants: []facility{imaged, unpacked},
			Rule: "a root of the sandbox's own is written, and files in it belong to who unpacked it",
			body: rootOwn,
		},
		{
			Name: "root/links", Rules: []int{106, 107, 126}, Needs: []string{"rootfs"}, wants: []facility{imaged},
			Rule: "an image whose folders and files are links to the host's leads nobody there, when the sandbox is made or later",
			body: rootLinks,
		},
		{
			Name: "root/kernel-folders", Rules: []int{127}, Needs: []string{"rootfs"}, wants: []facility{imaged},
			Rule: "an image that has links in the place of /proc, /sys and /dev is refused, or they are the kernel's all the same",
			body: rootKernelFolders,
		},
		{
			Name: "root/accounts", Rules: []int{127}, Needs: []string{"rootfs", "user"}, wants: []facility{imaged},
			Rule: "users are looked up in the image by name; ids out of range, endless files and files that are none give nobody root",
			body: rootAccounts,
		},
	}
}

func imaged(s *suite) string {
	if s.h.RootFS == "" {
		return "the harness has no image"
	}
	return ""
}

func unpacked(s *suite) string {
	if s.features.Disk {
		return "a root is a disk that sandboxes share"
	}
	return ""
}

// image returns a copy of the harness's image that the case may change, with a
// folder /open that everybody may write to.
func (t *T) image(name string) string {
	dir := filepath.Join(t.dir, name)
	t.ok(os.CopyFS(dir, os.DirFS(t.h.RootFS)), "CopyFS")
	t.ok(os.Mkdir(filepath.Join(dir, "open"), 0o700), "Mkdir")
	t.ok(os.Chmod(filepath.Join(dir, "open"), 0o777), "Chmod")
	t.ok(os.WriteFile(filepath.Join(dir, "open", "mine"), []byte("image"), 0o666), "WriteFile")
	t.ok(os.Chmod(filepath.Join(dir, "open", "mine"), 0o666), "Chmod")
	return dir
}

// on returns a spec whose root is an image.
func (t *T) on(image string, args ...string) *engine.Spec {
	spec := t.spec(args...)
	base := filepath.Dir(spec.Dir)
	t.ok(os.RemoveAll(filepath.Join(base, "changes")), "RemoveAll")
	t.ok(os.RemoveAll(filepath.Join(base, "rootfs")), "RemoveAll")
	t.ok(os.RemoveAll(filepath.Join(base, "rootfs.ext4")), "RemoveAll")
	spec.RootFS = t.rootFS(base, image)
	return spec
}

func rootNoImage(t *T) {
	spec := t.spec("exit 0")
	spec.RootFS, spec.Image = nil, ""
	t.refused(spec, caisson.ErrUnsupported)
}

// listing is all that a folder holds, with what could be changed of it.
func (t *T) listing(dir string) string {
	var b bytes.Buffer
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, info.Mode(), info.ModTime().UnixNano())
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			fmt.Fprintln(&b, len(data), string(data[:min(len(data), 64)]))
			return err
		}
		return nil
	})
	t.ok(err, "WalkDir")
	return b.String()
}

func rootShared(t *T) {
	image := t.image("image")
	before := t.listing(image)
	one := t.start(t.on(image, "write /open/new x ; write /open/mine changed ; say changed ; sleep 60s"))
	one.says("changed")
	two := t.start(t.on(image, "try list /open/new ; read /open/mine ; remove /open/mine ; try read /open/mine"))
	two.success()
	if got := two.stdout(); !strings.Contains(got, "image") || strings.Contains(got, "changed") {
		t.Errorf("another sandbox of the image sees %q", got)
	}
	one.stop(engine.Stop{Reason: caisson.ReasonKilled})
	one.wait()
	if after := t.listing(image); after != before {
		t.Errorf("the image was changed: before\n%.2000s\nafter\n%.2000s", before, after)
	}
}

func rootOwn(t *T) {
	image := t.image("image")
	spec := t.on(image, "write /open/new x ; read /open/mine")
	spec.RootFS = &engine.RootFS{Path: t.real(image)}
	t.start(spec).success()
	info, err := os.Lstat(filepath.Join(image, "open", "new"))
	t.ok(err, "Lstat")
	if info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 || !info.Mode().IsRegular() {
		t.Errorf("the file is %v", info.Mode())
	}
}

func (t *T) real(path string) string {
	real, err := filepath.EvalSymlinks(path)
	t.ok(err, "EvalSymlinks")
	return real
}

// link puts links in an image, in place of what is there.
func (t *T) link(image string, links map[string]string) {
	for name, target := range links {
		path := filepath.Join(image, name)
		t.ok(os.RemoveAll(path), "RemoveAll")
		t.ok(os.MkdirAll(filepath.Dir(path), 0o755), "MkdirAll")
		t.ok(os.Symlink(target, path), "Symlink")
	}
}

func rootLinks(t *T) {
	outside := t.folder("outside")
	secret := filepath.Join(outside, "secret")
	t.ok(os.WriteFile(secret, []byte("of the host"), 0o644), "WriteFile")
	up := strings.Repeat("../", 40)
	for i, links := range []map[string]string{
		{"etc/hosts": secret, "etc/hostname": up + secret[1:], "etc/resolv.conf": "/proc/self/cwd/" + up + secret[1:]},
		{"work": outside, "tmp": up + outside[1:]},
		{"work": "/proc/1/root" + outside, "scratch": "/proc/self/root" + outside},
		{"etc": outside},
		{"scratch": "loop", "loop": "scratch"},
		{"scratch": "/proc/sys", "run": "/proc/self"},
	} {
		image := t.image(fmt.Sprint("image", i))
		t.link(image, links)
		spec := t.on(image, "try read /etc/hosts ; try write /work/f x ; try write /tmp/f x ; try write /scratch/f x ; try list", outside, "; try read", secret)
		spec.Mounts = append(spec.Mounts, engine.Mount{Type: engine.MountTmpfs, Target: "/scratch"})
		sb, err := t.engine.Create(t.ctx, spec)
		if err == nil {
			t.after(func() { t.discard(spec.Dir, sb) })
			b := &box{t: t, spec: spec, Sandbox: sb}
			b.process, err = sb.Start(t.ctx)
			t.ok(err, "Start")
			b.wait()
			if out := b.stdout(); strings.Contains(out, "of the host") || strings.Contains(out, "secret") {
				t.Errorf("with %v the program sees the host: %.300q", links, out)
			}
		}
		data, err := os.ReadFile(secret)
		t.ok(err, "ReadFile")
		entries, err := os.ReadDir(outside)
		t.ok(err, "ReadDir")
		if string(data) != "of the host" || len(entries) != 1 {
			t.Errorf("with %v the host's folder was changed: %q, %v", links, data, entries)
		}
	}
}

func rootKernelFolders(t *T) {
	for _, name := range []string{"proc", "sys", "dev"} {
		image := t.image("image-" + name)
		t.link(image, map[string]string{name: "/open"})
		spec := t.on(image, "report")
		b := t.startUnless(spec, caisson.ErrInvalid, caisson.ErrDenied, caisson.ErrUnsupported)
		if b == nil {
			continue
		}
		if exit := b.wait(); exit.Code == 0 {
			if f := t.facts(b.stdout()); f.PID == 0 {
				t.Errorf("with a link at /%s the program sees %+v", name, f)
			}
		}
	}
}

func rootAccounts(t *T) {
	image := t.image("image")
	t.ok(os.MkdirAll(filepath.Join(image, "etc"), 0o755), "MkdirAll")
	passwd := filepath.Join(image, "etc", "passwd")
	set := func(text string) {
		t.ok(os.RemoveAll(passwd), "RemoveAll")
		t.ok(os.WriteFile(passwd, []byte(text), 0o644), "WriteFile")
	}
	set("someone:x:4321:4321::/:/bin/sh\nbig:x:4294967296:0::/:\nminus:x:-1:-1::/:\nfloat:x:0.0:0::/:\nspace:x: 0:0::/:\n")
	spec := t.on(image, "report")
	spec.User = "someone"
	if b := t.startUnless(spec, caisson.ErrUnsupported); b != nil {
		if f := b.facts(); f.UID != 4321 || f.GID != 4321 {
			t.Errorf("user someone is %d:%d", f.UID, f.GID)
		}
	}
	nobody := func(user string) {
		spec := t.on(image, "report")
		spec.User = user
		if b := t.startUnless(spec, caisson.ErrInvalid, caisson.ErrNotFound, caisson.ErrDenied, caisson.ErrUnsupported); b != nil {
			t.Errorf("user %q is %d inside", user, b.facts().UID)
		}
	}
	for _, user := range []string{"big", "minus", "float", "space", "absent"} {
		nobody(user)
	}
	set(strings.Repeat("x", 8<<20))
	nobody("someone")
	t.link(image, map[string]string{"etc/passwd": "/dev/zero"})
	nobody("someone")
	t.link(image, map[string]string{"etc/passwd": strings.Repeat("../", 40) + "etc/passwd"})
	nobody("daemon")
}
