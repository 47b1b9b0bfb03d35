package docker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/distribution/reference"

	"github.com/caissonrun/caisson"
)

// credentials are those for one registry. Nil are none.
type credentials struct {
	server, username, password, token string
	// private says that they are a task's own: what is pulled with them is for
	// those alone who have them.
	private bool
}

// key tells credentials apart, and tells nothing about them. It is empty for
// those that are everybody's.
func (c *credentials) key() string {
	if c == nil || !c.private {
		return ""
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{"caisson image", c.server, c.username, c.password}, "\x00")))
	return hex.EncodeToString(sum[:])
}

// dockerHub is what config.json calls Docker's own registry.
const dockerHub = "https://index.docker.io/v1/"

// registryOf returns what config.json calls the registry of an image.
func registryOf(named reference.Named) string {
	if domain := reference.Domain(named); domain != "docker.io" {
		return domain
	}
	return dockerHub
}

// credentials finds those for an image: the task's own, else the operator's.
func (m *images) credentials(ctx context.Context, r *ref, reg *caisson.Registry, password string) (*credentials, error) {
	if r.named == nil {
		return nil, nil
	}
	name := registryOf(r.named)
	if reg != nil && (reg.Username != "" || reg.Password != "") {
		return &credentials{server: name, username: reg.Username, password: password, private: true}, nil
	}
	if m.opts.Config == "" {
		return nil, nil
	}
	c, err := fromConfig(ctx, m.opts.Config, name)
	if err != nil {
		return nil, &caisson.Error{Op: caisson.OpConfig, Item: "image.auth_file", Kind: caisson.ErrInvalid, Err: fmt.Errorf("%s: %w", m.opts.Config, err)}
	}
	return c, nil
}

// configFile is the part of config.json that tells of credentials.
type configFile struct {
	Auths map[string]struct {
		Auth, Username, Password string
		IdentityToken            string `json:"identitytoken"`
	} `json:"auths"`
	Store   string            `json:"credsStore"`
	Helpers map[string]string `json:"credHelpers"`
}

// fromConfig finds a registry's credentials in a config.json.
func fromConfig(ctx context.Context, path, name string) (*credentials, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file configFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, errors.New("it is no JSON")
	}
	helper := file.Store
	if special := file.Helpers[name]; special != "" {
		helper = special
	}
	if helper != "" {
		c, err := fromHelper(ctx, helper, name)
		if c != nil || err != nil {
			return c, err
		}
	}
	for _, key := range []string{name, "https://" + name, "https://" + name + "/v1/", "https://" + name + "/v2/"} {
		a, ok := file.Auths[key]
		if !ok {
			continue
		}
		c := &credentials{server: name, username: a.Username, password: a.Password, token: a.IdentityToken}
		if a.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(a.Auth)
			if err != nil {
				return nil, fmt.Errorf("auth of %s is no base64", key)
			}
			c.username, c.password, _ = strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
		}
		return c, nil
	}
	return nil, nil
}

// helperTime is how long a helper may take.
const helperTime = 30 * time.Second

var helperName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// fromHelper asks a credential helper, a program of the operator's. It returns
// nil where that knows nothing.
func fromHelper(ctx context.Context, helper, name string) (*credentials, error) {
	if !helperName.MatchString(helper) {
		return nil, fmt.Errorf("%q is no helper's name", helper)
	}
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, "get")
	cmd.Stdin = strings.NewReader(name)
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && bytes.Contains(out.Bytes(), []byte("credentials not found")) {
			return nil, nil
		}
		return nil, fmt.Errorf("docker-credential-%s: %w", helper, err)
	}
	var said struct{ Username, Secret string }
	if err := json.Unmarshal(out.Bytes(), &said); err != nil {
		return nil, fmt.Errorf("docker-credential-%s: it answers no JSON", helper)
	}
	c := &credentials{server: name, username: said.Username, password: said.Secret}
	if said.Username == "<token>" {
		c.username, c.password, c.token = "", "", said.Secret
	}
	return c, nil
}
