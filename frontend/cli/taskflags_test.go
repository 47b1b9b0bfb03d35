package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/caissonrun/caisson"
)

// parseTask puts flags over a task as run does.
func parseTask(t *testing.T, task *caisson.Task, args ...string) error {
	t.Helper()
	var f taskFlags
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	env := map[string]string{"LANG": "C", "EMPTY": ""}
	f.register(flags, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if err := flags.Parse(args); err != nil {
		return err
	}
	return f.apply(task)
}

func TestFlagsBecomeTask(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want caisson.Task
	}{
		{"Nothing", nil, caisson.Task{}},
		{
			"Values",
			[]string{"--name", "n", "--engine", "e", "--image", "i", "--hostname", "h", "--stop-signal", "INT", "-w", "/x", "-u", "1:2"},
			caisson.Task{
				Name: "n", Engine: "e", Hostname: "h", StopSignal: "INT",
				Program: caisson.Program{Image: "i", Workdir: "/x", User: "1:2"},
			},
		},
		{
			"Durations",
			[]string{"--timeout", "90", "--grace", "250ms", "--keep", "10m"},
			caisson.Task{
				Timeout: caisson.Duration(90 * time.Second), Grace: caisson.Duration(250 * time.Millisecond),
				Keep: caisson.Duration(10 * time.Minute),
			},
		},
		{
			"Env",
			[]string{"--env", "A=b=c", "-e", "LANG", "-e", "EMPTY", "-e", "B="},
			caisson.Task{Program: caisson.Program{Env: map[string]string{"A": "b=c", "LANG": "C", "EMPTY": "", "B": ""}}},
		},
		{
			"Limits",
			[]string{"--limit", "memory=64m", "--limit", "cpus=0.5,pids=10", "--limit", "disk=1g,log=1k,files=99"},
			caisson.Task{Limits: caisson.Limits{
				CPUs: 500, Memory: 64 * caisson.MiB, PIDs: 10, Disk: caisson.GiB, Log: caisson.KiB, Files: 99,
			}},
		},
		{
			"Inputs",
			[]string{
				"--input", "./alice.txt", "--input", "a=b=in/c", "--input", "https://x/y/z.csv?k=v#f=x=data/z.csv",
				"--input", "https://x/y/z.csv?k", "--input", "git+https://x/y.git=src", "--input", "/data/",
			},
			caisson.Task{Inputs: []caisson.Input{
				{From: "file:./alice.txt", To: "in/alice.txt"},
				{From: "file:a=b", To: "in/c"},
				{From: "https://x/y/z.csv?k=v#f=x", To: "data/z.csv"},
				{From: "https://x/y/z.csv?k", To: "in/z.csv"},
				{From: "git+https://x/y.git", To: "src"},
				{From: "file:/data/", To: "in/data"},
			}},
		},
		{
			"Outputs",
			[]string{"--output", "out/*.txt=./results/", "--output", "x=s3://b/k?a=b"},
			caisson.Task{Outputs: []caisson.Output{
				{Path: "out/*.txt", To: "file:./results/"},
				{Path: "x", To: "s3://b/k?a=b"},
			}},
		},
		{
			"Mounts",
			[]string{
				"--mount", "type=bind,source=/data,target=/data,readonly",
				"--mount", "type=tmpfs,dst=/fast,size=64m,mode=0700",
				"--mount", `"source=/a,b",type=bind,target=/x,ro=false`,
			},
			caisson.Task{Mounts: []caisson.Mount{
				{Type: "bind", Source: "/data", Target: "/data", ReadOnly: true},
				{Type: "tmpfs", Target: "/fast", Opts: map[string]string{"size": "64m", "mode": "0700"}},
				{Type: "bind", Source: "/a,b", Target: "/x"},
			}},
		},
		{
			"Secrets",
			[]string{"--secret", "TOKEN=env:CI_TOKEN", "--secret", "KEY=file:./key,as=file,once", "--secret", "SAME"},
			caisson.Task{Secrets: map[string]caisson.Secret{
				"TOKEN": {From: "env:CI_TOKEN"},
				"KEY":   {From: "file:./key", As: "file", Once: true},
				"SAME":  {From: "env:SAME"},
			}},
		},
		{
			"Brokers",
			[]string{"--secret", "TOKEN=env:CI_TOKEN,broker=api.example.com", "--secret", "KEY=,header=X-Key,broker=http://[::1]:8080,as=file"},
			caisson.Task{Secrets: map[string]caisson.Secret{
				"TOKEN": {From: "env:CI_TOKEN", Broker: &caisson.Broker{Host: "api.example.com"}},
				"KEY":   {From: "env:KEY", As: "file", Broker: &caisson.Broker{Host: "http://[::1]:8080", Header: "X-Key"}},
			}},
		},
		{
			"Proxies",
			[]string{"--proxy", "git=git.example.com", "--proxy", "store=s"},
			caisson.Task{Proxies: map[string]caisson.Proxy{"git": {Upstream: "git.example.com"}, "store": {Upstream: "s"}}},
		},
		{
			"NetworkAllowAgain",
			[]string{"--network", "allow=a:1,b:2", "--network", "allow=[::1]:3"},
			caisson.Task{Network: caisson.Network{Mode: "allow", Allow: []string{"a:1", "b:2", "[::1]:3"}}},
		},
		{"NetworkMode", []string{"--network", "host"}, caisson.Task{Network: caisson.Network{Mode: "host"}}},
		{
			"NetworkAllow",
			[]string{"--network", "allow=a:1,b:2"},
			caisson.Task{Network: caisson.Network{Mode: "allow", Allow: []string{"a:1", "b:2"}}},
		},
		{"Retry", []string{"--retry", "2"}, caisson.Task{Retry: caisson.Retry{Limit: 2}}},
		{
			"RetryDelay",
			[]string{"--retry", "3,delay=1s,factor=1.5"},
			caisson.Task{Retry: caisson.Retry{Limit: 3, Delay: caisson.Duration(time.Second), Factor: 1.5}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got caisson.Task
			if err := parseTask(t, &got, tt.args...); err != nil {
				t.Fatalf("flags %q: %v", tt.args, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("flags %q (-want +got):\n%s", tt.args, diff)
			}
		})
	}
}

func TestFlagsOverDocument(t *testing.T) {
	task := caisson.Task{
		Name:    "doc",
		Program: caisson.Program{Env: map[string]string{"A": "1", "B": "2"}, User: "5"},
		Inputs:  []caisson.Input{{From: "file:a", To: "a"}},
		Limits:  caisson.Limits{PIDs: 3, Files: 7},
		Retry:   caisson.Retry{Limit: 9, Factor: 3},
		Timeout: caisson.Duration(time.Hour),
	}
	err := parseTask(t, &task, "--env", "B=3", "--input", "b=b", "--limit", "pids=4", "--timeout", "0", "--retry", "1")
	if err != nil {
		t.Fatal(err)
	}
	want := caisson.Task{
		Name:    "doc",
		Program: caisson.Program{Env: map[string]string{"A": "1", "B": "3"}, User: "5"},
		Inputs:  []caisson.Input{{From: "file:a", To: "a"}, {From: "file:b", To: "b"}},
		Limits:  caisson.Limits{PIDs: 4, Files: 7},
		Retry:   caisson.Retry{Limit: 1, Factor: 3},
	}
	if diff := cmp.Diff(want, task); diff != "" {
		t.Errorf("task (-want +got):\n%s", diff)
	}
}

func TestWrongFlags(t *testing.T) {
	for _, tt := range []struct{ flag, value, want string }{
		{"--env", "=x", "no name"},
		{"--env", "NOPE", "you have no such variable, use NOPE=VALUE"},
		{"--limit", "memory", "use WHAT=AMOUNT"},
		{"--limit", "memory=lots", "unknown unit"},
		{"--limit", "ram=1g", "no such limit, use cpus"},
		{"--limit", "pids=0", "whole number of at least 1"},
		{"--limit", "memory=1g,cpus=-1", "out of range"},
		{"--input", "=x", "use FROM=TO"},
		{"--input", "x=", "use FROM=TO"},
		{"--output", "out", "use GLOB=TO"},
		{"--output", "out=", "use GLOB=TO"},
		{"--mount", "type=bind", "type and target are needed"},
		{"--mount", "type=bind,,target=/x", "an empty part"},
		{"--mount", `type="bind`, "quote"},
		{"--mount", "type=bind,target=/x,ro=perhaps", "true or false"},
		{"--secret", "=env:X", "no name"},
		{"--secret", "X=env:X,twice", "neither as=env"},
		{"--secret", "X=env:X,broker=", "neither as=env"},
		{"--secret", "X=env:X,header=Y", "header=Y needs broker=HOST"},
		{"--proxy", "git", "use NAME=UPSTREAM"},
		{"--proxy", "=git", "use NAME=UPSTREAM"},
		{"--network", "allow=", "use none, default"},
		{"--network", "allow", "use none, default"},
		{"--network", "", "use none, default"},
		{"--retry", "often", "number of tries"},
		{"--retry", "-1", "number of tries"},
		{"--retry", "1,delay=x", "duration"},
		{"--retry", "1,when=x", "neither delay="},
		{"--timeout", "soon", "use a number with a unit"},
		{"--timeout", "-1s", "negative"},
	} {
		t.Run(tt.flag+" "+tt.value, func(t *testing.T) {
			err := parseTask(t, &caisson.Task{}, tt.flag, tt.value)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s %q: error %v, want one with %q", tt.flag, tt.value, err, tt.want)
			}
		})
	}
}
