//go:build unix

package docker

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func TestDecideUser(t *testing.T) {
	lists := readAccounts(
		[]byte("root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\napp:x:70:71::/srv/app:\nbad:x:-1:5::/:\nno colons\nodd:x:80:81::relative:\n"),
		[]byte("root:x:0:\nstaff:x:50:app,other\nlog:x:51:app\nbad:x:99999999999:\n"))
	app := user{uid: 70, gid: 71, groups: []string{"50", "51"}, name: "app", home: "/srv/app"}
	for _, c := range []struct {
		text, group string
		root        bool
		want        user
	}{
		{"", "", false, nonRoot},
		{"root", "", false, nonRoot},
		{"root:root", "", false, nonRoot},
		{"root:staff", "", false, nonRoot},
		{"0", "", false, nonRoot},
		{"0:0", "", false, nonRoot},
		{"0:1000", "", false, nonRoot},
		{"00", "", false, nonRoot},
		{"000:5", "", false, nonRoot},
		{"toor", "", false, nonRoot},
		{"", "", true, user{name: "root", home: "/root"}},
		{"0:0", "", true, user{name: "root", home: "/root"}},
		{"app", "", false, app},
		{"app:staff", "", false, user{uid: 70, gid: 50, groups: app.groups, name: "app", home: "/srv/app"}},
		{"70", "", false, app},
		{"1234:5678", "", false, user{uid: 1234, gid: 5678, name: "1234", home: "/tmp"}},
		{"1234", "log", false, user{uid: 1234, gid: 1234, groups: []string{"51"}, name: "1234", home: "/tmp"}},
		{"odd", "", false, user{uid: 80, gid: 81, name: "odd", home: "/"}},
	} {
		got, err := decide(c.text, c.group, "user", &lists, c.root)
		if err != nil {
			t.Errorf("decide(%q, %q) = %v", c.text, c.group, err)
			continue
		}
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(user{})); diff != "" {
			t.Errorf("decide(%q, %q, root %v), want - got +:\n%s", c.text, c.group, c.root, diff)
		}
	}
	for _, text := range []string{":", "1:", ":1", "-1", "+1", "0x0", "1:2:3", "4294967295", "2147483648", "nobody-has-it", "bad", "a b", "1 "} {
		if got, err := decide(text, "", "user", &lists, false); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("decide(%q) = %+v, %v, want ErrInvalid", text, got, err)
		}
	}
}

func TestParseGPUs(t *testing.T) {
	gpu := [][]string{{"gpu"}}
	for text, want := range map[string]container.DeviceRequest{
		"all":               {Count: -1, Capabilities: gpu},
		"2":                 {Count: 2, Capabilities: gpu},
		"count=3":           {Count: 3, Capabilities: gpu},
		"device=0":          {DeviceIDs: []string{"0"}, Capabilities: gpu},
		"device=0,1":        {DeviceIDs: []string{"0", "1"}, Capabilities: gpu},
		`"device=0,1"`:      {DeviceIDs: []string{"0", "1"}, Capabilities: gpu},
		"driver=x,count=1":  {Driver: "x", Count: 1, Capabilities: gpu},
		"capabilities=util": {Count: 1, Capabilities: [][]string{{"util", "gpu"}}},
		"options=a=b":       {Count: 1, Capabilities: gpu, Options: map[string]string{"a": "b"}},
	} {
		got, err := parseGPUs(text)
		if err != nil || len(got) != 1 {
			t.Errorf("parseGPUs(%q) = %v, %v", text, got, err)
			continue
		}
		if diff := cmp.Diff(want, got[0]); diff != "" {
			t.Errorf("parseGPUs(%q), want - got +:\n%s", text, diff)
		}
	}
	for _, text := range []string{"none", "0", "-1", "count=x", "count=1,device=0", "foo=1"} {
		if got, err := parseGPUs(text); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("parseGPUs(%q) = %v, %v, want ErrInvalid", text, got, err)
		}
	}
	if got, err := parseGPUs(""); got != nil || err != nil {
		t.Errorf("parseGPUs of nothing = %v, %v", got, err)
	}
}

func TestKinds(t *testing.T) {
	for text, want := range map[string]caisson.Kind{
		"driver failed: Bind for 127.0.0.1:80 failed: port is already allocated": caisson.ErrExists,
		"write /x: no space left on device":                                      caisson.ErrExhausted,
		"manifest unknown":                                                       caisson.ErrNotFound,
		"pull access denied for x, repository does not exist":                    caisson.ErrDenied,
		"could not select device driver \"\" with capabilities: [[gpu]]":         caisson.ErrUnsupported,
		"dial tcp: lookup nowhere: no such host":                                 caisson.ErrUnavailable,
		"something that nobody has seen before":                                  caisson.ErrUnavailable,
	} {
		if got := kindOf(errors.New(text)); got != want {
			t.Errorf("kindOf(%q) = %v, want %v", text, got, want)
		}
	}
	err := sorted(t.Context(), "image", fmt.Errorf("two\nlines %s", strings.Repeat("x", 10000)))
	if text := err.Error(); strings.Contains(text, "\n") || len(text) > 2*maxText {
		t.Errorf("the daemon's text is passed on as %q", text)
	}
}

func TestParseImage(t *testing.T) {
	id := "sha256:" + strings.Repeat("a", 64)
	for text, want := range map[string]string{
		"busybox": "docker.io/library/busybox:latest", "docker://busybox:stable": "docker.io/library/busybox:stable",
		"r.example:5000/a/b": "r.example:5000/a/b:latest", "busybox@" + id: "docker.io/library/busybox@" + id, id: id,
	} {
		if got, err := parse(text); err != nil || got.name != want {
			t.Errorf("parse(%q) = %+v, %v, want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]caisson.Kind{
		"": caisson.ErrInvalid, "UPPER": caisson.ErrInvalid, "a b": caisson.ErrInvalid, "oci:/x": caisson.ErrUnsupported,
		"oci-archive:/x": caisson.ErrUnsupported, "https://x/y.tar": caisson.ErrUnsupported,
	} {
		if got, err := parse(text); !errors.Is(err, want) {
			t.Errorf("parse(%q) = %+v, %v, want %v", text, got, err, want)
		}
	}
}

func TestCredentialsOfConfig(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	helper := filepath.Join(dir, "docker-credential-mine")
	for file, text := range map[string]string{
		path: `{"auths": {"r.example": {"auth": "YTpi"}, "https://index.docker.io/v1/": {"username": "u", "password": "p"},
			"t.example": {"identitytoken": "tok"}, "bad.example": {"auth": "%"}},
			"credHelpers": {"h.example": "mine", "n.example": "mine", "x.example": "../x"}}`,
		helper: "#!/bin/sh\nread name\n[ $name = h.example ] && echo '{\"Username\": \"<token>\", \"Secret\": \"s\"}' && exit\necho credentials not found in native keychain\nexit 1\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for name, want := range map[string]*credentials{
		"r.example": {server: "r.example", username: "a", password: "b"},
		dockerHub:   {server: dockerHub, username: "u", password: "p"},
		"t.example": {server: "t.example", token: "tok"},
		"h.example": {server: "h.example", token: "s"},
		"n.example": nil, "other.example": nil,
	} {
		got, err := fromConfig(t.Context(), path, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(credentials{})); diff != "" {
			t.Errorf("%s, want - got +:\n%s", name, diff)
		}
	}
	for _, name := range []string{"bad.example", "x.example"} {
		if got, err := fromConfig(t.Context(), path, name); err == nil {
			t.Errorf("%s = %+v, want an error", name, got)
		}
	}
}

func TestRecordOfImages(t *testing.T) {
	r := newRecord(t.TempDir())
	id := "sha256:" + strings.Repeat("b", 64)
	if !r.mayUse(id, "") {
		t.Error("an image that the operator has can't be used")
	}
	mine := (&credentials{server: "r", username: "u", password: "p", private: true}).key()
	if err := r.pulled(id, mine); err != nil {
		t.Fatal(err)
	}
	other := (&credentials{server: "r", username: "u", password: "other", private: true}).key()
	for key, want := range map[string]bool{mine: true, other: false, "": false} {
		if got := r.mayUse(id, key); got != want {
			t.Errorf("mayUse(%.8q) = %v, want %v", key, got, want)
		}
	}
	if err := r.pulled(id, ""); err != nil || !newRecord(filepath.Dir(r.dir)).mayUse(id, other) {
		t.Errorf("an image that was pulled without credentials can't be used by all: %v", err)
	}
	if err := os.WriteFile(r.path(id), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r.mayUse(id, mine) {
		t.Error("an image with a damaged record can be used")
	}
}

// plan is what a spec becomes.
func planOf(t *testing.T, s *engine.Spec, who user, img *image, opts *Options) (*boxSpec, []string) {
	t.Helper()
	c, err := readOptions(s.Options)
	if err != nil {
		t.Fatal(err)
	}
	set := &setting{
		opts: opts, choice: c, image: img, who: who, found: &found{}, run: "/run/x", name: "name", mark: "mark",
	}
	k, err := set.keeper(s)
	if err != nil {
		t.Fatal(err)
	}
	b := new(boxSpec)
	if err := json.Unmarshal(k.Foreign.Data, b); err != nil {
		t.Fatal(err)
	}
	return b, k.Program.Args
}

func TestPlan(t *testing.T) {
	opts := &Options{Installation: "i", Network: "bridge", Init: "/init"}
	s := &engine.Spec{
		ID: "id", Dir: "/d", Log: "/l", Task: "t", Attempt: 2, Step: "main", Args: []string{"a"}, Work: "/w",
		WorkOwner: engine.Owner{UID: 1000, GID: 1000}, Secrets: []engine.Secret{
			{Name: "K", Value: []byte("hidden-value"), As: caisson.SecretFile},
			{Name: "E", Value: []byte("hidden-too"), As: caisson.SecretEnv},
		},
		Limits: caisson.Limits{CPUs: 1500, Memory: 64 << 20, PIDs: 10},
		Mounts: []engine.Mount{{Type: engine.MountBind, Source: "/s", Target: "/t", ReadOnly: true}, {Type: engine.MountTmpfs, Target: "/f", Size: 4096, Mode: 0o700}},
	}
	b, _ := planOf(t, s, nonRoot, &image{id: "sha256:x"}, opts)
	h := b.HostConfig
	if h.Privileged || !slices.Equal(h.CapDrop, []string{"ALL"}) || !slices.Equal(h.SecurityOpt, []string{"no-new-privileges"}) || b.Config.User != "1000:1000" {
		t.Errorf("the container is not closed: %+v, user %s", h, b.Config.User)
	}
	if h.NetworkMode != "none" || h.NanoCPUs != 1.5e9 || h.Memory != 64<<20 || h.MemorySwap != h.Memory || *h.PidsLimit != 10+ownThreads {
		t.Errorf("limits or network are %+v", h)
	}
	if b.Config.Labels[labelInstallation] != "i" || b.Config.Labels[labelTask] != "t" || b.Config.Labels[labelAttempt] != "2" || b.Config.Labels[labelSandbox] != "id" {
		t.Errorf("labels are %v", b.Config.Labels)
	}
	var mounts []string
	for _, m := range h.Mounts {
		mounts = append(mounts, fmt.Sprintf("%s %s %v", m.Source, m.Target, m.ReadOnly))
	}
	if want := []string{"/run/x/in /.caisson false", "/init /.caisson/init true", "/w /work false", "/s /t true"}; !slices.Equal(mounts, want) {
		t.Errorf("mounts are %q, want %q", mounts, want)
	}
	if !strings.Contains(h.Tmpfs["/f"], "size=4096") || b.Modes["/f"] != 0o700 || b.Modes["/tmp"] != 0o1777 {
		t.Errorf("tmpfs are %v, modes %v", h.Tmpfs, b.Modes)
	}
	// What the daemon is told has no secret.
	told, err := json.Marshal([]any{b.Config, b.HostConfig, b.Networking})
	if err != nil || bytes.Contains(told, []byte("hidden")) {
		t.Errorf("the daemon is told a secret: %s, %v", told, err)
	}
	root, _ := planOf(t, s, user{name: "root"}, &image{id: "sha256:x"}, opts)
	if root.HostConfig.CapDrop != nil || !slices.Equal(root.HostConfig.SecurityOpt, []string{"no-new-privileges"}) {
		t.Errorf("root of the container has %+v", root.HostConfig)
	}
}

func TestPlanOwnTmp(t *testing.T) {
	s := &engine.Spec{ID: "id", Args: []string{"a"}, Tmp: "/mine", Mounts: []engine.Mount{{Type: engine.MountBind, Source: "/s", Target: "/tmp"}}}
	b, _ := planOf(t, s, nonRoot, &image{id: "sha256:x"}, &Options{})
	var sources []string
	for _, m := range b.HostConfig.Mounts {
		if m.Target == "/tmp" {
			sources = append(sources, m.Source)
		}
	}
	if _, also := b.HostConfig.Tmpfs["/tmp"]; also || !slices.Equal(sources, []string{"/s"}) {
		t.Errorf("at /tmp are %q, tmpfs %v, want /s alone", sources, b.HostConfig.Tmpfs)
	}
}

func TestArguments(t *testing.T) {
	img := &image{id: "sha256:x", entrypoint: []string{"entry"}, cmd: []string{"cmd"}}
	for name, c := range map[string]struct {
		spec engine.Spec
		want []string
	}{
		"ImageAlone":     {engine.Spec{}, []string{"entry", "cmd"}},
		"OwnEntrypoint":  {engine.Spec{Args: []string{"a", "b"}}, []string{"a", "b"}},
		"BehindTheImage": {engine.Spec{Args: []string{"a"}, ImageEntrypoint: true}, []string{"entry", "a"}},
		"Script":         {engine.Spec{Run: "exit 3"}, []string{"/bin/sh", "-c", "exit 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.spec.ID = "id"
			if _, args := planOf(t, &c.spec, nonRoot, img, &Options{}); !slices.Equal(args, c.want) {
				t.Errorf("args = %q, want %q", args, c.want)
			}
		})
	}
	set := &setting{image: &image{}, who: nonRoot, opts: &Options{}, choice: new(choice), found: &found{}}
	if _, err := set.keeper(&engine.Spec{ID: "id"}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("an image without a command = %v, want ErrInvalid", err)
	}
}

// frames is output as a daemon sends it.
func frames(parts ...string) []byte {
	var out []byte
	for i, p := range parts {
		out = append(out, byte(1+i%2), 0, 0, 0)
		out = binary.BigEndian.AppendUint32(out, uint32(len(p)))
		out = append(out, p...)
	}
	return out
}

// A sink is where a copier writes to.
type sink struct {
	bytes.Buffer
	closed bool
}

// Close implements io.Closer.
func (s *sink) Close() error {
	s.closed = true
	return nil
}

// fakeDaemon answers as a daemon whose container has that log, which grows by a
// part with each request, and then ends.
func fakeDaemon(t *testing.T, logs ...[]byte) (*daemon, *atomic.Int32) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(asked.Load())
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			w.Header().Set("Api-Version", "1.41")
		case strings.HasSuffix(r.URL.Path, "/json"):
			fmt.Fprintf(w, `{"State": {"Running": %v}}`, n < len(logs)-1)
		case strings.HasSuffix(r.URL.Path, "/logs"):
			asked.Add(1)
			w.Write(logs[min(n, len(logs)-1)])
		default:
			http.NotFound(w, r)
		}
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	d, err := connect("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	return d, &asked
}

func TestCopier(t *testing.T) {
	const mark = "\x00end\x00\n"
	whole := frames("one\n", "err\n", "two", "", mark, mark)
	t.Run("Whole", func(t *testing.T) {
		for name, reader := range map[string]func(io.Reader) io.Reader{
			"AtOnce": func(r io.Reader) io.Reader { return r }, "ByteByByte": iotest.OneByteReader, "Half": iotest.HalfReader,
		} {
			var out, errs sink
			c := startCopier(nil, "c", []byte(mark), io.NopCloser(reader(bytes.NewReader(whole))), &out, &errs)
			<-c.done
			if out.String() != "one\ntwo" || errs.String() != "err\n" || c.err != nil || !out.closed || !errs.closed {
				t.Errorf("%s: %q, %q, %v", name, out.String(), errs.String(), c.err)
			}
		}
	})
	t.Run("SplitMarks", func(t *testing.T) {
		split := frames("a\x00en", mark, "d", "", "\x00en", "", "d\x00", "", "\n")
		var out, errs sink
		c := startCopier(nil, "c", []byte(mark), io.NopCloser(bytes.NewReader(split)), &out, &errs)
		<-c.done
		if out.String() != "a\x00end" || errs.String() != "" {
			t.Errorf("%q, %q", out.String(), errs.String())
		}
	})
	t.Run("Cut", func(t *testing.T) {
		// Wherever the connection breaks, the rest comes from the daemon's log.
		for at := range len(whole) {
			d, _ := fakeDaemon(t, whole[:at/2], whole)
			var out, errs sink
			c := startCopier(d, "c", []byte(mark), io.NopCloser(bytes.NewReader(whole[:at])), &out, &errs)
			<-c.done
			if out.String() != "one\ntwo" || errs.String() != "err\n" || c.err != nil {
				t.Fatalf("cut after %d bytes: %q, %q, %v", at, out.String(), errs.String(), c.err)
			}
			d.Close()
		}
	})
	t.Run("Killed", func(t *testing.T) {
		// A container that was killed makes no marks.
		rest := frames("one\n", "", "\x00en")
		d, _ := fakeDaemon(t, rest)
		var out, errs sink
		c := startCopier(d, "c", []byte(mark), io.NopCloser(bytes.NewReader(rest[:5])), &out, &errs)
		<-c.done
		if out.String() != "one\n\x00en" || c.err != nil {
			t.Errorf("%q, %v", out.String(), c.err)
		}
	})
	t.Run("Garbage", func(t *testing.T) {
		d, asked := fakeDaemon(t, []byte("HTTP/1.1 garbage, and more of it"), whole)
		var out, errs sink
		c := startCopier(d, "c", []byte(mark), io.NopCloser(strings.NewReader(strings.Repeat("\xff", 100))), &out, &errs)
		<-c.done
		if out.String() != "one\ntwo" || asked.Load() < 2 {
			t.Errorf("%q after %d requests", out.String(), asked.Load())
		}
	})
	t.Run("Stopped", func(t *testing.T) {
		r, w := io.Pipe()
		defer w.Close()
		var out, errs sink
		c := startCopier(nil, "c", []byte(mark), r, &out, &errs)
		c.stop()
		if !out.closed || !errors.Is(c.err, context.Canceled) {
			t.Errorf("after stop: closed %v, %v", out.closed, c.err)
		}
	})
}

func TestPlanGateway(t *testing.T) {
	g := &engine.Gateway{
		Sockets:  []engine.Socket{{Network: "udp", Address: "127.64.0.1:53"}, {Network: "tcp", Address: "[::]:443"}, {Network: "tcp", Address: "[::1]:80"}},
		Names:    map[string]string{"up": "127.64.0.2", "api.example.com": "127.65.0.1"},
		Resolver: "127.64.0.1", Everything: true,
	}
	s := &engine.Spec{
		ID: "id", Args: []string{"a"}, Gateway: g, Network: caisson.Network{Mode: caisson.NetworkAllow},
		DNS: &caisson.DNS{Servers: []string{"192.0.2.1"}, Search: []string{"example.com"}},
	}
	b, _ := planOf(t, s, nonRoot, &image{id: "sha256:x"}, &Options{})
	if b.HostConfig.NetworkMode != "none" || !slices.Equal(b.HostConfig.ExtraHosts, []string{"api.example.com:127.65.0.1", "up:127.64.0.2"}) {
		t.Errorf("the network is %s with hosts %q", b.HostConfig.NetworkMode, b.HostConfig.ExtraHosts)
	}
	if got := fmt.Sprint(b.HostConfig.DNS, b.HostConfig.DNSSearch); got != "[127.64.0.1] [example.com]" {
		t.Errorf("resolv.conf is of %s", got)
	}
	if got := fmt.Sprint(b.Gateway.Everything, b.Gateway.Sockets); got != "true [{true [127 64 0 1] 53} {false [] 443} {false [0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1] 80}]" {
		t.Errorf("the sockets are %s", got)
	}
	if len(b.HostConfig.CapAdd) > 0 || b.Neighbours != nil {
		t.Errorf("the container has rights %q, neighbours %+v", b.HostConfig.CapAdd, b.Neighbours)
	}
}

func TestMergeHosts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte(hostsBase), 0o644); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range []map[string]string{
		{"db": "10.0.0.200", "up": "127.64.0.1"}, {"cache": "10.0.0.3"}, nil, {"db": "10.0.0.4"},
	} {
		if err := addHosts(path, names); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if want := hostsBase + "127.64.0.1\tup\n10.0.0.3\tcache\n10.0.0.4\tdb\n"; string(text) != want || err != nil {
		t.Errorf("the file is %q, %v, want %q", text, err, want)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Error("it is another file than the containers have")
	}
	if err := addHosts(path+".none", nil); err == nil {
		t.Error("a file that is not there was made")
	}
}

// Without a way into containers there is no gateway, and it says why.
func TestFeaturesUngated(t *testing.T) {
	f := &found{ungated: errors.New("it can't be entered")}
	out := new(Options).features(f)
	if out.Gateway || out.Networks.Allow || out.Networks.Inside {
		t.Errorf("features are %+v, %+v", out, out.Networks)
	}
	for _, what := range []string{engine.WhatGateway, engine.WhatAllowList} {
		if !slices.ContainsFunc(out.Missing, func(m engine.Missing) bool { return m.What == what && m.Why == "it can't be entered" }) {
			t.Errorf("missing are %+v, without %s", out.Missing, what)
		}
	}
	spec := &engine.Spec{Gateway: new(engine.Gateway)}
	if err := out.Check(spec); caisson.KindOf(err) != caisson.ErrUnsupported || !strings.Contains(err.Error(), "it can't be entered") {
		t.Errorf("Check = %v, want ErrUnsupported with the reason", err)
	}
}
