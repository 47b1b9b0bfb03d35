package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
)

func TestProxies(t *testing.T) {
	h := newHost(t)
	write(t, h.dir+"/caisson.toml", `
[proxy.git]
url = "https://git.example.com/api"
headers = {X-Team = "builds"}
header_files = {PRIVATE-TOKEN = "git.token"}
methods = ["GET"]
paths = ["/team/"]
timeout = "10s"

[proxy.store]
url = "http://127.0.0.1:9000"
username = "ci"
password_file = "/etc/store.password"

[proxy.program]
command = ["bin/serve", "data/x"]
dir = "."
token_file = "token"

[proxy.named]
command = ["serve"]
`)
	c := h.load(t)
	want := map[string]Proxy{
		"git": {
			URL: "https://git.example.com/api", Headers: map[string]string{"X-Team": "builds"},
			HeaderFiles: map[string]string{"PRIVATE-TOKEN": h.dir + "/git.token"},
			Methods:     []string{"GET"}, Paths: []string{"/team/"}, Timeout: caisson.Duration(10 * time.Second),
		},
		"store": {URL: "http://127.0.0.1:9000", Username: "ci", PasswordFile: "/etc/store.password"},
		// The program's path starts at the file, an argument may be anything.
		"program": {Command: []string{h.dir + "/bin/serve", "data/x"}, Dir: h.dir, TokenFile: h.dir + "/token"},
		"named":   {Command: []string{"serve"}},
	}
	if diff := cmp.Diff(want, c.Proxies); diff != "" {
		t.Errorf("proxies, want - got +:\n%s", diff)
	}
	shown := c.setting("proxy").Value
	if strings.Contains(shown, "builds") || !strings.Contains(shown, "git.example.com") {
		t.Errorf("Show = %s, want the URLs and no headers", shown)
	}
}

func TestProxiesWrong(t *testing.T) {
	h := newHost(t)
	write(t, h.dir+"/caisson.toml", `
[proxy.one]
url = "https://me:hunter2@git.example.com"
[proxy.two]
url = "ftp://git.example.com"
headers = {Host = "x"}
methods = ["get"]
[proxy.four]
url = "https://git.example.com"
headers = {X-Key = "file:/etc/key"}
[proxy.five]
url = "https://git.example.com"
paths = ["team"]
[proxy.three]
uri = "https://git.example.com"
`)
	_, err := Load(&h.opts)
	if err == nil {
		t.Fatal("Load = nil, want problems")
	}
	for _, want := range []string{
		":3:7: proxy.one.url: has a user in it; use username and password_file",
		":5:7: proxy.two.url: want a URL that begins with https:// or http://",
		"proxy.two.headers.Host: key:",
		"proxy.four.headers.X-Key: is taken as it is written",
		"proxy.two.methods[0]:",
		"proxy.five.paths[0]:",
		`proxy.three.uri: unknown key "uri"; did you mean "url"?`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Load = %v\nwant it to say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Load = %v, which tells the password", err)
	}
}

func TestProxiesTogether(t *testing.T) {
	h := newHost(t)
	write(t, h.dir+"/caisson.toml", `
[proxy.one]
url = "https://git.example.com"
username = "me"
token_file = "t"
headers = {authorization = "x"}
[proxy.both]
url = "https://git.example.com"
command = ["serve"]
[proxy.neither]
username = "me"
password_file = "p"
[proxy.idle]
url = "https://git.example.com"
dir = "/"
[proxy.tls]
command = ["serve"]
ca_file = "/c"
`)
	_, err := Load(&h.opts)
	if err == nil {
		t.Fatal("Load = nil, want problems")
	}
	for _, want := range []string{
		"caisson.toml:2: proxy.one: username needs password_file beside it", "proxy.one: token_file can't stand beside username", `proxy.one: headers: "authorization" is set by token_file too`,
		"caisson.toml:7: proxy.both: want either url or command", "caisson.toml:10: proxy.neither: want either url or command",
		"caisson.toml:13: proxy.idle: dir is of no use without command", "caisson.toml:16: proxy.tls: ca_file is of no use",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Load = %v\nwant it to say %q", err, want)
		}
	}
}

func TestProxyWithoutProgram(t *testing.T) {
	h := newHost(t)
	write(t, h.dir+"/caisson.toml", "\n[proxy.idle]\ncommand = []\n")
	_, err := Load(&h.opts)
	if err == nil || !strings.Contains(err.Error(), "caisson.toml:3:1: proxy.idle.command: is empty") {
		t.Errorf("Load = %v, want it to name the empty command", err)
	}
}
