//go:build unix

package git

import (
	"errors"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
)

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		stderr string
		kind   caisson.Kind
		line   string
	}{
		{"fatal: repository 'http://h/x/' not found\n", caisson.ErrNotFound, `"repository 'http://h/x/' not found"`},
		{"remote: Repository not found.\nfatal: repository 'https://github.com/a/b/' not found", caisson.ErrNotFound, "Repository not found."},
		{"ERROR: Repository not found.\nfatal: Could not read from remote repository.\n\nPlease make sure", caisson.ErrNotFound, "Repository not found."},
		{"fatal: '/x' does not appear to be a git repository\nfatal: Could not read from remote repository.", caisson.ErrNotFound, "'/x' does not"},
		{"fatal: couldn't find remote ref refs/heads/x", caisson.ErrNotFound, "remote ref"},
		{"fatal: remote error: upload-pack: not our ref abc", caisson.ErrNotFound, "not our ref"},
		{"error: Server does not allow request for unadvertised object abc", caisson.ErrNotFound, "unadvertised"},
		{"fatal: could not read Username for 'https://h': terminal prompts disabled", caisson.ErrDenied, "could not read Username"},
		{"fatal: Authentication failed for 'https://h/x/'", caisson.ErrDenied, "Authentication failed"},
		{"git@h: Permission denied (publickey).\r\nfatal: Could not read from remote repository.", caisson.ErrDenied, "publickey"},
		{"Host key verification failed.\r\nfatal: Could not read from remote repository.", caisson.ErrDenied, "Host key"},
		{"fatal: unable to access 'https://h/x/': The requested URL returned error: 403", caisson.ErrDenied, "403"},
		{"fatal: transport 'file' not allowed", caisson.ErrDenied, "'file'"},
		{"fatal: detected dubious ownership in repository at '/x'\nTo add an exception", caisson.ErrDenied, "dubious ownership"},
		{"fatal: unable to access 'https://h/x/': server certificate verification failed. CAfile: none", caisson.ErrDenied, "certificate"},
		{"fatal: unable to access 'https://h/x/': Could not resolve host: h", caisson.ErrUnavailable, "resolve"},
		{"ssh: Could not resolve hostname h: Name or service not known\r\nfatal: Could not read from remote repository.", caisson.ErrUnavailable, "hostname"},
		{"ssh: connect to host h port 22: Connection refused\r\nfatal: Could not read from remote repository.", caisson.ErrUnavailable, "port 22"},
		{"fatal: unable to access 'https://h/x/': The requested URL returned error: 503", caisson.ErrUnavailable, "503"},
		{"error: RPC failed; curl 28 Operation too slow.\nfatal: early EOF", caisson.ErrUnavailable, "too slow"},
		{"fatal: the remote end hung up unexpectedly", caisson.ErrUnavailable, "hung up"},
		{"fatal: write error: No space left on device\nfatal: fetch-pack: invalid index-pack output", caisson.ErrExhausted, "space"},
		{"error: object abc: hasDotgit: contains '.git'\nfatal: fsck error in packed object", caisson.ErrInvalid, "fsck error"},
		{"error: cannot run ssh: No such file or directory\nfatal: unable to fork", caisson.ErrUnsupported, "cannot run ssh"},
		{"git: 'remote-https' is not a git command. See 'git --help'.", caisson.ErrUnsupported, "remote-https"},
		{"warning: x\nfatal: something new\x1b[0m\nmore", caisson.ErrUnknown, `"something new\x1b[0m"`},
		{"", caisson.ErrUnknown, "exit status 128"},
	} {
		f := &failure{command: "fetch", stderr: c.stderr, err: errors.New("exit status 128")}
		if got := f.kind(); got != c.kind {
			t.Errorf("%q is %v, want %v", c.stderr, got, c.kind)
		}
		if got := f.Error(); !strings.Contains(got, c.line) || strings.ContainsAny(got, "\n\r\x1b") {
			t.Errorf("%q says %s, want %s in it", c.stderr, got, c.line)
		}
	}
}

// What is kept of long output is its end.
func TestTail(t *testing.T) {
	var k tail
	for range 1000 {
		k.Write([]byte(strings.Repeat("x", 100)))
	}
	k.Write([]byte("end"))
	if got := k.String(); len(got) != maxStderr || !strings.HasSuffix(got, "xend") {
		t.Errorf("%d bytes that end in %q", len(got), got[len(got)-10:])
	}
}

func TestSettings(t *testing.T) {
	text := configText([]setting{{"a", "b", "c \"d\" \\ \n[core]\n\thooksPath = x # y ; z"}})
	if want := "[a]\n\tb = \"c \\\"d\\\" \\\\ \\n[core]\\n\\thooksPath = x # y ; z\"\n"; text != want {
		t.Errorf("%q, want %q", text, want)
	}
	if got, want := shellQuote("/a b/it's"), `'/a b/it'\''s'`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
