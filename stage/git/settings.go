//go:build unix

package git

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// A setting is one line of git's configuration.
type setting struct{ section, key, value string }

// harmless are flaws of old repositories that git would refuse to fetch for,
// and that matter to nobody.
var harmless = []string{
	"badDate", "badDateOverflow", "badEmail", "badFilemode", "badName", "badTimezone", "missingEmail", "missingNameBeforeEmail",
	"missingSpaceBeforeDate", "missingSpaceBeforeEmail", "missingTaggerEntry", "zeroPaddedDate", "zeroPaddedFilemode",
}

// settings returns git's whole configuration. Credentials and proxy are the
// paths and URLs that it needs, empty where it needs none.
func settings(credentials, proxy string) []setting {
	list := []setting{
		{"core", "hooksPath", os.DevNull},
		{"core", "fsmonitor", "false"},
		{"core", "symlinks", "false"},
		{"core", "protectHFS", "true"},
		{"core", "protectNTFS", "true"},
		{"core", "askPass", ""},
		{"init", "templateDir", ""},
		{"init", "defaultBranch", "none"},
		{"gc", "auto", "0"},
		{"maintenance", "auto", "false"},
		{"transfer", "fsckObjects", "true"},
		{"transfer", "bundleURI", "false"},
		{"fetch", "recurseSubmodules", "false"},
		{"tar", "umask", "0022"},
		{"http", "sslVerify", "true"},
		{"http", "emptyAuth", "false"}, // the tickets of the user who runs Caisson
		{"http", "lowSpeedLimit", "1"}, // bytes a second, for
		{"http", "lowSpeedTime", "120"},
		{"credential", "helper", ""},
	}
	for _, flaw := range harmless {
		list = append(list, setting{`fetch "fsck"`, flaw, "ignore"})
	}
	if proxy != "" {
		list = append(list, setting{"http", "proxy", proxy}, setting{"http", "proxyAuthMethod", "basic"})
	}
	if credentials != "" {
		list = append(list, setting{"credential", "helper", "store --file=" + shellQuote(credentials)})
	}
	if ca := os.Getenv("SSL_CERT_FILE"); ca != "" {
		list = append(list, setting{"http", "sslCAInfo", ca})
	}
	return list
}

// shellQuote makes one word of a shell's command line.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// configText returns settings in the form of git's files.
func configText(list []setting) string {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`)
	var b strings.Builder
	for _, s := range list {
		fmt.Fprintf(&b, "[%s]\n\t%s = \"%s\"\n", s.section, s.key, quote.Replace(s.value))
	}
	return b.String()
}

// writeSettings makes home the home folder of a git that can reach src, through
// the proxy at a URL where there is one.
func writeSettings(home string, src *source, proxy string) error {
	credentials := ""
	if src.web() && src.user != nil {
		credentials = filepath.Join(home, "credentials")
		if err := os.WriteFile(credentials, []byte(credentialLine(src)), 0o600); err != nil {
			return err
		}
	}
	// This is the name that git looks for by itself, so it counts for versions
	// too that do not know GIT_CONFIG_GLOBAL.
	return os.WriteFile(configPath(home), []byte(configText(settings(credentials, proxy))), 0o600)
}

func configPath(home string) string { return filepath.Join(home, ".gitconfig") }

// credentialLine returns a source's user and password as git credential-store
// reads them. The store gives them to this host only.
func credentialLine(src *source) string {
	u := url.URL{Scheme: src.scheme, User: src.user, Host: src.host}
	if _, ok := src.user.Password(); !ok {
		u.User = url.UserPassword(src.user.Username(), "")
	}
	return u.String() + "\n"
}

// environment returns all of git's environment, for the home folder home. Only
// ssh gets to know the caller's agent.
func environment(home string, src *source) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + home,
		"TMPDIR=" + home,
		"LANG=C",
		"LC_ALL=C",
		"GIT_DIR=" + repoPath(home),
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_GLOBAL=" + configPath(home),
		"GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0",
		"GIT_LITERAL_PATHSPECS=1",
		"GIT_NO_LAZY_FETCH=1",
		"GIT_NO_REPLACE_OBJECTS=1",
		// It overrides all configuration, that of a served folder included.
		"GIT_ALLOW_PROTOCOL=" + src.protocols(),
		"GIT_PROTOCOL_FROM_USER=0",
		"GIT_LFS_SKIP_SMUDGE=1",
	}
	if src.scheme == "ssh" {
		env = append(env, "GIT_SSH_VARIANT=ssh", "GIT_SSH_COMMAND="+sshCommand, "SSH_AUTH_SOCK="+os.Getenv("SSH_AUTH_SOCK"))
	}
	return env
}

// sshCommand is a ssh that asks nobody, trusts only known hosts, starts and
// leaves nothing behind.
const sshCommand = "ssh -T -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=30 -o ServerAliveInterval=30 " +
	"-o ForwardAgent=no -o ForwardX11=no -o ClearAllForwardings=yes -o PermitLocalCommand=no -o ControlMaster=no -o ControlPath=none"
