package document_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/document"
)

// every has every field of a task, in the forms that are not the plainest.
const every = `
version: 1
name: everything
engine: oci
image: registry.example.com:5000/team/tool:1.2@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
cmd: [sleep, 10, true]
entrypoint: [/bin/env, -i]
env: {LANG: C, THREADS: 4, RATIO: 1.50, DEBUG: true, EMPTY: "", "odd name": x}
files: {conf/app.ini: "debug=1\n", /etc/app.ini: ""}
workdir: src
user: 1000:100
machine: {type: microvm, kernel: small, cmdline: quiet, firmware: uefi,
  sha256: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA}
group: 44
hostname: box-1.example
stop_signal: SIGINT
privileged: true
devices: ["/dev/kvm", "/dev/sdc:/dev/xvdc:r", {source: /dev/null, target: /dev/zero, permissions: rw}]
gpus: 2
registry: {username: me, password: TOKEN, pull: always}
inputs:
  - {from: "file:./a", to: a, sha256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,
     writable: true, optional: true, max_size: 1g, mode: "0755"}
  - {text: hello, to: b}
  - {from: "git+https://example.com/r.git", to: c, git: {ref: v1, depth: -1, folder: d, submodules: true}}
outputs:
  - {path: "out/**/*.{csv,txt}", to: "file:./results/", when: always, optional: true, max_size: 10m}
mounts:
  - {type: volume, source: named, target: /v, readonly: true}
  - {type: tmpfs, target: /t, opts: {size: 64m, mode: "1777"}}
network: {allow: ["example.com:443", "*.example.org:443", "192.0.2.1:5432", "[2001:db8::1]:80"]}
ports: [{port: 80, host_port: 8080, host_ip: "::1", protocol: udp}]
dns: {search: [example.com], options: ["ndots:2"]}
proxies: {artifacts: {upstream: store}}
displays: [{name: main, width: 1280, height: 800}, {name: vnc, description: the desktop, socket: run/vnc.sock}, {name: web, port: 5900}]
limits: {cpus: 0.5, memory: 256m, pids: 64, disk: 1.5g, log: 1048576, files: 1024}
timeout: 30
grace: 1m30s
keep: 10m
retry: {limit: 2, delay: 250ms, factor: 1.5}
pre: [{name: prepare, image: other, run: "true", env: {A: 1}, files: {f: x}, workdir: /tmp, user: nobody, timeout: 1m}]
post: [{cmd: [a]}]
finally: [{entrypoint: [a]}]
sidecars:
  - {run: serve, probe: {http: /health, port: 80, interval: 2s, timeout: 5s}}
  - {run: serve, probe: {cmd: [check]}}
success: {codes: [0, 3]}
secrets:
  TOKEN: {from: "env:CI_TOKEN", as: file, once: true}
  KEY: {from: "file:./key", broker: {host: api.example.com, header: X-Key}}
options: {n: [1, 0x1F, 1.50, null, {b: yes}], s: "5"}
`

func TestParseEveryField(t *testing.T) {
	got, err := document.Parse("every.yaml", []byte(every))
	if err != nil {
		t.Fatal(err)
	}
	sum := strings.Repeat("a", 64)
	want := &caisson.Task{
		Version: 1, Name: "everything", Engine: "oci",
		Program: caisson.Program{
			Image:      "registry.example.com:5000/team/tool:1.2@sha256:" + sum,
			Cmd:        []string{"sleep", "10", "true"},
			Entrypoint: []string{"/bin/env", "-i"},
			Env: map[string]string{
				"LANG": "C", "THREADS": "4", "RATIO": "1.50", "DEBUG": "true", "EMPTY": "", "odd name": "x",
			},
			Files:   map[string]string{"conf/app.ini": "debug=1\n", "/etc/app.ini": ""},
			Workdir: "src", User: "1000:100",
		},
		Machine:    &caisson.Machine{Type: "microvm", Kernel: "small", Cmdline: "quiet", Firmware: "uefi", SHA256: sum},
		Group:      "44",
		Hostname:   "box-1.example",
		StopSignal: "SIGINT",
		Privileged: true,
		Devices: []caisson.Device{
			{Source: "/dev/kvm"},
			{Source: "/dev/sdc", Target: "/dev/xvdc", Permissions: "r"},
			{Source: "/dev/null", Target: "/dev/zero", Permissions: "rw"},
		},
		GPUs:     "2",
		Registry: &caisson.Registry{Username: "me", Password: "TOKEN", Pull: "always"},
		Inputs: []caisson.Input{
			{From: "file:./a", To: "a", SHA256: sum, Writable: true, Optional: true, MaxSize: caisson.GiB, Mode: "0755"},
			{Text: "hello", To: "b"},
			{
				From: "git+https://example.com/r.git", To: "c",
				Git: &caisson.GitInput{Ref: "v1", Depth: -1, Folder: "d", Submodules: true},
			},
		},
		Outputs: []caisson.Output{{
			Path: "out/**/*.{csv,txt}", To: "file:./results/", When: caisson.WhenAlways, Optional: true, MaxSize: 10 * caisson.MiB,
		}},
		Mounts: []caisson.Mount{
			{Type: "volume", Source: "named", Target: "/v", ReadOnly: true},
			{Type: "tmpfs", Target: "/t", Opts: map[string]string{"size": "64m", "mode": "1777"}},
		},
		Network: caisson.Network{Mode: "allow", Allow: []string{"example.com:443", "*.example.org:443", "192.0.2.1:5432", "[2001:db8::1]:80"}},
		Ports:   []caisson.Port{{Port: 80, HostPort: 8080, HostIP: "::1", Protocol: "udp"}},
		DNS:     &caisson.DNS{Search: []string{"example.com"}, Options: []string{"ndots:2"}},
		Proxies: map[string]caisson.Proxy{"artifacts": {Upstream: "store"}},
		Displays: []caisson.Display{
			{Name: "main", Width: 1280, Height: 800}, {Name: "vnc", Description: "the desktop", Socket: "run/vnc.sock"}, {Name: "web", Port: 5900},
		},
		Limits: caisson.Limits{
			CPUs: 500, Memory: 256 * caisson.MiB, PIDs: 64, Disk: 1536 * caisson.MiB, Log: caisson.MiB, Files: 1024,
		},
		Timeout: caisson.Duration(30 * time.Second),
		Grace:   caisson.Duration(90 * time.Second),
		Keep:    caisson.Duration(10 * time.Minute),
		Retry:   caisson.Retry{Limit: 2, Delay: caisson.Duration(250 * time.Millisecond), Factor: 1.5},
		Pre: []caisson.Step{{
			Name: "prepare",
			Program: caisson.Program{
				Image: "other", Run: "true", Env: map[string]string{"A": "1"}, Files: map[string]string{"f": "x"},
				Workdir: "/tmp", User: "nobody",
			},
			Timeout: caisson.Duration(time.Minute),
		}},
		Post:    []caisson.Step{{Program: caisson.Program{Cmd: []string{"a"}}}},
		Finally: []caisson.Step{{Program: caisson.Program{Entrypoint: []string{"a"}}}},
		Sidecars: []caisson.Step{
			{
				Program: caisson.Program{Run: "serve"},
				Probe: &caisson.Probe{
					HTTP: "/health", Port: 80, Interval: caisson.Duration(2 * time.Second), Timeout: caisson.Duration(5 * time.Second),
				},
			},
			{Program: caisson.Program{Run: "serve"}, Probe: &caisson.Probe{Cmd: []string{"check"}}},
		},
		Success: caisson.Success{Codes: []int{0, 3}},
		Secrets: map[string]caisson.Secret{
			"TOKEN": {From: "env:CI_TOKEN", As: "file", Once: true},
			"KEY":   {From: "file:./key", Broker: &caisson.Broker{Host: "api.example.com", Header: "X-Key"}},
		},
		Options: []byte(`{"n":[1,31,1.50,null,{"b":"yes"}],"s":"5"}`),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse(every), want - got +:\n%s", diff)
	}
}

// TestParseForms has documents that are right in ways that TestParseEveryField
// does not show.
func TestParseForms(t *testing.T) {
	tests := map[string]struct {
		doc  string
		want caisson.Task
	}{
		"Run": {`run: echo`, caisson.Task{Program: caisson.Program{Run: "echo"}}},
		"RunWithEntrypoint": {
			"entrypoint: [python3, -c]\nrun: print(1)",
			caisson.Task{Program: caisson.Program{Run: "print(1)", Entrypoint: []string{"python3", "-c"}}},
		},
		"ImageOnly":    {`image: busybox`, caisson.Task{Program: caisson.Program{Image: "busybox"}}},
		"ImageScheme":  {`image: docker://busybox`, caisson.Task{Program: caisson.Program{Image: "docker://busybox"}}},
		"ImageLayout":  {`image: oci:./dir:1.0`, caisson.Task{Program: caisson.Program{Image: "oci:./dir:1.0"}}},
		"ImageArchive": {`image: docker-archive:/srv/Images/b.tar`, caisson.Task{Program: caisson.Program{Image: "docker-archive:/srv/Images/b.tar"}}},
		"ImageWeb":     {`image: "https://a.example/b.tar#sha256=0a"`, caisson.Task{Program: caisson.Program{Image: "https://a.example/b.tar#sha256=0a"}}},
		// The engine knows what to say of these.
		"ImageACI": {`image: coreos.com/etcd,version=v3.2`, caisson.Task{Program: caisson.Program{Image: "coreos.com/etcd,version=v3.2"}}},
		"Module": {
			"module: ./a.wasm\ncmd: [x]",
			caisson.Task{Program: caisson.Program{Cmd: []string{"x"}}, Module: "./a.wasm"},
		},
		"MachineAsText": {`machine: disk.qcow2`, caisson.Task{Machine: &caisson.Machine{Image: "disk.qcow2"}}},
		"DNSServers": {
			"run: x\ndns: {servers: [192.0.2.53]}",
			caisson.Task{Program: caisson.Program{Run: "x"}, DNS: &caisson.DNS{Servers: []string{"192.0.2.53"}}},
		},
		"BrokerHosts": {
			"run: x\nsecrets: {A: {from: 'env:A', broker: {host: 'https://a.example:8443'}}, B: {from: 'env:B', as: file, broker: {host: 'http://[::1]:80'}}}",
			caisson.Task{Program: caisson.Program{Run: "x"}, Secrets: map[string]caisson.Secret{
				"A": {From: "env:A", Broker: &caisson.Broker{Host: "a.example:8443"}},
				"B": {From: "env:B", As: "file", Broker: &caisson.Broker{Host: "http://[::1]:80"}},
			}},
		},
		"OptionsAlone": {`options: {}`, caisson.Task{Options: []byte(`{}`)}},
		"NetworkNamed": {"run: x\nnetwork: lan", caisson.Task{Program: caisson.Program{Run: "x"}, Network: caisson.Network{Mode: "lan"}}},
		"NetworkNothingAllowed": {
			"run: x\nnetwork: {allow: []}",
			caisson.Task{Program: caisson.Program{Run: "x"}, Network: caisson.Network{Mode: "allow"}},
		},
		"NetworkList": {
			"run: x\nnetwork: [{name: lan, aliases: [a], args: {ip: 192.0.2.7}}]",
			caisson.Task{Program: caisson.Program{Run: "x"}, Network: caisson.Network{Attach: []caisson.NetworkAttach{
				{Name: "lan", Aliases: []string{"a"}, Args: map[string]string{"ip": "192.0.2.7"}},
			}}},
		},
		"CleanPaths": {
			"run: x\ninputs: [{from: 'file:a', to: ./a//b/}, {from: 'file:a', to: ./}]\noutputs: [{path: ./a, to: 'file:x'}]",
			caisson.Task{
				Program: caisson.Program{Run: "x"},
				Inputs:  []caisson.Input{{From: "file:a", To: "a/b/"}, {From: "file:a", To: "."}},
				Outputs: []caisson.Output{{Path: "a", To: "file:x"}},
			},
		},
		"EmptyText": {
			"run: x\ninputs: [{text: '', to: empty}]",
			caisson.Task{Program: caisson.Program{Run: "x"}, Inputs: []caisson.Input{{To: "empty"}}},
		},
		"JSON": {
			"\ufeff" + `{"run": "x\u00e9\ud83d\ude00\/",` + "\t" + `"limits": {"pids": 5.0, "cpus": 2}}`,
			caisson.Task{Program: caisson.Program{Run: "xé😀/"}, Limits: caisson.Limits{PIDs: 5, CPUs: 2000}},
		},
		"FlowYAML": {`{run: x}`, caisson.Task{Program: caisson.Program{Run: "x"}}},
		"Aliases": {
			"run: x\nenv: &e {A: 1}\npre: [{run: y, env: *e}, {run: z, env: {<<: *e, B: 2}}, {run: w, env: {A: 3, <<: [*e]}}]",
			caisson.Task{
				Program: caisson.Program{Run: "x", Env: map[string]string{"A": "1"}},
				Pre: []caisson.Step{
					{Program: caisson.Program{Run: "y", Env: map[string]string{"A": "1"}}},
					{Program: caisson.Program{Run: "z", Env: map[string]string{"A": "1", "B": "2"}}},
					{Program: caisson.Program{Run: "w", Env: map[string]string{"A": "3"}}},
				},
			},
		},
		"ScalarsAsWritten": {
			"run: x\nenv: {A: 0755, B: 1e3, C: 2020-01-01, D: True, E: yes, F: <<, 7: .inf, G: !!str 5, H: 9007199254740993}",
			caisson.Task{Program: caisson.Program{Run: "x", Env: map[string]string{
				"A": "0755", "B": "1e3", "C": "2020-01-01", "D": "true", "E": "yes", "F": "<<", "7": ".inf", "G": "5", "H": "9007199254740993",
			}}},
		},
		"StepsBesideEachOther": {
			"run: x\noutputs: [{path: log, to: 'file:./a'}, {path: err, to: 'file:./a', when: failure}]",
			caisson.Task{Program: caisson.Program{Run: "x"}, Outputs: []caisson.Output{
				{Path: "log", To: "file:./a"}, {Path: "err", To: "file:./a", When: "failure"},
			}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := document.Parse("t.yaml", []byte(test.doc))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&test.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("Parse(%q), want - got +:\n%s", test.doc, diff)
			}
		})
	}
}

func TestProblemsAreErrInvalid(t *testing.T) {
	_, err := document.Parse("t.yaml", []byte("run: 5"))
	var problems document.Problems
	if !errors.As(err, &problems) || len(problems) != 1 {
		t.Fatalf("Parse = %v, want one problem", err)
	}
	want := document.Problem{File: "t.yaml", Line: 1, Column: 6, Path: "run", Message: `is a number, not text; write it in quotes: "5"`}
	if problems[0] != want {
		t.Errorf("problem = %+v, want %+v", problems[0], want)
	}
	if !errors.Is(err, caisson.ErrInvalid) || errors.Is(err, caisson.ErrDenied) {
		t.Errorf("Parse = %v, want the kind ErrInvalid", err)
	}
	if kind := caisson.KindOf(err); kind != caisson.ErrInvalid {
		t.Errorf("KindOf = %v, want %v", kind, caisson.ErrInvalid)
	}
}

func TestCheck(t *testing.T) {
	t.Run("OK", func(t *testing.T) {
		task := &caisson.Task{Program: caisson.Program{Cmd: []string{"true"}}, Inputs: []caisson.Input{{To: "empty"}}}
		if err := document.Check(task); err != nil {
			t.Error(err)
		}
	})
	t.Run("ErrInvalid", func(t *testing.T) {
		task := &caisson.Task{Inputs: []caisson.Input{{From: "file:x", To: "../x"}}}
		err := document.Check(task)
		want := "nothing to run; give a script as \"run\", a program as \"cmd\", or an \"image\", \"module\", \"machine\", \"component\" or \"options\"\n" +
			`inputs[0].to: "../x" leads out of the work folder`
		if err == nil || err.Error() != want {
			t.Errorf("Check = %v, want %s", err, want)
		}
	})
	t.Run("ErrTwoNetworks", func(t *testing.T) {
		task := &caisson.Task{Program: caisson.Program{Run: "x"}}
		task.Network = caisson.Network{Mode: caisson.NetworkHost, Allow: []string{"a:1"}}
		if err := document.Check(task); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Check = %v, want ErrInvalid", err)
		}
	})
}

// roundTrip checks that a task survives being written and read again.
func roundTrip(t *testing.T, task *caisson.Task) {
	t.Helper()
	data, err := document.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	again, err := document.Parse("again.json", data)
	if err != nil {
		t.Fatalf("Parse(Marshal(task)): %v\n%s", err, data)
	}
	if diff := cmp.Diff(task, again, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("Parse(Marshal(task)), task - again +:\n%s", diff)
	}
	if more, _ := document.Marshal(again); string(more) != string(data) {
		t.Errorf("Marshal is not stable:\n%s\n%s", data, more)
	}
}

func TestMarshal(t *testing.T) {
	task, err := document.Parse("every.yaml", []byte(every))
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, task)
}

// examples returns the documents that come with Caisson.
func examples(t testing.TB) map[string][]byte {
	t.Helper()
	files, _ := filepath.Glob("../examples/*.yaml")
	if len(files) == 0 {
		t.Fatal("no examples found")
	}
	out := map[string][]byte{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(f)] = data
	}
	return out
}

func TestExamples(t *testing.T) {
	for name, data := range examples(t) {
		t.Run(name, func(t *testing.T) {
			task, err := document.Parse(name, data)
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, task)
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(every))
	for _, data := range examples(f) {
		f.Add(data)
	}
	for _, test := range wrong {
		f.Add([]byte(test.doc))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		task, err := document.Parse("fuzz", data)
		if err != nil {
			if !errors.Is(err, caisson.ErrInvalid) {
				t.Fatalf("Parse = %v, want the kind ErrInvalid", err)
			}
			_ = err.Error()
			return
		}
		roundTrip(t, task)
	})
}

func TestPasswordBySecret(t *testing.T) {
	task, err := document.Parse("task.yaml", []byte("run: x\ninputs: [{from: 'https://me:$TOKEN@example.com/', to: a}]\nsecrets: {TOKEN: {from: 'env:T'}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := task.Inputs[0].From; got != "https://me:$TOKEN@example.com/" {
		t.Errorf("inputs[0].from = %q", got)
	}
}
