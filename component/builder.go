package component

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
)

// A Build is how the image of a Builder is made: a folder with these files is
// what a builder of images needs.
type Build struct {
	// Files is what the folder holds, by name. "Dockerfile" is always there.
	// Git's credentials are among them where the repository has some; a layer
	// never holds them.
	Files map[string][]byte
	// Name is the image's name. It is the same for the same Dockerfile.
	Name string
	// Anew says that an image of that name that is there already is not used.
	Anew bool
	// Network is what the component may reach, where the configuration says so;
	// empty: the definition's.
	Network string
	// Secrets are values in Files that nobody is to read.
	Secrets []string
}

// credentialFile is the name of git's credentials in the folder of a build.
const credentialFile = "git-credentials"

// Build returns how the image is made for a configuration. Id is the
// component's; the password of a repository is unsealed by u.
//
// Errors: ErrInvalid where a parameter is missing or wrong; the application's
// where the definition is.
func (d *Definition) Build(c *Config, u Unsealer) (*Build, error) {
	b := *d.Builder
	settings, password, err := b.settings(c, u)
	if err != nil {
		return nil, err
	}
	values, err := b.values(c, settings)
	if err != nil {
		return nil, err
	}
	out := &Build{Files: map[string][]byte{}, Network: settings.network}
	if password != "" {
		out.Secrets = []string{password}
	}
	mount := ""
	if settings.username != "" {
		credentials, err := gitCredentials(settings.repository, settings.username, password)
		if err != nil {
			return nil, err
		}
		out.Files[credentialFile] = credentials
		mount = "--mount=type=bind,source=" + credentialFile + ",target=/run/" + credentialFile + " "
	}
	lines := []string{
		"FROM " + b.Parent.Reference(""),
		"LABEL com.keboola.docker.runner.origin=builder",
		"WORKDIR /home",
	}
	if settings.version != "" {
		lines = append(lines, "ENV APP_VERSION="+settings.version)
	}
	var orphans []string
	put := func(text string) string {
		text, left := substitute(text, values)
		orphans = append(orphans, left...)
		return text
	}
	for _, command := range b.Commands {
		command = put(command)
		if mount != "" {
			// Git finds its credentials for this command alone; no layer keeps them.
			command = "export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=credential.helper " +
				"GIT_CONFIG_VALUE_0='store --file=/run/" + credentialFile + "'; " + command
		}
		lines = append(lines, "RUN "+mount+shellForm(command))
	}
	lines = append(lines, "WORKDIR /data", "ENTRYPOINT "+shellForm(put(b.EntryPoint)))
	if len(orphans) > 0 {
		return nil, buildError(d.ID, caisson.ErrInvalid, fmt.Errorf("the build commands have parameters that nothing defines: %s", strings.Join(orphans, " ")))
	}
	dockerfile := strings.Join(lines, "\n") + "\n"
	out.Files["Dockerfile"] = []byte(dockerfile)
	sum := sha256.Sum256([]byte(dockerfile))
	out.Name = "component.localhost/" + imageName(d.ID) + ":" + hex.EncodeToString(sum[:])[:32]
	out.Anew = b.NoCache || settings.version == "" || settings.version == "master"
	return out, nil
}

// shellForm returns a command as Dockerfiles take it, so that nothing in it is
// read as another instruction.
func shellForm(command string) string {
	form, _ := json.Marshal([]string{"/bin/sh", "-c", command}) // never an error
	return string(form)
}

// imageName makes a name that images can have.
func imageName(id string) string {
	name := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(id), "-"), "-")
	if name == "" {
		return "component"
	}
	return name
}

func buildError(item string, kind caisson.Kind, err error) error {
	return &caisson.Error{Op: caisson.OpPrepare, Item: item, Kind: kind, Err: err}
}

// buildSettings is what a configuration's runtime may say of a build.
type buildSettings struct{ repository, version, username, network string }

var versionForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./+-]*$`)

// settings returns what is built, with the password of the repository.
func (b *Builder) settings(c *Config, u Unsealer) (s buildSettings, password string, err error) {
	s = buildSettings{repository: b.Repository.URI, version: b.Version, username: b.Repository.Username}
	if b.Repository.Password != "" {
		plain := NewObject()
		plain.Set("#password", NewString(b.Repository.Password))
		if plain, _, err = unseal(u, plain, "data.definition.build_options.repository", nil); err != nil {
			return s, "", Application(err)
		}
		password = scalarText(plain.Get("#password"))
	}
	runtime := c.Runtime.All
	for key, into := range map[string]*string{
		"repository": &s.repository, "version": &s.version, "username": &s.username, "network": &s.network, "#password": &password,
	} {
		if text := scalarText(runtime.Get(key)); text != "" {
			*into = text
		}
	}
	if s.version != "" && !versionForm.MatchString(s.version) {
		return s, "", buildError("runtime.version", caisson.ErrInvalid, fmt.Errorf("%q is not a version", clip(s.version)))
	}
	if s.network != "" && !slices.Contains([]string{"none", "bridge", "no-internet"}, s.network) {
		return s, "", buildError("runtime.network", caisson.ErrInvalid,
			fmt.Errorf("%q is not known; want \"none\", \"bridge\" or \"no-internet\"", clip(s.network)))
	}
	return s, password, nil
}

// gitCredentials returns the file of git's credential helper "store".
func gitCredentials(repository, username, password string) ([]byte, error) {
	u, err := url.Parse(repository)
	if err != nil || u.Host == "" {
		return nil, buildError("repository", caisson.ErrInvalid, fmt.Errorf("is not the URL of a host that takes a user and a password"))
	}
	u = &url.URL{Scheme: u.Scheme, Host: u.Host, User: url.UserPassword(username, password)}
	return []byte(u.String() + "\n"), nil
}

// values returns what stands for the placeholders of commands.
func (b *Builder) values(c *Config, s buildSettings) (map[string]string, error) {
	values := map[string]string{"repository": shellQuote(s.repository), "version": shellQuote(s.version)}
	var wrong Problems
	for i := range b.Parameters {
		p := &b.Parameters[i]
		given := c.Parameters.Get(p.Name)
		if given == nil {
			given = c.Runtime.All.Get(p.Name)
		}
		text := scalarText(given)
		switch {
		case given != nil && !given.IsScalar() && given.Kind != Null:
			wrong = append(wrong, Problem{Path: "parameters." + p.Name, Message: "is not a single value, which a build parameter has to be"})
			continue
		case isNull(given) && p.Default != "":
			text = p.Default
		case isNull(given) && !p.Optional:
			wrong = append(wrong, Problem{Path: "parameters." + p.Name, Message: "is missing; the component's image can't be built without it"})
			continue
		}
		value, problem := p.form(text)
		if problem != "" {
			wrong = append(wrong, Problem{Path: "parameters." + p.Name, Message: problem})
		}
		values[p.Name] = value
	}
	if len(wrong) > 0 {
		return nil, wrong
	}
	return values, nil
}

var plainString = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// form returns a value as it stands in a command, or says what is wrong with
// it. A parameter whose name begins with "#" is not repeated.
func (p *BuildParameter) form(text string) (value, problem string) {
	shown := strconv.Quote(clip(text))
	if strings.HasPrefix(p.Name, "#") {
		shown = "the value"
	}
	switch p.Type {
	case "int", "integer":
		if _, err := strconv.ParseInt(text, 10, 64); err != nil && text != "" {
			return "", shown + " is not a whole number"
		}
	case "plain_string":
		if text != "" && !plainString.MatchString(text) {
			return "", shown + " has other characters than letters, digits, _, . and -"
		}
	case "enumeration":
		if text != "" && !slices.Contains(p.Values, text) {
			return "", shown + " is not known; want " + quoted(p.Values)
		}
	case "argument":
		return shellQuote(text), ""
	}
	return text, ""
}

// shellQuote returns s as one word of a shell's command.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

var buildName = regexp.MustCompile(`\{\{([^{}]*)\}\}`)

// substitute puts values into a command and returns the placeholders that are
// left.
func substitute(text string, values map[string]string) (out string, left []string) {
	out = buildName.ReplaceAllStringFunc(text, func(tag string) string {
		value, ok := values[strings.TrimSpace(tag[2:len(tag)-2])]
		if !ok {
			left = append(left, tag)
			return tag
		}
		return value
	})
	return out, left
}

var buildMessage = regexp.MustCompile(`(?s)KBC::USER_ERR:(.*?)KBC::USER_ERR`)

// BuildFailure returns the error of a build that failed with err and printed
// log: the user's with the message that the log holds for the user, or else
// err.
func BuildFailure(id, log string, err error) error {
	if match := buildMessage.FindStringSubmatch(log); match != nil {
		return buildError(id, caisson.ErrInvalid, fmt.Errorf("%s", strings.TrimSpace(match[1])))
	}
	return Application(err)
}
