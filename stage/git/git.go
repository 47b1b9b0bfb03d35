//go:build unix

// Package git stages the files of a git repository at one commit, by the git
// program of this host (2.32 or newer):
//
//	git+https://HOST/PATH    git+http://HOST/PATH
//	git+ssh://USER@HOST/PATH    git+file:PATH
//
// What lands in the work folder are the commit's files, as a checkout would
// have them, without the .git folder. Files have mode 0644, or 0755 where they
// are executable, and the time of the commit. Symbolic links are kept as they
// are and lead to what is there in the sandbox. Files in Git LFS stay pointers.
// How much history is fetched shows only in what can be named: the beginning of
// a commit's hash needs all of it.
//
// A repository is hostile, and so may be the server. Nothing is ever checked
// out by git: it fetches into a bare repository in a private folder and writes
// an archive, whose entries are made in the work folder like those of any other
// archive. So no hook, filter or attribute of a repository can start a program,
// and the names in it matter to nobody but the task. Git is run with no
// configuration, environment or credential helper of the host's.
//
// Git reaches web servers through a proxy in this process, which connects to
// no private address, wherever a name or a redirection leads; a task with the
// caller's rights may name a server at one. A user and password in a URL of
// https, best as $NAME of a secret, are passed on to git in a file, never on a
// command line, and given to the URL's own host only.
//
// git+ssh acts with the keys and the ssh configuration of the user who runs
// Caisson, so only tasks with the caller's rights may use it, if the operator
// does not say otherwise.
package git

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os/exec"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/allow"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/internal/landing"
)

// Options configures a Stager.
type Options struct {
	// AnyPath allows git+file: URLs to every task, and to submodules.
	AnyPath bool
	// Allow lists the folders below which git+file: URLs may lead, after
	// symbolic links are resolved. Empty: none but for trusted tasks.
	Allow []string
	// AllowPrivate permits web servers at loopback, private and link-local
	// addresses to every task, and to submodules and redirections.
	AllowPrivate bool
	// AllowSSH permits git+ssh: URLs to every task, with the keys of the user
	// who runs Caisson and to any host, and to every submodule.
	AllowSSH bool
}

// A Stager serves git inputs.
type Stager struct {
	opts    Options
	allowed *allow.List
	// slack is how many bytes a fetch may need beyond what max_size implies.
	slack int64
}

var _ stage.Fetcher = (*Stager)(nil)

// New returns a Stager. Nil options mean the defaults. Errors: ErrInvalid for
// an allowed folder that is not absolute.
func New(opts *Options) (*Stager, error) {
	if opts == nil {
		opts = &Options{}
	}
	allowed, err := allow.New(opts.Allow, opts.AnyPath)
	if err != nil {
		return nil, err
	}
	return &Stager{opts: *opts, allowed: allowed, slack: fetchSlack}, nil
}

// Schemes implements stage.Stager.
func (s *Stager) Schemes() []string { return []string{"git+https", "git+http", "git+ssh", "git+file"} }

// CheckInput implements stage.Fetcher. A folder of this host that is not there
// is told unless the input is optional. ErrUnsupported says that git is not
// installed.
func (s *Stager) CheckInput(in *caisson.Input, env *stage.Env) error {
	_, err := s.check(in, env)
	if in.Optional && errors.Is(err, caisson.ErrNotFound) {
		err = nil
	}
	if err != nil {
		return err
	}
	_, err = program(in)
	return err
}

// check looks at all of an input that can be judged without fetching it, and
// returns where it comes from.
func (s *Stager) check(in *caisson.Input, env *stage.Env) (*source, error) {
	if err := landing.Check(in); err != nil {
		return nil, err
	}
	if err := checkFields(in); err != nil {
		return nil, landing.Invalid(in, err)
	}
	src, err := parse(in.From, env.BaseDir)
	if err != nil {
		return nil, landing.Invalid(in, err)
	}
	if src.web() {
		u := url.URL{User: src.user}
		if err := landing.Fill(in, &u, env); err != nil {
			return nil, err
		}
		src.user = u.User
	}
	if err := s.permit(src, env.Trusted); err != nil {
		return nil, about(in, err)
	}
	return src, nil
}

// checkFields says what is wrong with an input apart from its URL.
func checkFields(in *caisson.Input) error {
	switch {
	case in.Text != "":
		return errors.New("it has both from and text: use one")
	case in.SHA256 != "":
		return errors.New("sha256: a repository is a folder, only a single file has a digest; give the commit's hash as ref")
	case in.Mode != "":
		return errors.New("mode: a repository is a folder, whose files keep their modes")
	}
	want := options(in)
	if want.Depth < -1 {
		return fmt.Errorf("git: depth %d: use a number of commits, 0 for one, or -1 for all", want.Depth)
	}
	if !fs.ValidPath(want.Folder) || strings.IndexByte(want.Folder, 0) >= 0 {
		return fmt.Errorf("git: folder %q: use a clean path relative to the repository, without %q", want.Folder, "..")
	}
	return checkRef(want.Ref)
}

// options returns how the input is to be fetched, its folder clean and "." for
// all of the repository.
func options(in *caisson.Input) caisson.GitInput {
	var want caisson.GitInput
	if in.Git != nil {
		want = *in.Git
	}
	want.Folder = strings.TrimSuffix(want.Folder, "/")
	if want.Folder == "" {
		want.Folder = "."
	}
	return want
}

// checkRef refuses what is no name of git's, or would be more than a name
// somewhere on git's command line.
func checkRef(ref string) error {
	bad := strings.HasPrefix(ref, "-") || strings.HasPrefix(ref, "/") || strings.HasSuffix(ref, "/") ||
		strings.HasSuffix(ref, ".") || strings.Contains(ref, "..") || strings.Contains(ref, "@{") ||
		strings.Contains(ref, "//") || strings.ContainsAny(ref, "~^:?*[\\ ") || strings.ContainsFunc(ref, isControl)
	for element := range strings.SplitSeq(ref, "/") {
		bad = bad || strings.HasPrefix(element, ".") || strings.HasSuffix(element, ".lock")
	}
	if bad {
		return fmt.Errorf("git: ref %q: not a branch, tag or commit", ref)
	}
	return nil
}

// program returns the path of git.
func program(in *caisson.Input) (string, error) {
	path, err := exec.LookPath("git")
	if err != nil {
		return "", &caisson.Error{
			Op: caisson.OpStageIn, Item: landing.Item(in), Kind: caisson.ErrUnsupported,
			Err: errors.New("git is not installed on this host: install it (package git), version 2.32 or newer"),
		}
	}
	return path, nil
}

// about says of which input an error is that was sorted elsewhere.
func about(in *caisson.Input, err error) error {
	var sorted *caisson.Error
	if !errors.As(err, &sorted) {
		return err
	}
	return &caisson.Error{Op: caisson.OpStageIn, Item: landing.Item(in), Kind: sorted.Kind, Err: err}
}
