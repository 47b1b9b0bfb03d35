package config

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// Proxy is a section [proxy.NAME]: an HTTP service that tasks may name in their
// proxies.
type Proxy struct {
	URL          string            `json:"url,omitempty"`
	Command      []string          `json:"command,omitempty"`       // argv of a program, instead of URL
	Dir          string            `json:"dir,omitempty"`           // that Command starts in; empty: /
	Headers      map[string]string `json:"headers,omitempty"`       // set in every request
	HeaderFiles  map[string]string `json:"header_files,omitempty"`  // the same, with values that are in files
	Username     string            `json:"username,omitempty"`      // with PasswordFile, or alone
	PasswordFile string            `json:"password_file,omitempty"` //
	TokenFile    string            `json:"token_file,omitempty"`    // of a bearer token
	CAFile       string            `json:"ca_file,omitempty"`       // who is believed about the server; empty: the host's
	Methods      []string          `json:"methods,omitempty"`       // empty: all
	Paths        []string          `json:"paths,omitempty"`         // with all below them; empty: all
	Timeout      caisson.Duration  `json:"timeout,omitempty"`       // until an answer begins; 0: the default
}

// headerName is the name of a header that an operator may set.
func headerName() *fields.Type {
	const own = `(?i:host|connection|content-length|transfer-encoding|te|trailer|upgrade|expect|keep-alive|proxy-connection)`
	return &fields.Type{
		Form: fields.Text, Want: "a header's name that does not belong to the connection", MaxLength: 128,
		Pattern: fields.Match("[A-Za-z0-9!#$%&'*+.^_`|~-]+"), Deny: fields.Match(own),
	}
}

func proxySections() *fields.Type {
	value := &fields.Type{Form: fields.Text, Want: "a header's value", NotEmpty: true, MaxLength: 8192, Pattern: fields.Match(`[^\x00-\x08\x0A-\x1F\x7F]+`), Check: checkHeaderValue, Private: true}
	method := &fields.Type{Form: fields.Text, Want: "a method such as GET", Pattern: fields.Match(`[A-Z][A-Z-]{0,31}`)}
	pathPrefix := &fields.Type{Form: fields.Text, Want: "a path such as /team", MaxLength: 4096, Pattern: fields.Match(`/[^\x00-\x20\x7F?#]*`)}
	name := &fields.Type{Form: fields.Text, Want: "a name of letters, digits, and . _ -", Pattern: fields.Match(`[A-Za-z0-9][A-Za-z0-9_.-]{0,62}`)}
	command := argv()
	command.Least = 1
	proxy := section("settings of an upstream",
		fields.Field{
			Name: "url", Type: upstreamURL(), Default: "none", Also: []string{"upstream", "target"}, Examples: []any{"https://git.example.com/api"},
			Doc: "Where requests go: its path comes before that of a request. There is either this or `command`.",
		},
		fields.Field{
			Name: "command", Type: command, Default: "none", Also: []string{"program", "cmd"},
			Examples: []any{[]any{"/usr/local/bin/artifacts", "--read-only"}},
			Doc: "Instead of `url`, a program with its arguments that serves HTTP at a socket that it inherits, see below. A path with a slash in it " +
				"starts at this file's folder, and a name alone is looked for in `PATH`.",
		},
		fields.Field{Name: "dir", Type: folder(), Default: "`/`", Doc: "The folder that `command` is started in."},
		fields.Field{
			Name: "headers", Secret: true, Default: "none", Also: []string{"header"}, Examples: []any{map[string]any{"X-Team": "builds"}},
			Type: &fields.Type{Form: fields.Table, Key: headerName(), Elem: value, Want: "a value for each header"},
			Doc:  "Headers that every request gets, in place of the task's own. `config show` hides them.",
		},
		fields.Field{
			Name: "header_files", Default: "none", Examples: []any{map[string]any{"PRIVATE-TOKEN": "/etc/caisson/git.token"}},
			Type: &fields.Type{Form: fields.Table, Key: headerName(), Elem: folder(), Want: "a file for each header"},
			Doc:  "The same, with values that stand in files. Those are read for each request, so they can change.",
		},
		fields.Field{
			Name: "username", Default: "none", Also: []string{"user"}, Examples: []any{"ci"},
			Type: &fields.Type{Form: fields.Text, Want: "a name without a colon", NotEmpty: true, MaxLength: 256, Pattern: fields.Match(`[^:\x00-\x1F\x7F]+`)},
			Doc:  "Basic authentication, with the password in `password_file`.",
		},
		fields.Field{Name: "password_file", Type: folder(), Default: "none", Examples: []any{"/etc/caisson/git.password"}, Doc: "The file with the password of `username`."},
		fields.Field{
			Name: "token_file", Type: folder(), Default: "none", Also: []string{"token", "bearer_file"}, Examples: []any{"/etc/caisson/git.token"},
			Doc: "The file with a bearer token: `Authorization: Bearer TOKEN`.",
		},
		fields.Field{Name: "ca_file", Type: folder(), Default: "none", Doc: "A PEM file of the certificates that are believed about the server, instead of this host's."},
		fields.Field{
			Name: "methods", Type: list(method), Default: "all", Also: []string{"method"}, Examples: []any{[]any{"GET", "HEAD"}},
			Doc: "The methods that tasks may use.",
		},
		fields.Field{
			Name: "paths", Type: list(pathPrefix), Default: "all", Also: []string{"path"}, Examples: []any{[]any{"/team"}},
			Doc: "The paths that tasks' requests may have, each with all that is below it.",
		},
		fields.Field{
			Name: "timeout", Type: durationType(), Default: "5m", Examples: []any{"10s"},
			Doc: "How long the server may take until its answer begins. Then the task gets status 504.",
		},
	)
	return &fields.Type{Form: fields.Table, Key: name, Elem: proxy, Want: "a section for each upstream"}
}

// checkHeaderValue refuses what was meant to be looked up.
func checkHeaderValue(s string) error {
	if strings.HasPrefix(s, "file:") || strings.HasPrefix(s, "env:") {
		return errors.New("is taken as it is written; name the file of a value in header_files")
	}
	return nil
}

func upstreamURL() *fields.Type {
	return &fields.Type{
		Form: fields.Text, Want: "a URL such as https://git.example.com", NotEmpty: true, MaxLength: 4096, Private: true,
		Check: func(s string) error {
			u, err := url.Parse(s)
			switch {
			case err != nil, u.Host == "", u.Hostname() == "":
				return errors.New("is not a URL such as https://git.example.com")
			case u.Scheme != "http" && u.Scheme != "https":
				return errors.New("want a URL that begins with https:// or http://")
			case u.User != nil:
				return errors.New("has a user in it; use username and password_file")
			case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
				return errors.New("has a query or fragment in it, which requests have of their own")
			}
			return nil
		},
	}
}

// checkProxies reports credentials that contradict each other.
func (c *Config) checkProxies(report func(key, message string)) {
	for _, name := range slices.Sorted(maps.Keys(c.Proxies)) {
		p := c.Proxies[name]
		wrong := func(message string) { report("proxy."+name, message) }
		if (p.URL == "") == (len(p.Command) == 0) {
			wrong("want either url or command")
		}
		if p.Dir != "" && len(p.Command) == 0 {
			wrong("dir is of no use without command")
		}
		if p.CAFile != "" && len(p.Command) > 0 {
			wrong("ca_file is of no use with command, which is spoken to without TLS")
		}
		if p.PasswordFile != "" && p.Username == "" {
			wrong("password_file needs username beside it")
		}
		if p.Username != "" && p.PasswordFile == "" {
			wrong("username needs password_file beside it")
		}
		if p.Username != "" && p.TokenFile != "" {
			wrong("token_file can't stand beside username; both are the header Authorization")
		}
		seen := map[string]string{}
		if p.Username != "" {
			seen["authorization"] = "username"
		}
		if p.TokenFile != "" {
			seen["authorization"] = "token_file"
		}
		for _, list := range []struct {
			field string
			names map[string]string
		}{{"headers", p.Headers}, {"header_files", p.HeaderFiles}} {
			for _, header := range slices.Sorted(maps.Keys(list.names)) {
				key := strings.ToLower(header)
				if other := seen[key]; other != "" {
					wrong(fmt.Sprintf("%s: %q is set by %s too", list.field, header, other))
				}
				seen[key] = list.field
			}
		}
	}
}
