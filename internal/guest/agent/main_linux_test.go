package agent

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFindPort(t *testing.T) {
	for name, test := range map[string]struct {
		cmdline string
		files   map[string]string
		want    string
	}{
		"none":  {"quiet", nil, "dev/no-port"},
		"named": {"quiet caisson.port=/dev/ttyS1", map[string]string{"dev/ttyS1": ""}, "dev/ttyS1"},
		"found": {"quiet", map[string]string{
			"sys/class/virtio-ports/vport1p1/name": "org.other\n", "sys/class/virtio-ports/vport1p2/name": "org.caisson.agent\n",
		}, "dev/vport1p2"},
		"found by its udev name": {"caisson.port=/dev/virtio-ports/org.mine", map[string]string{
			"sys/class/virtio-ports/vport1p1/name": "org.caisson.agent\n", "sys/class/virtio-ports/vport3p2/name": "org.mine\n",
		}, "dev/vport3p2"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			files := map[string]string{"proc/cmdline": test.cmdline}
			for file, text := range test.files {
				files[file] = text
			}
			for file, text := range files {
				path := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := findPort(root); got != filepath.Join(root, test.want) {
				t.Errorf("findPort = %s, want %s", got, test.want)
			}
		})
	}
}

// TestClean keeps what the host asks for below the root.
func TestClean(t *testing.T) {
	for name, want := range map[string]string{"": ".", "/": ".", "/a/b/": "a/b", "a": "a"} {
		if got := clean([]byte(name)); got != want {
			t.Errorf("clean(%q) = %q, want %q", name, got, want)
		}
	}
}
