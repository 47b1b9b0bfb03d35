package native

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/config"
	"github.com/caissonrun/caisson/keeper"
)

func TestNewErrors(t *testing.T) {
	good := func() *Options { return &Options{Runtime: "/run/caisson", Keeper: keeper.Command{"keeper"}} }
	if _, err := New(good()); err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(*Options){
		"shell":        func(o *Options) { o.Shell = []string{""} },
		"uid":          func(o *Options) { o.UID = -1 },
		"gid":          func(o *Options) { o.GID = 1 << 31 },
		"id_base":      func(o *Options) { o.IDBase = 1000 },
		"id_count":     func(o *Options) { o.IDCount = 2 },
		"beyond":       func(o *Options) { o.IDBase = 4294900000; o.IDCount = 100000 },
		"isolation":    func(o *Options) { o.Isolation = "some" },
		"paths":        func(o *Options) { o.Paths = []string{"/home/me"} },
		"installation": func(o *Options) { o.Installation = "a/b" },
		"runtime":      func(o *Options) { o.Runtime = "run" },
		"keeper":       func(o *Options) { o.Keeper = nil },
	}
	for word, change := range tests {
		o := good()
		change(o)
		if _, err := New(o); !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), word) {
			t.Errorf("New = %v, want ErrInvalid that says %q", err, word)
		}
	}
}

func TestIsolation(t *testing.T) {
	tests := []struct {
		operator string
		allow    bool
		options  string
		want     string
		kind     caisson.Kind
	}{
		{Full, false, ``, Full, 0},
		{Full, false, `{}`, Full, 0},
		{Full, false, `{"isolation":"full"}`, Full, 0},
		{Full, false, `{"isolation":"none"}`, "", caisson.ErrDenied},
		{Full, true, `{"isolation":"none"}`, None, 0},
		{None, false, ``, None, 0},
		{None, false, `{"isolation":"none"}`, None, 0},
		{None, false, `{"isolation":"full"}`, Full, 0},
		{Full, true, `{"isolation":"some"}`, "", caisson.ErrInvalid},
		{Full, true, `{"isolation":1}`, "", caisson.ErrInvalid},
		{Full, true, `{"other":1}`, "", caisson.ErrInvalid},
		{Full, true, `[]`, "", caisson.ErrInvalid},
		{Full, true, `{} {}`, "", caisson.ErrInvalid},
		{Full, true, `{`, "", caisson.ErrInvalid},
	}
	for _, test := range tests {
		o := &Options{Isolation: test.operator, AllowNone: test.allow}
		got, err := o.isolation(json.RawMessage(test.options))
		if got != test.want || test.kind == 0 && err != nil || test.kind != 0 && !errors.Is(err, test.kind) {
			t.Errorf("%s, allow_none %v, %s: %q, %v, want %q, %v", test.operator, test.allow, test.options, got, err, test.want, test.kind)
		}
	}
}

// TestSchemas holds that the schemas are JSON, and that the configuration's
// has the keys that the configuration has.
func TestSchemas(t *testing.T) {
	var options, section struct {
		Properties map[string]any `json:"properties"`
	}
	if err := errors.Join(json.Unmarshal(optionsSchema, &options), json.Unmarshal(configSchema, &section)); err != nil {
		t.Fatal(err)
	}
	if len(options.Properties) != reflect.TypeFor[choice]().NumField() {
		t.Errorf("options' schema has %v", options.Properties)
	}
	keys := reflect.TypeFor[config.Native]()
	for i := range keys.NumField() {
		key, _, _ := strings.Cut(keys.Field(i).Tag.Get("json"), ",")
		if _, known := section.Properties[key]; !known {
			t.Errorf("the schema lacks %q", key)
		}
		delete(section.Properties, key)
	}
	if len(section.Properties) > 0 {
		t.Errorf("the schema has more keys than the configuration: %v", section.Properties)
	}
}

func TestPermit(t *testing.T) {
	tests := []struct {
		name      string
		opts      Options
		isolation string
		spec      func(*engine.Spec)
		kind      caisson.Kind
		say       string
	}{
		{"OK", Options{}, Full, nil, 0, ""},
		{"HostNetwork", Options{}, Full, func(s *engine.Spec) { s.Network.Mode = caisson.NetworkHost }, caisson.ErrDenied, "allow_host_network"},
		{"HostNetworkAllowed", Options{AllowHostNetwork: true}, Full, func(s *engine.Spec) { s.Network.Mode = caisson.NetworkHost }, 0, ""},
		{"DefaultNetwork", Options{}, Full, func(s *engine.Spec) { s.Network.Mode = caisson.NetworkDefault }, caisson.ErrUnsupported, "network: default"},
		{"Disk", Options{}, Full, func(s *engine.Spec) { s.Limits.Disk = 1 }, caisson.ErrUnsupported, "limits.disk"},
		{"DiskAlone", Options{}, Full, func(s *engine.Spec) { s.Limits.Disk, s.Work, s.Tmp = 1, "", "" }, 0, ""},
		{"DiskLimited", Options{}, Full, func(s *engine.Spec) { s.Limits.Disk, s.WorkLimited = 1, true }, 0, ""},
		{"StateShown", Options{Paths: []string{"/opt"}}, Full, func(s *engine.Spec) { s.Dir = "/opt/state/x" }, caisson.ErrInvalid, "/opt"},
		{"NoneMounts", Options{}, None, func(s *engine.Spec) {
			s.Mounts = []engine.Mount{{Type: engine.MountTmpfs, Target: "/x"}}
			s.Hostname, s.Network.Mode = "h", caisson.NetworkNone
			s.Limits.Disk, s.WorkLimited = 1, true
		}, caisson.ErrUnsupported, "limits.disk"},
		{"NoneGateway", Options{}, None, func(s *engine.Spec) { s.Gateway = &engine.Gateway{} }, caisson.ErrUnsupported, "gateway (a task with isolation none has none; use isolation: full)"},
		{"Gateway", Options{}, Full, func(s *engine.Spec) { s.Gateway = &engine.Gateway{} }, 0, ""},
		{"Allow", Options{}, Full, func(s *engine.Spec) { s.Network.Mode = caisson.NetworkAllow }, 0, ""},
		{"NoneHostNetwork", Options{}, None, func(s *engine.Spec) { s.Network.Mode = caisson.NetworkHost }, 0, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			set := testSetting(true, test.opts, nil)
			f := &found{host: set.host, works: kept.Works{Terminal: true, Stats: true, Pause: true, Gateway: true}}
			f.support.Disk.Method = "loop"
			features := set.opts.features(f, test.isolation)
			err := permit(set.opts, f, &features, testSpec(test.spec))
			if test.kind == 0 && err != nil || test.kind != 0 && !errors.Is(err, test.kind) {
				t.Fatalf("permit = %v, want %v", err, test.kind)
			}
			if err != nil && !strings.Contains(err.Error(), test.say) {
				t.Errorf("permit = %v, want it to say %q", err, test.say)
			}
		})
	}
}

// TestUngated has the reason be told why nobody can serve a sandbox.
func TestUngated(t *testing.T) {
	set := testSetting(true, Options{}, nil)
	f := &found{host: set.host, ungated: errors.New("no routes")}
	features := set.opts.features(f, Full)
	if features.Gateway || features.Networks.Allow {
		t.Error("a gateway is promised that did not work")
	}
	for field, ask := range map[string]func(*engine.Spec){
		"network.allow (": func(s *engine.Spec) { s.Network.Mode = caisson.NetworkAllow },
		"gateway (":       func(s *engine.Spec) { s.Gateway = &engine.Gateway{} },
	} {
		err := features.Check(testSpec(ask))
		if err == nil || !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), "no routes") {
			t.Errorf("Check = %v, want the reason for %s", err, field)
		}
	}
}
