// Package seal encrypts the values of configurations, states and definitions
// that stand under keys beginning with "#".
//
// A sealed value is text: "caisson:v1:", the name of its scope, ":" and an age
// file in base64. The age file holds the value together with the project,
// component and configuration that it is for, so that a value that is copied
// elsewhere does not open there. The name of the scope outside is for people
// and means nothing.
//
// What protects a sealed value is the key file: age identities, one a line, of
// which the first seals and all unseal. It is made when the first value is
// sealed, and nobody but its owner may read it.
package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
)

// A Level says how far a sealed value can be used.
type Level string

// The levels, from wide to narrow.
const (
	Project       Level = "project"       // by every component of the project
	Component     Level = "component"     // by every configuration of one component in the project
	Configuration Level = "configuration" // by one configuration
)

// A Scope is where values are sealed and unsealed.
type Scope struct {
	Project       string
	Component     string // empty: only values of level Project
	Configuration string // empty: only values of levels Project and Component
}

// A Box seals and unseals values in one scope. It may be used from any
// goroutine.
type Box struct {
	keys  *Keys
	scope Scope
	level Level
}

var (
	_ component.Sealer   = (*Box)(nil)
	_ component.Unsealer = (*Box)(nil)
)

// Box returns the box of a scope. It seals for level, and unseals what was
// sealed for any level of the same scope.
//
// Errors: ErrInvalid where the scope lacks what the level needs.
func (k *Keys) Box(s Scope, level Level) (*Box, error) {
	missing := ""
	switch {
	case level != Project && level != Component && level != Configuration:
		return nil, invalid("scope", fmt.Errorf("%q is not known; want \"project\", \"component\" or \"configuration\"", level))
	case s.Project == "":
		missing = "project"
	case level != Project && s.Component == "":
		missing = "component"
	case level == Configuration && s.Configuration == "":
		missing = "configuration"
	}
	if missing != "" {
		return nil, invalid("scope", fmt.Errorf("values of the scope %q need a %s", level, missing))
	}
	return &Box{k, s, level}, nil
}

func invalid(item string, err error) error {
	return &caisson.Error{Op: caisson.OpValidate, Item: item, Kind: caisson.ErrInvalid, Err: err}
}

// contents is what is encrypted.
type contents struct {
	Level         Level  `json:"scope"`
	Project       string `json:"project"`
	Component     string `json:"component,omitempty"`
	Configuration string `json:"configuration,omitempty"`
	Value         string `json:"value"`
}

// Seal implements component.Sealer. The key file is made if there is none.
func (b *Box) Seal(plain string) (string, error) {
	if component.IsSealed(plain) {
		return plain, nil
	}
	ids, err := b.keys.make()
	if err != nil {
		return "", err
	}
	c := contents{Level: b.level, Project: b.scope.Project, Value: plain}
	if b.level != Project {
		c.Component = b.scope.Component
	}
	if b.level == Configuration {
		c.Configuration = b.scope.Configuration
	}
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(c); err != nil {
		return "", err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, ids[0].Recipient())
	if err == nil {
		_, err = w.Write(data.Bytes())
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return "", &caisson.Error{Op: caisson.OpState, Item: "seal", Kind: caisson.ErrInternal, Err: err}
	}
	return component.SealedPrefix + string(b.level) + ":" + base64.RawURLEncoding.EncodeToString(out.Bytes()), nil
}

// Unseal implements component.Unsealer. Errors: ErrInvalid for a value that is
// damaged or sealed for another scope or by another key; ErrNotFound and
// ErrDenied for the key file.
func (b *Box) Unseal(path, sealed string) (string, error) {
	text, found := strings.CutPrefix(sealed, component.SealedPrefix)
	_, text, named := strings.Cut(text, ":")
	data, err := base64.RawURLEncoding.DecodeString(text)
	if !found || !named || err != nil {
		return "", invalid(path, errors.New("is damaged: it is not the text that \"caisson component encrypt\" wrote"))
	}
	ids, err := b.keys.load()
	if err != nil {
		return "", err
	}
	c, err := open(data, ids, b.keys.file)
	if err != nil {
		return "", invalid(path, err)
	}
	if err := b.scope.fits(c); err != nil {
		return "", invalid(path, err)
	}
	return c.Value, nil
}

// open decrypts what Seal made.
func open(data []byte, ids []*age.X25519Identity, file string) (*contents, error) {
	all := make([]age.Identity, len(ids))
	for i := range ids {
		all[i] = ids[i]
	}
	r, err := age.Decrypt(bytes.NewReader(data), all...)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, fmt.Errorf("was encrypted with another key than those of %s", file)
	}
	c := &contents{}
	if err == nil {
		var plain []byte
		if plain, err = io.ReadAll(r); err == nil {
			err = json.Unmarshal(plain, c)
		}
	}
	if err != nil {
		return nil, errors.New("is damaged: it can't be decrypted")
	}
	return c, nil
}

// fits reports why what was sealed can't be used in s; nil: it can.
func (s Scope) fits(c *contents) error {
	known := c.Level == Project && c.Component == "" && c.Configuration == "" ||
		c.Level == Component && c.Component != "" && c.Configuration == "" ||
		c.Level == Configuration && c.Component != "" && c.Configuration != ""
	switch {
	case !known:
		return errors.New("is encrypted for a scope that this version does not know")
	case c.Project != s.Project:
		return errors.New("is encrypted for another project")
	case c.Level != Project && c.Component != s.Component:
		return errors.New("is encrypted for another component")
	case c.Level == Configuration && c.Configuration != s.Configuration:
		return errors.New("is encrypted for another configuration")
	}
	return nil
}
