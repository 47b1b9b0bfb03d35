package component

// A Configuration is one use of a component, with its rows, as it is kept in
// files: nothing is resolved, and "#" values are sealed.
type Configuration struct {
	ID        string // empty: it has none
	Name      string
	Version   string
	Component string // its id in the registry; empty: the caller knows
	Data      *Value // an object
	Rows      []Row
	Dir       string // the folder of the file: what relative paths start at
}

// A Row is a part of a configuration that runs by itself. Its data is put over
// the configuration's.
type Row struct {
	ID       string
	Name     string
	Disabled bool
	Data     *Value // an object
}

// ReadConfiguration reads a configuration from a file or a folder. Errors:
// ErrNotFound, Problems.
func ReadConfiguration(path string) (*Configuration, error) { return nil, errTodo }

// Select returns the rows to be run, in the order of the configuration: all
// that are not disabled, or those named, disabled or not. A configuration
// without rows has one, whose ID is empty. Skipped are the ids of disabled rows
// that are not run, forced those that are. Errors: ErrNotFound for a name that
// no row has.
func (c *Configuration) Select(names []string) (rows []Row, skipped, forced []string, err error) {
	return nil, nil, nil, errTodo
}

// Unsealer opens sealed values.
type Unsealer interface {
	// Unseal returns the plain text of the value at path. Errors never repeat
	// the value.
	Unseal(path, sealed string) (string, error)
}

// A Resolver makes Configs of Configurations. Its fields may be nil.
type Resolver struct {
	Definition *Definition
	Library    *Library          // variables and shared code
	Unsealer   Unsealer          // nil: a configuration with "#" values is an error
	Vault      map[string]string // what {{ vault.NAME }} stands for
	// Credentials returns OAuth credentials by id.
	Credentials func(id string) (*Value, error)
	// Variables are given for this run; they win over the configuration's.
	// VariableValuesID names a set of values. Both is an error.
	Variables        map[string]*Value
	VariableValuesID string
	// Lenient takes unknown keys, with a warning each.
	Lenient bool
}

// A Resolved is a configuration with a row, ready to be run.
type Resolved struct {
	Config   *Config
	Row      Row
	Secrets  []string // every plain value under a "#" key, of image parameters too, not empty
	Warnings []string
}

// Resolve merges a row into a configuration, puts in shared code, vault and
// variables, unseals, and checks the whole, in this order. Errors: Problems and
// others of kind ErrInvalid.
func (r *Resolver) Resolve(c *Configuration, row Row) (*Resolved, error) { return nil, errTodo }

// Library is a folder of variables (variables/ID.json) and shared code
// (shared_code/ID.json).
type Library struct{ Dir string }

// FileOptions is what goes into config.json beside the configuration.
type FileOptions struct {
	Definition *Definition // of the image that is run: a processor's own
	Action     string      // empty: run
	// ImageParameters are the definition's, unsealed; nil: none.
	ImageParameters *Value
}

// File returns what the main component's config.json holds, in the order of the
// reference.
func (c *Config) File(o *FileOptions) *Value { return nil }

// ProcessorFile returns what a processor's config.json holds.
func ProcessorFile(p *Processor, o *FileOptions) *Value { return nil }
