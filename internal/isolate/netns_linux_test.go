package isolate_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

// namedNetwork makes a network namespace with a device of its own, and returns
// its path.
func namedNetwork(t *testing.T) string {
	t.Helper()
	needRoot(t)
	name := fmt.Sprintf("caisson-isolate-%d", os.Getpid())
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %q: %v: %s", args, err, out)
		}
	}
	ip("netns", "add", name)
	t.Cleanup(func() { ip("netns", "del", name) })
	ip("-n", name, "link", "set", "lo", "up")
	ip("-n", name, "link", "add", "inside0", "type", "veth", "peer", "name", "inside1")
	return "/run/netns/" + name
}

func TestNetNS(t *testing.T) {
	path := namedNetwork(t)
	before, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}

	spec := baseSpec(t)
	spec.NetNS, spec.Sys = path, true
	box := begin(t, spec)
	if r := reportOf(t, box); !slices.Contains(r.Interfaces, "inside0") {
		t.Errorf("network devices %v, want inside0 among them", r.Interfaces)
	}
	if out := spawn(t, box, "loopback").output(t); out != "connected\n" {
		t.Errorf("loopback: %s", out)
	}
	if out := spawn(t, box, "cat", "/sys/class/net/inside0/operstate").output(t); !strings.Contains(out, "down") {
		t.Errorf("/sys shows %q of the device, want that it is down", out)
	}

	// No thread that runs other goroutines was left in it. One of those that end
	// may be about to.
	other := 0
	if !poll(func() bool {
		other = threadsElsewhere(t, before)
		return other <= 1
	}) {
		t.Errorf("%d threads are in another network, want only the one that init belongs to", other)
	}
}

// threadsElsewhere counts this process's threads in other networks.
func threadsElsewhere(t *testing.T, network string) (n int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		// The first thread can't end: it rests for ever instead.
		if task.Name() == strconv.Itoa(os.Getpid()) {
			continue
		}
		if ns, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net"); err == nil && ns != network {
			n++
		}
	}
	return n
}

func TestNetNSRefused(t *testing.T) {
	needRoot(t)
	for name, test := range map[string]struct {
		change func(*isolate.Spec)
		kind   caisson.Kind
	}{
		"Gone":     {func(s *isolate.Spec) { s.NetNS = "/run/netns/no-such-caisson" }, caisson.ErrNotFound},
		"AndHosts": {func(s *isolate.Spec) { s.NetNS, s.HostNetwork = "/proc/self/ns/net", true }, caisson.ErrInvalid},
		"NoneSuch": {func(s *isolate.Spec) { s.NetNS = "/proc/self/ns/mnt" }, caisson.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			watch(t)
			spec := baseSpec(t)
			test.change(spec)
			box, err := isolate.Start(spec)
			if box != nil {
				box.Close()
			}
			if err == nil || test.kind != caisson.ErrUnknown && !errors.Is(err, test.kind) {
				t.Errorf("Start = %v, want kind %v", err, test.kind)
			}
		})
	}
}
