package attack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
	"github.com/caissonrun/caisson/engine/mem/inside"
)

// memPlace is where attacks that need no isolation can be tried anywhere.
func memPlace(t *testing.T) *Place {
	e := mem.New(&mem.Options{Programs: map[string]mem.Program{"inside": inside.Program}})
	t.Cleanup(func() { e.Close() })
	f, err := e.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := &Place{Engine: e, Features: &f, Dir: t.TempDir(), Owner: engine.Owner{UID: os.Getuid(), GID: os.Getgid()}}
	boxes := 0
	p.Spec = func(args ...string) *engine.Spec {
		boxes++
		if len(args) == 1 {
			args = strings.Fields(args[0])
		}
		dir := filepath.Join(p.Dir, fmt.Sprint(boxes))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return &engine.Spec{
			ID: fmt.Sprintf("attack-%d", boxes), Task: "attack", Attempt: 1, Step: "main",
			Dir: dir, Log: filepath.Join(p.Dir, fmt.Sprintf("%d.log", boxes)), Args: append([]string{"inside"}, args...),
		}
	}
	return p
}

// Each attack on allow-lists is held by one, and is seen to work where it lets
// more through.
func TestAllowAttacks(t *testing.T) {
	for name, loose := range map[string]string{
		"allow/address":   "9.9.9.9:80",
		"allow/sni":       "other.example:443",
		"allow/host":      "other.example:80",
		"allow/private":   "10.0.0.1:80",
		"allow/names":     "allowed.example:443",
		"allow/dns":       "*.other.example:443",
		"allow/protocols": "other.example:80",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := Find(name)
			if got := Try(t.Context(), &a, memPlace(t)); got.Status != Held {
				t.Errorf("it is %s, want %s: %.300q", got.Status, Held, got.Why)
			}
			place := memPlace(t)
			place.loose = []string{loose}
			if got := Try(t.Context(), &a, place); got.Status != NotHeld {
				t.Errorf("with %s allowed, too, it is %s, want %s: %.300q", loose, got.Status, NotHeld, got.Why)
			}
		})
	}
}
