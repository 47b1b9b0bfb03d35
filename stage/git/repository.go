//go:build unix

package git

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
)

// A repo is a bare repository in a folder of its own that a source is fetched
// into, and the git that does it.
type repo struct {
	binary string
	home   string // private folder: git's home, with the repository in it
	src    *source
	proxy  *proxy // nil where no web server is asked
}

func repoPath(home string) string { return filepath.Join(home, "repo.git") }

// The lengths of commits' hashes, in hexadecimal digits.
const (
	sha1Digits   = 40
	sha256Digits = 64
)

var (
	fullHash  = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	shortHash = regexp.MustCompile(`^[0-9a-f]{4,63}$`)
)

// fetched is where what was fetched is found, as a reference.
const fetched = "refs/caisson/commit"

// newRepo prepares home, which is empty, for fetching from src. The caller must
// Close what it returns.
func (f *fetch) newRepo(home string, src *source) (*repo, error) {
	r := &repo{binary: f.binary, home: home, src: src}
	proxyURL := ""
	if src.web() {
		var err error
		if r.proxy, err = startProxy(f.mayBePrivate); err != nil {
			return nil, fmt.Errorf("proxy for git: %w", err)
		}
		proxyURL = r.proxy.URL()
	}
	if err := writeSettings(home, src, proxyURL); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close ends what serves git. The files stay.
func (r *repo) Close() error {
	if r.proxy == nil {
		return nil
	}
	return r.proxy.Close()
}

// remote runs a git command that talks to the source.
func (r *repo) remote(ctx context.Context, out io.Writer, args ...string) error {
	err := r.git(ctx, out, args...)
	if err != nil && ctx.Err() == nil && r.proxy != nil && r.proxy.Err() != nil {
		return r.proxy.Err()
	}
	return err
}

// fetch brings in the commit that ref names and returns its hash.
func (r *repo) fetch(ctx context.Context, ref string, depth int) (string, error) {
	if fullHash.MatchString(strings.ToLower(ref)) {
		return r.fetchHash(ctx, strings.ToLower(ref), depth)
	}
	name, digits, err := r.find(ctx, ref)
	if err != nil {
		return "", err
	}
	if name == "" {
		return r.fetchShort(ctx, ref, digits, depth)
	}
	if err := r.init(ctx, digits); err != nil {
		return "", err
	}
	err = r.fetchOne(ctx, name, depth)
	var failed *failure
	if errors.As(err, &failed) && failed.says("does not support shallow") {
		err = r.fetchOne(ctx, name, -1)
	}
	if err != nil {
		return "", err
	}
	return r.commit(ctx, fetched, ref)
}

// find asks the source for the full name of a branch or tag, a branch first as
// git clone does, and how long its hashes are. An empty name says that there is
// none.
func (r *repo) find(ctx context.Context, ref string) (name string, digits int, err error) {
	wanted := []string{"HEAD"}
	switch {
	case strings.HasPrefix(ref, "refs/"):
		wanted = []string{ref}
	case ref != "" && ref != "HEAD":
		wanted = []string{"refs/heads/" + ref, "refs/tags/" + ref, "refs/" + ref}
	}
	var out bytes.Buffer
	// HEAD is asked for to see the hash of something in any case.
	args := append([]string{"ls-remote", "--quiet", "--", r.src.url(), "HEAD"}, wanted...)
	if err := r.remote(ctx, &out, args...); err != nil {
		return "", 0, err
	}
	there := map[string]bool{}
	digits = sha1Digits
	for line := range strings.Lines(out.String()) {
		hash, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		there[name], digits = true, len(hash)
	}
	for _, name := range wanted {
		if there[name] {
			return name, digits, nil
		}
	}
	if ref == "" || ref == "HEAD" {
		return "", 0, notFound(errors.New("the repository has no default branch: it is empty, or say which branch as git: {ref: NAME}"))
	}
	return "", digits, nil
}

// init makes the repository, for hashes of so many digits.
func (r *repo) init(ctx context.Context, digits int) error {
	args := []string{"init", "--quiet", "--bare", "--template="}
	if digits == sha256Digits {
		args = append(args, "--object-format=sha256")
	}
	if err := r.git(ctx, nil, args...); err != nil {
		return err
	}
	// The files are to be as a checkout has them, not as a release has.
	info := filepath.Join(repoPath(r.home), "info")
	if err := os.MkdirAll(info, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(info, "attributes"), []byte("* -export-ignore -export-subst\n"), 0o600)
}

// fetchOne fetches one thing: a reference's full name, or a hash.
func (r *repo) fetchOne(ctx context.Context, what string, depth int) error {
	var args []string
	if depth >= 0 {
		args = append(args, "--depth="+strconv.Itoa(max(depth, 1)))
	}
	return r.fetchRefs(ctx, args, "+"+what+":"+fetched)
}

func (r *repo) fetchRefs(ctx context.Context, opts []string, refs ...string) error {
	args := []string{"fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"}
	args = append(append(args, opts...), "--", r.src.url())
	return r.remote(ctx, nil, append(args, refs...)...)
}

// fetchAll fetches all branches and tags with all of their history.
func (r *repo) fetchAll(ctx context.Context) error {
	return r.fetchRefs(ctx, nil, "+HEAD:refs/caisson/head", "+refs/heads/*:refs/caisson/heads/*", "+refs/tags/*:refs/caisson/tags/*")
}

// fetchHash fetches a commit by its hash; where the server does not permit
// that, everything.
func (r *repo) fetchHash(ctx context.Context, hash string, depth int) (string, error) {
	if err := r.init(ctx, len(hash)); err != nil {
		return "", err
	}
	err := r.fetchOne(ctx, hash, depth)
	var failed *failure
	if errors.As(err, &failed) && failed.says("not our ref", "unadvertised object", "couldn't find remote ref", "does not support shallow") {
		err = r.fetchAll(ctx)
	}
	if err != nil {
		return "", err
	}
	return r.commit(ctx, hash, hash)
}

// fetchShort fetches what is no branch and no tag: the beginning of a commit's
// hash, for which all of the history must be there.
func (r *repo) fetchShort(ctx context.Context, ref string, digits, depth int) (string, error) {
	short := strings.ToLower(ref)
	switch {
	case !shortHash.MatchString(short):
		return "", notFound(fmt.Errorf("the repository has no branch and no tag %q", ref))
	case depth >= 0:
		return "", notFound(fmt.Errorf("the repository has no branch and no tag %q: if it is a commit, give all of its hash, or depth: -1", ref))
	}
	if err := r.init(ctx, digits); err != nil {
		return "", err
	}
	if err := r.fetchAll(ctx); err != nil {
		return "", err
	}
	return r.commit(ctx, short, ref)
}

// commit returns the hash of the commit that a name in the repository leads to;
// ref is what the task calls it.
func (r *repo) commit(ctx context.Context, name, ref string) (string, error) {
	hash, err := r.text(ctx, "rev-parse", "--verify", "--quiet", name+"^{commit}")
	var failed *failure
	if errors.As(err, &failed) {
		return "", notFound(fmt.Errorf("the repository has no commit %q", ref))
	}
	if err == nil && !fullHash.MatchString(hash) {
		err = fmt.Errorf("git rev-parse: %q is no hash", hash)
	}
	return hash, err
}

// A survey is what a tree holds.
type survey struct {
	bytes int64 // of all files
	links []submodule
}

// A submodule is a commit of another repository in a tree.
type submodule struct{ path, hash string }

// maxFiles is how many files a repository may have.
const maxFiles = 1 << 20

// survey lists the tree of a commit's folder, "." for all of it.
func (r *repo) survey(ctx context.Context, commit, folder string) (*survey, error) {
	tree := commit + ":"
	if folder != "." {
		tree += folder
		kind, err := r.text(ctx, "cat-file", "-t", tree)
		var failed *failure
		switch {
		case errors.As(err, &failed):
			return nil, notFound(fmt.Errorf("the repository has no folder %q", folder))
		case err != nil:
			return nil, err
		case kind != "tree":
			return nil, &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("%q in the repository is no folder", folder)}
		}
	}
	s := &survey{}
	err := r.stream(ctx, s.read, "ls-tree", "-r", "-z", "--long", "--full-tree", tree)
	return s, err
}

// read reads what ls-tree prints: MODE TYPE HASH SIZE, a tab, the path, NUL.
func (s *survey) read(from io.Reader) error {
	scan := bufio.NewScanner(from)
	scan.Buffer(nil, 1<<20)
	scan.Split(splitNUL)
	for n := 1; scan.Scan(); n++ {
		entry, name, _ := strings.Cut(scan.Text(), "\t")
		f := strings.Fields(entry)
		if len(f) != 4 || name == "" {
			return fmt.Errorf("git ls-tree: %.100q is no entry", scan.Text())
		}
		if n > maxFiles {
			return &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("the repository has more than %d files", maxFiles)}
		}
		if f[1] == "commit" {
			s.links = append(s.links, submodule{path: name, hash: f[2]})
			continue
		}
		size, err := strconv.ParseInt(f[3], 10, 64)
		if err != nil {
			return fmt.Errorf("git ls-tree: %.100q is no entry", scan.Text())
		}
		s.bytes += size
	}
	return scan.Err()
}

// splitNUL is a bufio.SplitFunc for what ends in NUL.
func splitNUL(data []byte, _ bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return i + 1, data[:i], nil
	}
	return 0, nil, nil
}

// submoduleURLs returns the URL of each submodule by its path, from a commit's
// .gitmodules.
func (r *repo) submoduleURLs(ctx context.Context, commit string) (map[string]string, error) {
	if _, err := r.text(ctx, "cat-file", "-e", commit+":.gitmodules"); err != nil {
		var failed *failure
		if errors.As(err, &failed) {
			err = nil
		}
		return nil, err
	}
	var out bytes.Buffer
	args := []string{"config", "--no-includes", "--blob", commit + ":.gitmodules", "--null", "--get-regexp", `^submodule\..*\.(path|url)$`}
	if err := r.git(ctx, &out, args...); err != nil {
		var failed *failure
		if errors.As(err, &failed) {
			err = &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf(".gitmodules: %w", err)}
		}
		return nil, err
	}
	paths, urls := map[string]string{}, map[string]string{}
	for entry := range strings.SplitSeq(out.String(), "\x00") {
		key, value, _ := strings.Cut(entry, "\n")
		if name, ok := strings.CutSuffix(key, ".path"); ok {
			paths[name] = value
		} else if name, ok := strings.CutSuffix(key, ".url"); ok {
			urls[name] = value
		}
	}
	byPath := map[string]string{}
	for name, path := range paths {
		byPath[path] = urls[name]
	}
	return byPath, nil
}

func notFound(err error) error { return &caisson.Error{Kind: caisson.ErrNotFound, Err: err} }
