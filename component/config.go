package component

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/caissonrun/caisson"
)

// Config is a configuration (with its row merged in), checked, with defaults
// filled in.
type Config struct {
	Parameters       *Value // an object or list; never nil
	ImageParameters  *Value // what the user gave; overwritten by the definition's
	Storage          StorageConfig
	Processors       Processors
	Runtime          Runtime
	Authorization    Authorization
	Action           string // "run" where it is not given
	VariablesID      string
	VariableValuesID string
	SharedCodeID     string
	SharedCodeRowIDs []string
	Artifacts        Artifacts

	tree *Value // as it was written, defaults added: what config.json is made of
}

// Runtime is what a configuration changes of how its component is run.
type Runtime struct {
	Tag            string // of the image; wins over ImageTag
	ImageTag       string
	Safe           bool
	ProcessTimeout time.Duration // of the main program; 0: the definition's
	BackendType    string        // "", "xsmall", "small", "medium" or "large"
	BackendContext string
	Parallelism    string // "", "2" to "100" or "infinity"
	All            *Value // as it was written; an object, never nil
}

// Authorization is where a component's credentials come from.
type Authorization struct {
	OAuthID          string // of the local store; of use where OAuthCredentials is nil
	OAuthCredentials *Value
	AppProxy         *Value
}

// Artifacts says which artifacts of earlier runs a component is given and what
// becomes of its own.
type Artifacts struct {
	NoZip  bool // they are kept as files, not as an archive
	Runs   ArtifactChoice
	Custom ArtifactChoice
	Shared ArtifactChoice
}

// ArtifactChoice chooses artifacts of earlier runs.
type ArtifactChoice struct {
	Enabled     bool
	ComponentID string
	ConfigID    string
	BranchID    string
	DateSince   string
	Limit       int // 0: none
}

// ParseConfig checks a configuration and fills in defaults. File is what errors
// call it. Errors: Problems.
func ParseConfig(file string, v *Value) (*Config, error) {
	if v == nil {
		v = NewObject()
	}
	tree, err := check(file, v, configType())
	if err != nil {
		return nil, err
	}
	settle(tree)
	c := &Config{tree: tree, Action: "run"}
	c.Parameters, c.ImageParameters = objectOrList(tree.Get("parameters")), objectOrList(tree.Get("image_parameters"))
	c.VariablesID, c.VariableValuesID = scalarText(tree.Get("variables_id")), scalarText(tree.Get("variables_values_id"))
	c.SharedCodeID, c.SharedCodeRowIDs = scalarText(tree.Get("shared_code_id")), texts(tree.Get("shared_code_row_ids"))
	if action := scalarText(tree.Get("action")); action != "" {
		c.Action = action
	}
	if err := c.readStorage(); err != nil {
		return nil, err
	}
	c.Processors = Processors{Before: processors(tree.Get("processors", "before")), After: processors(tree.Get("processors", "after"))}
	c.readRuntime()
	c.readAuthorization()
	c.readArtifacts()
	return c, nil
}

// objectOrList returns v, or an empty object where v is nothing.
func objectOrList(v *Value) *Value {
	if v.IsEmpty() {
		return NewObject()
	}
	return v
}

// texts returns the texts of a list of single values.
func texts(v *Value) []string {
	out := []string{}
	if v != nil {
		for _, item := range v.Items {
			out = append(out, scalarText(item))
		}
	}
	return out
}

// settle changes what the reference changes of values that are right.
func settle(tree *Value) {
	each := func(f func(item *Value), path ...string) {
		if list := tree.Get(path...); list != nil {
			for _, item := range list.Items {
				f(item)
			}
		}
	}
	equal := func(key string) func(item *Value) {
		return func(item *Value) {
			if v := item.Get(key); v != nil && scalarText(v) == "" {
				item.Set(key, NewString("eq"))
			}
		}
	}
	each(equal("where_operator"), "storage", "input", "tables")
	each(equal("delete_where_operator"), "storage", "output", "tables")
	each(func(table *Value) {
		if v := table.Get("column_metadata"); v.IsEmpty() {
			table.Set("column_metadata", NewList()) // as the reference writes it
		}
	}, "storage", "output", "tables")
	each(func(table *Value) {
		if v := table.Get("days"); v != nil && v.Kind == Null {
			table.Set("days", &Value{Kind: Number, Text: "0"})
		}
		if v := table.Get("changed_since"); v != nil && v.Kind == Null {
			table.Set("changed_since", NewString(""))
		}
	}, "storage", "input", "tables")
	each(func(file *Value) {
		for _, key := range []string{"tags", "query", "processed_tags", "file_ids"} {
			if v := file.Get(key); v.IsEmpty() || v.Kind == String && v.Text == "" {
				file.Remove(key)
			}
		}
	}, "storage", "input", "files")
}

func (c *Config) readStorage() error {
	storage := c.tree.Get("storage")
	if storage == nil {
		return nil
	}
	if err := decodeInto(storage, storageType(), &c.Storage); err != nil {
		return err
	}
	for i := range c.Storage.Input.Tables {
		t := &c.Storage.Input.Tables[i]
		if len(t.Columns) == 0 {
			for _, typed := range t.ColumnTypes {
				t.Columns = append(t.Columns, typed.Source)
			}
		}
	}
	tables := storage.Get("output", "tables")
	for i := range c.Storage.Output.Tables {
		c.Storage.Output.Tables[i].tidy(element(tables, i))
	}
	return nil
}

func processors(list *Value) []Processor {
	var out []Processor
	if list != nil {
		for _, p := range list.Items {
			out = append(out, Processor{
				Component:  scalarText(p.Get("definition", "component")),
				Tag:        scalarText(p.Get("definition", "tag")),
				Parameters: objectOrList(p.Get("parameters")),
			})
		}
	}
	return out
}

func (c *Config) readRuntime() {
	r := c.tree.Get("runtime")
	if r == nil {
		r = NewObject()
	}
	seconds, _ := strconv.ParseFloat(scalarText(r.Get("process_timeout")), 64) // checked to be a whole number
	c.Runtime = Runtime{
		Tag: scalarText(r.Get("tag")), ImageTag: scalarText(r.Get("image_tag")),
		Safe:           scalarText(r.Get("safe")) == "true",
		ProcessTimeout: time.Duration(seconds) * time.Second,
		BackendType:    scalarText(r.Get("backend", "type")),
		BackendContext: scalarText(r.Get("backend", "context")),
		Parallelism:    scalarText(r.Get("parallelism")),
		All:            r,
	}
}

func (c *Config) readAuthorization() {
	a := c.tree.Get("authorization")
	c.Authorization = Authorization{OAuthID: scalarText(a.Get("oauth_api", "id"))}
	if v := a.Get("oauth_api", "credentials"); !v.IsEmpty() {
		c.Authorization.OAuthCredentials = v
	}
	if v := a.Get("app_proxy"); !v.IsEmpty() {
		c.Authorization.AppProxy = v
	}
}

func (c *Config) readArtifacts() {
	a := c.tree.Get("artifacts")
	choice := func(v *Value) ArtifactChoice {
		limit, _ := strconv.ParseFloat(scalarText(v.Get("filter", "limit")), 64) // checked to be a whole number
		return ArtifactChoice{
			Enabled:     scalarText(v.Get("enabled")) == "true",
			ComponentID: scalarText(v.Get("filter", "component_id")),
			ConfigID:    scalarText(v.Get("filter", "config_id")),
			BranchID:    scalarText(v.Get("filter", "branch_id")),
			DateSince:   scalarText(v.Get("filter", "date_since")),
			Limit:       int(limit),
		}
	}
	c.Artifacts = Artifacts{
		NoZip: scalarText(a.Get("options", "zip")) == "false",
		Runs:  choice(a.Get("runs")), Custom: choice(a.Get("custom")), Shared: choice(a.Get("shared")),
	}
}

// MarshalJSON implements json.Marshaler: the configuration as it was checked,
// with its secrets.
func (c *Config) MarshalJSON() ([]byte, error) { return c.tree.MarshalJSON() }

// UnmarshalJSON implements json.Unmarshaler for what MarshalJSON wrote.
func (c *Config) UnmarshalJSON(data []byte) error {
	v := &Value{}
	if err := json.Unmarshal(data, v); err != nil {
		return err
	}
	read, err := ParseConfig("", v)
	if err == nil {
		*c = *read
	}
	return err
}

// setCredentials puts OAuth credentials into the configuration.
func (c *Config) setCredentials(credentials *Value) {
	oauth := c.tree.Get("authorization", "oauth_api")
	oauth.Set("credentials", credentials)
	c.Authorization.OAuthCredentials = credentials
}

// Tag returns the tag of the main component's image. Asked is that of this run,
// or "". Empty: the definition's, with its digest.
func (c *Config) Tag(asked string) string {
	for _, tag := range []string{asked, c.Runtime.Tag, c.Runtime.ImageTag} {
		if tag != "" {
			return tag
		}
	}
	return ""
}

// Timeout returns how long the main program of d may run.
func (c *Config) Timeout(d *Definition) time.Duration {
	if c.Runtime.ProcessTimeout > 0 {
		return c.Runtime.ProcessTimeout
	}
	return d.Timeout
}

// backendSizes is what runtime.backend.type does: memory in hundredths of the
// definition's, and whole cores.
var backendSizes = map[string]struct{ memory, cpus int }{
	"xsmall": {50, 1}, "small": {100, 2}, "medium": {200, 4}, "large": {710, 14},
}

// maxMemoryLimit is the most that a project may set as runner.ID.memoryLimitMBs.
const maxMemoryLimit = 64000

// Resources returns the memory and the cores (in thousandths) that the main
// program of d gets. LimitMB is the project's own limit for the component, in
// megabytes; 0: none. It stands in for the definition's and is not scaled.
//
// Errors: ErrInvalid for a limit that is out of range.
func (c *Config) Resources(d *Definition, limitMB int) (memory caisson.Bytes, cpus caisson.CPUs, err error) {
	size, known := backendSizes[c.Runtime.BackendType]
	if !known {
		size = backendSizes["small"]
	}
	if limitMB < 0 || limitMB > maxMemoryLimit {
		return 0, 0, &caisson.Error{
			Op: caisson.OpValidate, Item: "runner." + d.ID + ".memoryLimitMBs", Kind: caisson.ErrInvalid,
			Err: fmt.Errorf("%d is out of range; want 1 to %d megabytes", limitMB, maxMemoryLimit),
		}
	}
	memory = d.Memory * caisson.Bytes(size.memory) / 100
	if limitMB > 0 {
		memory = caisson.Bytes(limitMB) * megabyte
	}
	return memory, caisson.CPUs(size.cpus) * 1000, nil
}
