package app_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/app"
	"github.com/caissonrun/caisson/executor"
)

// gelfScript is a component that logs by GELF over each transport from its very
// start to its very end, and then fails without a word.
const gelfScript = `
send() { printf '{"version":"1.1","host":"h","short_message":"%s","level":%d,"timestamp":1,"_n":1}' "$1" "$2"; }
case KIND in
tcp) (send first 6; printf '\0'; send careful 4; printf '\0'; send last 6) | busybox nc -w 3 $KBC_LOGGER_ADDR $KBC_LOGGER_PORT ;;
udp) for m in first careful last; do send $m 6 > /dev/udp/$KBC_LOGGER_ADDR/$KBC_LOGGER_PORT; done ;;
http) for m in first careful last; do
	busybox wget -q -O - --post-data "$(send $m 6)" http://$KBC_LOGGER_ADDR:$KBC_LOGGER_PORT/gelf; done ;;
esac
exit 1
`

// everything returns all streams of a run's log.
func (h *componentHost) everything(cfg *app.Config, engine string) (result *caisson.Result, log string) {
	h.t.Helper()
	a, err := app.New(cfg, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	defer a.Close()
	ctx := h.t.Context()
	task := &caisson.Task{Engine: engine, Component: &caisson.ComponentRun{Config: "."}}
	id, err := a.Executor.Submit(ctx, task, &executor.Submission{BaseDir: h.dir, Trusted: true})
	if err != nil {
		h.t.Fatal(err)
	}
	defer a.Executor.Remove(context.WithoutCancel(ctx), id, true)
	if err := a.Executor.Attend(ctx, id, false); err != nil {
		h.t.Fatal(err)
	}
	if result, err = a.Executor.Wait(ctx, id); err != nil {
		h.t.Fatal(err)
	}
	var out strings.Builder
	err = a.Executor.Logs(ctx, id, executor.LogOptions{}, func(r executor.LogRecord) error {
		out.Write(r.Data)
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return result, out.String()
}

// TestComponentGELF holds that a component's GELF messages are in the run's log,
// whatever its network is and however it sends.
func TestComponentGELF(t *testing.T) {
	tests := []struct{ engine, kind, network string }{
		{"native", "tcp", "none"},
		{"native", "udp", "none"},
		{"native", "http", "none"},
		{"oci", "tcp", "none"},
		{"oci", "tcp", "bridge"},
		{"docker", "tcp", "none"},
		{"docker", "http", "none"},
		{"docker", "tcp", "bridge"},
	}
	for _, test := range tests {
		t.Run(test.engine+"/"+test.kind+"/"+test.network, func(t *testing.T) {
			script := strings.ReplaceAll(gelfScript, "KIND", test.kind)
			h := newComponentHost(t, script)
			source := fmt.Sprintf(`{"type": "dockerhub", "uri": %q}`, "docker-archive:"+h.archive)
			if test.engine == "native" {
				source = fmt.Sprintf(`{"type": "command", "command": ["bash", "-c", %s]}`, quote(t, script))
			}
			data := fmt.Sprintf(`, "network": %q, "logging": {"type": "gelf", "gelf_server_type": %q}, "image_parameters": {}`, test.network, test.kind)
			h.write("registry/test.gelf.json", fmt.Sprintf(`{"id": "test.gelf", "type": "other", "data": {"definition": %s%s}}`, source, data))
			h.write("config.json", `{"component": "test.gelf", "id": "1", "configuration": {"parameters": {}}}`)
			cfg := load(t)
			if test.engine == "docker" {
				cfg.Engine.Docker.Host, cfg.Engine.Docker.Network = daemon(t, h.archive), "bridge"
			}
			result, log := h.everything(cfg, test.engine)
			if result.Status != 1 {
				t.Errorf("status %d, want 1", result.Status)
			}
			for _, want := range []string{"first\n", "careful\n", "last\n"} {
				if !strings.Contains(log, want) {
					t.Errorf("log %q, want %q", log, want)
				}
			}
			if said := string(result.Component); test.kind == "tcp" && !strings.Contains(said, `"message":"careful"`) {
				t.Errorf("result %s, want the last warning as the message", said)
			}
		})
	}
}
