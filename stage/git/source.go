//go:build unix

package git

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/netguard"
)

// A source is where a repository is, taken apart so that nothing in it is
// mistaken for something else by git, by ssh or by the far side.
type source struct {
	scheme string        // https, http, ssh or file
	host   string        // with the port, if it has one
	user   *url.Userinfo // of ssh: the user alone
	path   string        // decoded; of file absolute
	scp    bool          // written as HOST:PATH; path starts at the far side's home
}

// errNoURL says that a URL can't be read. What can't be read may hold a
// password anywhere, so it is not repeated.
var errNoURL = errors.New("it is no URL such as git+https://HOST/PATH")

// parse takes apart the URL of an input; relative paths of this host start at
// baseDir.
func parse(from, baseDir string) (*source, error) {
	scheme, rest, ok := strings.Cut(from, ":")
	scheme, isGit := strings.CutPrefix(strings.ToLower(scheme), "git+")
	if !ok || !isGit {
		return nil, errNoURL
	}
	if scheme == "file" {
		return parseFile(rest, baseDir)
	}
	return parseURL(scheme + ":" + rest)
}

// parseFile reads what follows "file:". The path is taken as it stands, without
// percent decoding.
func parseFile(name, baseDir string) (*source, error) {
	if after, hasHost := strings.CutPrefix(name, "//"); hasHost {
		if name = strings.TrimPrefix(after, "localhost"); !strings.HasPrefix(name, "/") {
			return nil, errors.New("a git+file: URL can't name another host; use git+file:PATH or git+file:///PATH")
		}
	}
	switch {
	case name == "":
		return nil, errors.New("the path is missing")
	case strings.IndexByte(name, 0) >= 0:
		return nil, errors.New("the path has a zero byte")
	case !filepath.IsAbs(name) && baseDir == "":
		return nil, fmt.Errorf("%q: a relative path, and the document has no folder: use an absolute one", name)
	case !filepath.IsAbs(name):
		name = filepath.Join(baseDir, name)
	}
	return &source{scheme: "file", path: name}, nil
}

// hostName is what a host may look like: nothing that a program could take for
// an option, or a shell for more than a word.
var hostName = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?$`)

// userName is what the user of a ssh URL may look like.
var userName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+-]*$`)

// parseURL reads a URL of http, https or ssh.
func parseURL(raw string) (*source, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" {
		return nil, errNoURL
	}
	s := &source{scheme: strings.ToLower(u.Scheme), host: u.Host, user: u.User, path: u.Path}
	_, hasPassword := u.User.Password()
	switch {
	case s.scheme != "https" && s.scheme != "http" && s.scheme != "ssh":
		return nil, fmt.Errorf("git+%.20q can't be fetched from: use git+https, git+http, git+ssh or git+file", s.scheme)
	case !hostName.MatchString(s.host):
		return nil, errors.New("the host is missing or is no host's name")
	case strings.Trim(s.path, "/") == "":
		return nil, errors.New("the path is missing")
	case strings.ContainsFunc(s.path, isControl):
		return nil, errors.New("the path has a control character")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, errors.New("the URL has a query or a fragment: give the branch, tag or commit as git: {ref: NAME}")
	case s.scheme == "http" && s.user != nil:
		return nil, errors.New("a user or password would be sent unprotected: use git+https")
	case s.scheme == "ssh" && hasPassword:
		return nil, errors.New("ssh takes no password from a URL: use a key")
	case s.scheme == "ssh" && s.user != nil && !userName.MatchString(s.user.Username()):
		return nil, errors.New("the user is no user's name")
	}
	return s, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// scpForm is how ssh URLs are often written: USER@HOST:PATH.
var scpForm = regexp.MustCompile(`^(?:([A-Za-z0-9_][A-Za-z0-9._+-]*)@)?([A-Za-z0-9_][A-Za-z0-9._-]*):([^-:][^\x00-\x1f\x7f]*)$`)

// join returns where a submodule is whose URL, as .gitmodules has it, may be
// relative to its parent's.
func (s *source) join(raw string) (*source, error) {
	if raw == "." || raw == ".." || strings.HasPrefix(raw, "./") || strings.HasPrefix(raw, "../") {
		child := *s
		if child.path = path.Join(s.path, raw); !s.contains(child.path) {
			return nil, fmt.Errorf("%q leads out of the host", raw)
		}
		return &child, nil
	}
	if after, ok := strings.CutPrefix(raw, "file://"); ok {
		return parseFile(after, "")
	}
	if strings.HasPrefix(raw, "/") {
		return parseFile(raw, "")
	}
	if strings.Contains(raw, "://") {
		return parseURL(raw)
	}
	if m := scpForm.FindStringSubmatch(raw); m != nil && !strings.Contains(raw, "::") {
		child := &source{scheme: "ssh", host: m[2], path: m[3], scp: true}
		if m[1] != "" {
			child.user = url.User(m[1])
		}
		return child, nil
	}
	return nil, errors.New("its URL is none that can be fetched")
}

// contains reports whether a joined path is still one of the source's.
func (s *source) contains(joined string) bool {
	if s.scp && !strings.HasPrefix(s.path, "/") {
		return joined != "." && joined != ".." && !strings.HasPrefix(joined, "../") && !strings.HasPrefix(joined, "-")
	}
	return joined != "/" && strings.HasPrefix(joined, "/") && !strings.ContainsFunc(joined, isControl)
}

// url returns the source as git is given it: without a password, and of web
// servers without a user.
func (s *source) url() string {
	if s.scp {
		name := s.host + ":" + s.path
		if s.user != nil {
			name = s.user.Username() + "@" + name
		}
		return name
	}
	u := url.URL{Scheme: s.scheme, Host: s.host, Path: s.path}
	if s.scheme == "ssh" {
		u.User = s.user
	}
	if s.scheme == "file" {
		return "file://" + u.EscapedPath()
	}
	return u.String()
}

// web says whether git fetches through a web server.
func (s *source) web() bool { return s.scheme == "http" || s.scheme == "https" }

// protocols lists what git may speak to reach the source, redirections
// included.
func (s *source) protocols() string {
	if s.scheme == "http" {
		return "http:https"
	}
	return s.scheme
}

// permit checks that the operator permits a source, and replaces a path of this
// host by the real one. Errors: ErrDenied; ErrNotFound; ErrInvalid.
func (s *Stager) permit(src *source, trusted bool) error {
	switch src.scheme {
	case "ssh":
		if !trusted && !s.opts.AllowSSH {
			return denied(errors.New("git+ssh uses the keys of the user who runs Caisson, which this task may not: use git+https"))
		}
	case "file":
		real, err := s.allowed.Existing(src.path, trusted)
		src.path = real
		return err
	default:
		if !trusted && !s.opts.AllowPrivate {
			return netguard.CheckHost(src.hostname())
		}
	}
	return nil
}

// permitSubmodule checks that a repository may name child as its submodule.
// What the caller may reach, a repository may not for that reason alone: it
// would bring its own task the files and the access of whoever fetched it.
func (s *Stager) permitSubmodule(parent, child *source) error {
	switch {
	case child.scheme == "file" && !s.opts.AnyPath:
		return denied(errors.New("submodules are not fetched from folders of this host"))
	case child.scheme == "ssh" && parent.scheme != "ssh" && !s.opts.AllowSSH:
		return denied(fmt.Errorf("submodules of a git+%s repository are not fetched by ssh", parent.scheme))
	}
	// Addresses are looked at when they are connected to.
	return s.permit(child, child.scheme != "file")
}

func denied(err error) error { return &caisson.Error{Kind: caisson.ErrDenied, Err: err} }

// hostname returns the host without its port and brackets.
func (s *source) hostname() string { return (&url.URL{Host: s.host}).Hostname() }

// hostPort returns where the source's web server listens.
func (s *source) hostPort() string {
	port := (&url.URL{Host: s.host}).Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[s.scheme]
	}
	return net.JoinHostPort(s.hostname(), port)
}
