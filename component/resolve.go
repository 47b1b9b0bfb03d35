package component

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
)

// A Resolver makes Configs of Configurations. Its fields may be nil.
type Resolver struct {
	Definition *Definition
	Library    *Library // variables and shared code
	Unsealer   Unsealer // nil: a configuration with "#" values is an error
	// Vault is what {{ vault.NAME }} stands for. VaultSecrets are those of its
	// values that are secret wherever they are used.
	Vault        map[string]string
	VaultSecrets []string
	// Credentials returns OAuth credentials by id. Errors: ErrNotFound.
	Credentials func(id string) (*Value, error)
	// Variables are given for this run; they win over the configuration's.
	// VariableValuesID names a set of values. Both is an error.
	Variables        map[string]string
	VariableValuesID string
}

// A Resolved is a configuration with a row, ready to be run. It can be kept as
// JSON; its secrets are in it.
type Resolved struct {
	Config          *Config  `json:"config"`
	Row             string   `json:"row"`              // its id; empty: there are no rows
	ImageParameters *Value   `json:"image_parameters"` // the definition's, unsealed
	Secrets         []string `json:"secrets"`          // every plain value under a "#" key, none of them empty, each once
}

// Resolve merges a row into a configuration, puts in shared code, vault and
// variables, unseals, and checks the whole, in this order.
//
// Errors: Problems and others of kind ErrInvalid; ErrNotFound for variables,
// shared code or credentials that are not there; the application's where the
// definition's image parameters can't be unsealed. None repeats a secret.
func (r *Resolver) Resolve(c *Configuration, row Row) (*Resolved, error) {
	file := c.File
	merged, err := c.merged(&row)
	if err != nil {
		return nil, err
	}
	config, err := c.parse(&row, merged)
	if err != nil {
		return nil, err
	}
	tree, err := r.shareCode(file, merged, config)
	if err != nil {
		return nil, err
	}
	// A "#" value that is nothing but a placeholder is plain once it is filled
	// in: whoever fills it in answers for it.
	filled := map[string]bool{}
	walkSecrets(tree, "", func(path string, value *Value) {
		filled[path] = placeholder.MatchString(value.Text)
	})
	hidden := secretTexts(r.Vault)
	if tree, err = fillVault(file, tree, r.Vault); err != nil {
		return nil, err
	}
	if tree, err = r.fillVariables(file, tree, config); err != nil {
		return nil, hide(err, hidden)
	}
	out := &Resolved{Row: row.ID}
	tree, out.Secrets, err = unseal(r.Unsealer, tree, "", filled)
	if err != nil {
		return nil, hide(c.inFiles(err, &row), hidden)
	}
	if out.Config, err = ParseConfig(file, tree); err != nil {
		return nil, hide(err, append(hidden, out.Secrets...))
	}
	if err := r.authorize(out); err != nil {
		return nil, err
	}
	if err := r.imageParameters(file, out); err != nil {
		return nil, err
	}
	for _, s := range r.VaultSecrets {
		if s != "" {
			out.Secrets = append(out.Secrets, s)
		}
	}
	slices.Sort(out.Secrets)
	out.Secrets = slices.Compact(out.Secrets)
	return out, nil
}

// Check reports everything that is wrong with a configuration and all its rows
// that can be seen without variables and keys. Errors: Problems.
func (c *Configuration) Check() error {
	var wrong Problems
	seen := map[string]bool{}
	add := func(err error) error {
		found, ok := err.(Problems)
		if err != nil && !ok {
			return err
		}
		for _, p := range found {
			if !seen[p.String()] {
				seen[p.String()] = true
				wrong = append(wrong, p)
			}
		}
		return nil
	}
	rows := c.Rows
	if len(rows) == 0 {
		rows = []Row{{Data: NewObject(), File: c.File}}
	}
	for i := range rows {
		merged, err := c.merged(&rows[i])
		if err == nil {
			_, err = c.parse(&rows[i], merged)
		}
		if err := add(err); err != nil {
			return err
		}
	}
	if len(wrong) > 0 {
		return wrong
	}
	return nil
}

// parse checks a configuration that a row is merged into. Its problems name the
// file that they are in.
func (c *Configuration) parse(row *Row, merged *Value) (*Config, error) {
	config, err := ParseConfig(row.File, merged)
	found, ok := err.(Problems)
	if !ok || row.File == c.File {
		return config, err
	}
	_, own := ParseConfig(c.File, c.Data)
	mine, _ := own.(Problems)
	for i, p := range found {
		for _, m := range mine {
			if m.Path == p.Path && m.Message == p.Message {
				found[i] = m
			}
		}
	}
	return nil, found
}

// inFiles names the file of problems with "#" values: the row's where the row
// has the value.
func (c *Configuration) inFiles(err error, row *Row) error {
	found, ok := err.(Problems)
	if !ok {
		return err
	}
	rows := map[string]bool{}
	walkSecrets(row.Data, "", func(path string, _ *Value) { rows[path] = true })
	for i := range found {
		if found[i].File = c.File; rows[found[i].Path] {
			found[i].File = row.File
		}
	}
	return found
}

// inFile names the file of problems that name none.
func inFile(err error, file string) error {
	found, ok := err.(Problems)
	if !ok {
		return err
	}
	for i := range found {
		if found[i].File == "" {
			found[i].File = file
		}
	}
	return found
}

// leastHidden is how long a value must be to be hidden: shorter ones would
// wreck the text around them.
const leastHidden = 4

func secretTexts(values map[string]string) []string {
	var out []string
	for _, v := range values {
		out = append(out, v)
	}
	return out
}

// hide takes secrets out of the messages of problems.
func hide(err error, secrets []string) error {
	found, ok := err.(Problems)
	if !ok {
		return err
	}
	for i := range found {
		for _, s := range secrets {
			if len(s) < leastHidden {
				continue
			}
			shown, _ := json.Marshal(s) // never an error
			for _, form := range []string{s, string(shown[1 : len(shown)-1]), clip(s)} {
				found[i].Message = strings.ReplaceAll(found[i].Message, form, "[hidden]")
				found[i].Path = strings.ReplaceAll(found[i].Path, form, "[hidden]")
			}
		}
	}
	return found
}

// shareCode puts shared code into tree.
func (r *Resolver) shareCode(file string, tree *Value, config *Config) (*Value, error) {
	if config.SharedCodeID == "" || len(config.SharedCodeRowIDs) == 0 {
		return tree, nil
	}
	shared, err := r.Library.read("shared_code", "shared code", config.SharedCodeID, sharedCodeType())
	if err != nil {
		return nil, err
	}
	code := map[string][]*Value{}
	var missing []string
	for _, id := range config.SharedCodeRowIDs {
		content := shared.Get(id, "code_content")
		switch {
		case content == nil:
			missing = append(missing, id)
		case content.Kind == List:
			code[id] = content.Items
		default:
			code[id] = []*Value{content}
		}
	}
	if len(missing) > 0 {
		return nil, problem(file, "shared_code_row_ids", fmt.Sprintf("the shared code %q has no %s", clip(config.SharedCodeID), quoted(missing)))
	}
	return shareCode(tree, code), nil
}

// fillVariables puts the values of variables into tree.
func (r *Resolver) fillVariables(file string, tree *Value, config *Config) (*Value, error) {
	if len(r.Variables) > 0 && r.VariableValuesID != "" {
		return nil, problem(file, "", "values of variables and the id of such values are given; give one of the two")
	}
	if config.VariablesID == "" {
		if len(r.Variables) > 0 || r.VariableValuesID != "" {
			return nil, problem(file, "variables_id", "is missing, so that the variables that are given would have no effect")
		}
		return tree, nil
	}
	defined, err := r.Library.read("variables", "variables", config.VariablesID, variablesType())
	if err != nil {
		return nil, err
	}
	values, err := r.values(file, config, defined)
	if err != nil {
		return nil, err
	}
	var missing []string
	if list := defined.Get("variables"); list != nil {
		for _, v := range list.Items {
			name := scalarText(v.Get("name"))
			if _, ok := values[name]; !ok {
				missing = append(missing, name)
			}
		}
	}
	if len(missing) > 0 {
		return nil, problem(file, "variables_id", "there is no value for the variables "+quoted(missing))
	}
	return fillTemplate(file, tree, values)
}

// values returns the values of this run's variables.
func (r *Resolver) values(file string, config *Config, defined *Value) (map[string]string, error) {
	if len(r.Variables) > 0 {
		return r.Variables, nil
	}
	id := r.VariableValuesID
	if id == "" {
		id = config.VariableValuesID
	}
	if id == "" {
		return nil, problem(file, "variables_id", fmt.Sprintf("there are no values for the variables %q: give them, or name them in \"variables_values_id\"",
			clip(config.VariablesID)))
	}
	set := defined.Get("values", id)
	if set == nil {
		return nil, problem(file, "variables_values_id", fmt.Sprintf("the variables %q have no values %q", clip(config.VariablesID), clip(id)))
	}
	values := make(map[string]string, len(set.Members))
	for _, m := range set.Members {
		values[m.Key] = scalarText(m.Value)
	}
	return values, nil
}

// authorize fetches OAuth credentials.
func (r *Resolver) authorize(out *Resolved) error {
	a := &out.Config.Authorization
	if a.OAuthCredentials != nil || a.OAuthID == "" {
		return nil
	}
	if r.Credentials == nil {
		return &caisson.Error{
			Op: caisson.OpValidate, Item: "authorization.oauth_api.id", Kind: caisson.ErrNotFound,
			Err: fmt.Errorf("there is no store of credentials; set [component] credentials"),
		}
	}
	credentials, err := r.Credentials(a.OAuthID)
	if err != nil {
		return err
	}
	out.Config.setCredentials(credentials)
	out.Secrets = append(out.Secrets, Secrets(credentials)...)
	return nil
}

// imageParameters unseals the definition's parameters and refuses a
// configuration that uses their secrets as its own.
func (r *Resolver) imageParameters(file string, out *Resolved) error {
	out.ImageParameters = NewObject()
	if r.Definition == nil {
		return nil
	}
	plain, secrets, err := unseal(r.Unsealer, r.Definition.ImageParameters, "image_parameters", nil)
	if err != nil {
		return Application(inFile(err, r.Definition.ID))
	}
	var wrong Problems
	tree := out.Config.tree.Clone()
	tree.Remove("image_parameters")
	walkSecrets(tree, "", func(path string, value *Value) {
		if value.Text != "" && slices.Contains(secrets, value.Text) {
			wrong = append(wrong, Problem{File: file, Path: path, Message: "is a secret of the component itself, which configurations can't use"})
		}
	})
	if len(wrong) > 0 {
		return wrong
	}
	out.ImageParameters = plain
	out.Secrets = append(out.Secrets, secrets...)
	return nil
}
