package executor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/imagetest"
	"github.com/caissonrun/caisson/internal/testimage"
)

// A task's own credentials bring its image, stand nowhere on the disk, and serve
// no other task.
func TestPrivateRegistry(t *testing.T) {
	x, _ := ociHost(t)
	reg := imagetest.NewHTTPRegistry(t)
	img, err := testimage.Busybox(v1.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ref := reg.Push(t, "team/private:1", img)
	reg.Users(map[string]string{"ann": "password-of-ann"}, true)
	dir := t.TempDir()
	auths := filepath.Join(dir, "config.json")
	if err := os.WriteFile(auths, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if x.opts.Images, err = image.Open(&image.Options{
		Dir: filepath.Join(dir, "images"), Sources: image.Sources{HTTP: []string{reg.Host}, AuthFile: auths},
	}); err != nil {
		t.Fatal(err)
	}
	run := func(task caisson.Task, secret string) *caisson.Result {
		t.Helper()
		task.Program = caisson.Program{Image: ref, Cmd: []string{"echo", "hello"}}
		id, err := x.Submit(t.Context(), &task, &Submission{Trusted: true, BaseDir: "/", Secrets: map[string][]byte{"REGISTRY": []byte(secret)}})
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Attend(t.Context(), id, false); err != nil {
			t.Fatal(err)
		}
		result, err := x.Wait(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	as := func(user string) caisson.Task {
		return caisson.Task{Registry: &caisson.Registry{Username: user, Password: "REGISTRY"}, Secrets: map[string]caisson.Secret{"REGISTRY": {From: "env:X"}}}
	}
	refused := func(result *caisson.Result) {
		t.Helper()
		if result.Success || result.Error == nil || result.Error.Kind != caisson.ErrDenied || !strings.Contains(result.Error.Message, ref) {
			t.Errorf("result = %+v, error %+v, want denied", result, result.Error)
		}
	}
	refused(run(caisson.Task{}, ""))
	refused(run(as("ann"), "wrong"))
	if result := run(as("ann"), "password-of-ann"); !result.Success {
		t.Errorf("with credentials: %+v, error %+v", result, result.Error)
	}
	// The image is here now, and not for these.
	refused(run(caisson.Task{}, ""))
	refused(run(as("ann"), "wrong"))
	for _, root := range []string{dir, filepath.Dir(x.folder.SweepLock())} {
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if strings.Contains(string(data), "password-of-ann") {
				t.Errorf("the password is in %s", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}
