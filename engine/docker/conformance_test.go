//go:build linux

package docker_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/docker"
	"github.com/caissonrun/caisson/engine/enginetest"
)

// podmanVariable says that the daemon is Podman: see scripts/podman.
const podmanVariable = "CAISSON_TEST_PODMAN"

func TestConformance(t *testing.T) {
	opts := options(t)
	label := ""
	if os.Getenv(podmanVariable) != "" {
		label = "docker podman"
	}
	image := emptyImage(t)
	c := daemon(t)
	inside := enginetest.BuildInside(t)
	engineOf := func(installation string) func(testing.TB) engine.Engine {
		return func(t testing.TB) engine.Engine {
			mine := opts
			mine.Installation = installation
			return newEngine(t, mine)
		}
	}
	one := opts.Installation
	var networks []string
	for _, letter := range []string{"a", "b"} {
		networks = append(networks, makeNetwork(t, c, one+letter))
	}
	enginetest.Run(t, enginetest.Harness{
		Label: label,
		New:   engineOf(one), Other: engineOf(one + "x"),
		Restart:  func(t testing.TB, _ engine.Engine) engine.Engine { return engineOf(one)(t) },
		Inside:   inside,
		Networks: networks,
		Program: func(spec *engine.Spec, args []string) {
			spec.Image = image
			spec.Args = append([]string{"/caisson-inside"}, args...)
			spec.Mounts = append(spec.Mounts, engine.Mount{
				Type: engine.MountBind, Source: inside, Target: "/caisson-inside", ReadOnly: true,
			})
		},
		Lose:      func(t testing.TB, spec *engine.Spec) { lose(t, c, one, spec) },
		Folders:   []string{opts.Runtime},
		Resources: func(t testing.TB) []string { return resources(t, c, one) },
		Require: []string{
			"limits.cpus", "limits.memory", "limits.pids", "limits.log", "limits.files", "networks.none", "mounts.bind",
			"mounts.tmpfs", "user", "secrets", "exec", "terminal", "files", "stats", "pause",
			"gateway", "keep", "networks.allow", "networks.inside",
			"isolation:" + engine.FilteredSyscalls, "isolation:" + engine.NoCapabilities,
		},
	})
}

// makeNetwork makes a network of a test and returns its name.
func makeNetwork(t testing.TB, c *client.Client, name string) string {
	t.Helper()
	if _, err := c.NetworkCreate(t.Context(), name, client.NetworkCreateOptions{Driver: "bridge"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := c.NetworkRemove(context.Background(), name, client.NetworkRemoveOptions{}); err != nil {
			t.Errorf("remove the test's network: %v", err)
		}
	})
	return name
}

// killKeeper kills the keeper of a sandbox, and returns when it is gone.
func killKeeper(t testing.TB, spec *engine.Spec) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(spec.Dir, "keeper.json"))
	if err != nil {
		t.Fatal(err)
	}
	var record struct{ PID int }
	if err := json.Unmarshal(data, &record); err != nil || record.PID <= 1 {
		t.Fatalf("keeper.json is %s: %v", data, err)
	}
	if err := syscall.Kill(record.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(record.PID, &status, syscall.WNOHANG, nil); err != nil && syscall.Kill(record.PID, 0) != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the keeper %d does not die", record.PID)
}

// lose ends all that keeps a sandbox: the keeper and, because that alone would
// be replaced, the container.
func lose(t testing.TB, c *client.Client, installation string, spec *engine.Spec) {
	killKeeper(t, spec)
	_, err := c.ContainerRemove(context.Background(), "caisson-"+installation+"-"+spec.ID, client.ContainerRemoveOptions{Force: true})
	if err != nil {
		t.Error(err)
	}
}

// resources lists what is at the daemon.
func resources(t testing.TB, c *client.Client, installation string) []string {
	ctx := context.Background()
	var list []string
	containers, err := c.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: client.Filters{}.Add("label", "run.caisson.installation="+installation),
	})
	if err != nil {
		t.Error(err)
	}
	for _, one := range containers.Items {
		list = append(list, "container "+one.ID)
	}
	networks, err := c.NetworkList(ctx, client.NetworkListOptions{
		Filters: client.Filters{}.Add("label", "run.caisson.installation="+installation),
	})
	if err != nil {
		t.Error(err)
	}
	for _, one := range networks.Items {
		list = append(list, "network "+one.ID)
	}
	return list
}

var _ engine.Engine = (*docker.Engine)(nil)
