package enginetest

import (
	"errors"
	"fmt"
	"os"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func networkInside(t *T) {
	sb := t.create(t.spec("hold"))
	locator, ok := sb.(engine.NetworkLocator)
	if !ok {
		t.Fatalf("the sandbox is no NetworkLocator")
	}
	path, err := locator.NetworkNamespace(t.ctx)
	t.ok(err, "NetworkNamespace")
	before, err := os.Readlink(path)
	t.ok(err, "the namespace")
	if own, err := os.Readlink("/proc/self/ns/net"); err != nil || own == before {
		t.Errorf("the namespace %q is the host's, %v", before, err)
	}
	p, err := sb.Start(t.ctx)
	t.ok(err, "Start")
	if located, ok := p.(engine.Locator); ok {
		pid, err := located.PID(t.ctx)
		t.ok(err, "PID")
		after, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil || after != before {
			t.Errorf("the program is in %q, %v, the sandbox named %q", after, err, before)
		}
	}
	t.ok(sb.Destroy(t.ctx), "Destroy")
	if _, err := locator.NetworkNamespace(t.ctx); !errors.Is(err, caisson.ErrAborted) {
		t.Errorf("NetworkNamespace after Destroy = %v, want aborted", err)
	}
}

func networkNotInside(t *T) {
	locator, ok := t.create(t.spec("hold")).(engine.NetworkLocator)
	if !ok {
		return
	}
	if path, err := locator.NetworkNamespace(t.ctx); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("NetworkNamespace = %q, %v, want unsupported", path, err)
	}
}
