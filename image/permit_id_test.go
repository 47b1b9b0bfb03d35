//go:build unix

package image_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
)

// A daemon runs an image by its id whatever registry it is from: no policy's
// prefix can fit that.
func TestPermitOfIDs(t *testing.T) {
	s, err := image.Open(&image.Options{
		Dir: filepath.Join(t.TempDir(), "store"),
		Sources: image.Sources{Policies: []image.Policy{
			{Prefix: "", Action: image.ActionReject}, {Prefix: "docker.io", Action: image.ActionAccept},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("0123456789abcdef", 4)
	for _, ref := range []string{id, "sha256:" + id, "docker://sha256:" + id, "docker://" + id} {
		if got, err := s.Permit(t.Context(), &image.Request{Ref: ref}); !errors.Is(err, caisson.ErrDenied) {
			t.Errorf("Permit(%q) = %q, %v, want ErrDenied", ref, got, err)
		}
	}
	if got, err := s.Permit(t.Context(), &image.Request{Ref: "busybox:stable"}); got != "busybox:stable" || err != nil {
		t.Errorf("Permit of an accepted name = %q, %v", got, err)
	}
}
