//go:build unix

package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/caissonrun/caisson"
)

// maxAuthFile is the most bytes that a config.json, or a helper's answer, may
// have.
const maxAuthFile = 1 << 20

// authFile is what a config.json of docker's says about credentials.
type authFile struct {
	Auths       map[string]authEntry `json:"auths"`
	CredsStore  string               `json:"credsStore"`
	CredHelpers map[string]string    `json:"credHelpers"`
}

// authEntry is a registry's entry in it.
type authEntry struct {
	Auth          string `json:"auth"` // base64 of USER:PASSWORD
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// auths reads the operator's credentials. That there is no file at the usual
// place is no error.
func (r *remote) auths() (*authFile, error) {
	path, named := r.sources.AuthFile, true
	if path == "" {
		path, named = usualAuthFile()
	}
	if path == "" {
		return &authFile{}, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return &authFile{}, nil
	}
	if err != nil {
		return nil, authProblem(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxAuthFile+1))
	if err != nil {
		return nil, authProblem(path, err)
	}
	auths := &authFile{}
	if len(data) > maxAuthFile || json.Unmarshal(data, auths) != nil {
		// The cause could hold parts of the file.
		return nil, authProblem(path, errors.New("not a config.json of docker's"))
	}
	return auths, nil
}

func authProblem(path string, err error) error {
	return &caisson.Error{Op: caisson.OpConfig, Item: "credentials in " + path, Kind: caisson.ErrInvalid, Err: err}
}

// usualAuthFile returns where docker and others have it, and whether somebody
// named that very file.
func usualAuthFile() (path string, named bool) {
	if path := os.Getenv("REGISTRY_AUTH_FILE"); path != "" {
		return path, true
	}
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json"), false
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".docker", "config.json"), false
	}
	return "", false
}

// dockerHub is docker's own registry: its name in references, and the others
// that it has.
const dockerHub = "docker.io"

var dockerHubNames = []string{"index.docker.io", "registry-1.docker.io"}

// keys returns under which names a repository's credentials may be, the most
// special first.
func (a *authFile) keys(host, repo string) []string {
	var keys []string
	for path := host + "/" + repo; strings.Contains(path, "/"); path = path[:strings.LastIndexByte(path, '/')] {
		keys = append(keys, path)
	}
	hosts := []string{host}
	for _, name := range dockerHubNames {
		if host == dockerHub || host == name {
			hosts = append(hosts, name, dockerHub)
		}
	}
	for _, host := range hosts {
		keys = append(keys, host, "https://"+host, "https://"+host+"/v1/", "https://"+host+"/v2/", "http://"+host)
	}
	return keys
}

// mayHave reports whether there could be credentials, without asking a helper.
func (a *authFile) mayHave(host, repo string) bool {
	if a.CredsStore != "" {
		return true
	}
	for _, key := range a.keys(host, repo) {
		if _, ok := a.Auths[key]; ok || a.CredHelpers[key] != "" {
			return true
		}
	}
	return false
}

// find returns the operator's credentials for a repository. Without any it
// returns the anonymous ones.
func (a *authFile) find(ctx context.Context, host, repo string, limit time.Duration) (authn.Authenticator, error) {
	keys := a.keys(host, repo)
	for _, key := range keys {
		if helper := a.CredHelpers[key]; helper != "" {
			return askHelper(ctx, helper, key, limit)
		}
	}
	if a.CredsStore != "" {
		server := host
		if host == dockerHub {
			server = "https://index.docker.io/v1/"
		}
		auth, err := askHelper(ctx, a.CredsStore, server, limit)
		if err != nil || auth != authn.Anonymous {
			return auth, err
		}
	}
	for _, key := range keys {
		if entry, ok := a.Auths[key]; ok {
			return entry.authenticator(key)
		}
	}
	return authn.Anonymous, nil
}

func (e *authEntry) authenticator(key string) (authn.Authenticator, error) {
	user, password := e.Username, e.Password
	if e.Auth != "" {
		data, err := base64.StdEncoding.DecodeString(e.Auth)
		name, secret, ok := strings.Cut(string(data), ":")
		if err != nil || !ok {
			return nil, authProblem(fmt.Sprintf("the docker configuration for %q", shorten(key)), errors.New("auth is not base64 of USER:PASSWORD"))
		}
		user, password = name, strings.TrimRight(secret, "\x00")
	}
	return authenticator(user, password, e.IdentityToken, e.RegistryToken), nil
}

// identityUser is what stands for a user's name where the secret is an identity
// token.
const identityUser = "<token>"

func authenticator(user, password, identity, token string) authn.Authenticator {
	if user == identityUser {
		user, password, identity = "", "", password
	}
	if user == "" && password == "" && identity == "" && token == "" {
		return authn.Anonymous
	}
	return authn.FromConfig(authn.AuthConfig{Username: user, Password: password, IdentityToken: identity, RegistryToken: token})
}

var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$`)

// helperGrace is what a helper has to end after it was told to.
const helperGrace = 2 * time.Second

// askHelper runs docker-credential-NAME, which must be in PATH.
func askHelper(ctx context.Context, name, server string, limit time.Duration) (authn.Authenticator, error) {
	item := fmt.Sprintf("credential helper %q", shorten(name))
	fail := func(kind caisson.Kind, err error) (authn.Authenticator, error) {
		return nil, &caisson.Error{Op: OpImage, Item: item, Kind: kind, Err: err}
	}
	if !helperName.MatchString(name) {
		return fail(caisson.ErrInvalid, errors.New("not the name of a helper in the docker configuration"))
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(limited, "docker-credential-"+name, "get")
	var out, errs limitedBuffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(server), &out, &errs
	// What the helper has started must not outlive it, nor hold its output open.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = helperGrace
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case limited.Err() != nil:
		return fail(caisson.ErrUnavailable, fmt.Errorf("no answer within %v", limit))
	case errors.Is(err, exec.ErrNotFound):
		return fail(caisson.ErrInvalid, fmt.Errorf("docker-credential-%s is not in PATH, but the docker configuration names it", name))
	case err != nil && (notThere(out.data) || notThere(errs.data)):
		return authn.Anonymous, nil
	case err != nil:
		// What it printed may hold a secret.
		return fail(caisson.ErrUnavailable, fmt.Errorf("it fails: %v", err))
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out.data, &answer); err != nil {
		return fail(caisson.ErrUnavailable, errors.New("its answer is not what credential helpers give"))
	}
	return authenticator(answer.Username, answer.Secret, "", ""), nil
}

// notThere reports whether a helper says that it has no credentials.
func notThere(output []byte) bool { return bytes.Contains(output, []byte("credentials not found")) }

// A limitedBuffer takes as much as an answer of a helper may be.
type limitedBuffer struct{ data []byte }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if len(b.data)+len(p) > maxAuthFile {
		return 0, errors.New("too long an answer")
	}
	b.data = append(b.data, p...)
	return len(p), nil
}
