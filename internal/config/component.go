package config

import (
	"path/filepath"

	"github.com/caissonrun/caisson/internal/fields"
)

// Component is the section [component].
type Component struct {
	Registry      []string `json:"registry"`              // folders of definitions
	Storage       string   `json:"storage"`               // URL or folder; empty: beside the configuration
	KeyFile       string   `json:"key_file"`              // age identities, one a line
	Credentials   string   `json:"credentials,omitempty"` // file of OAuth credentials
	Vault         string   `json:"vault,omitempty"`       // file of values
	Library       string   `json:"library,omitempty"`     // folder of variables and shared code
	StrictMapping bool     `json:"strict_mapping"`        // what nothing maps is refused
	Project       string   `json:"project"`               // its id
	ProjectName   string   `json:"project_name"`          // its name
	Stack         string   `json:"stack"`                 // the host that components think they run on
	Branch        string   `json:"branch"`                // empty: components are told of none
	User          string   `json:"user"`                  // who runs components
	TokenFile     string   `json:"token_file,omitempty"`  // the token that components may ask for
	URL           string   `json:"url,omitempty"`         // that goes with it
	TokenID       string   `json:"token_id"`              // what components that ask for it are told
	TokenName     string   `json:"token_name"`            // the same
	Features      []string `json:"features"`              // of the project
	FileProvider  string   `json:"file_provider"`         // aws or azure
	Limits        bool     `json:"limits"`                // memory and processors of definitions are limits
	// MemoryLimits are the project's own limits of components' memory, in
	// megabytes, by component.
	MemoryLimits   map[string]int `json:"memory_limits,omitempty"`
	PHPEmptyArrays bool           `json:"php_empty_arrays"` // nested {} is written as []
}

// Keys returns the path of the key file, which lies in the state folder where
// nothing else is configured.
func (c *Component) Keys(state string) string {
	if c.KeyFile != "" {
		return c.KeyFile
	}
	return filepath.Join(state, "component.key")
}

func defaultComponent() Component {
	return Component{Project: "1", ProjectName: "caisson", Stack: "localhost", FileProvider: "aws", Limits: true}
}

func componentSection() *fields.Type {
	text := func(want string) *fields.Type { return &fields.Type{Form: fields.Text, Want: want} }
	return section("settings of data components",
		fields.Field{
			Name: "registry", Type: list(folder()), Default: "none", Also: []string{"registries"}, Examples: []any{[]any{"/etc/caisson/components"}},
			Doc: "Folders of component definitions. Only a definition in one of them may have the feature `container-root-user`.",
		},
		fields.Field{
			Name: "storage", Type: text("a URL or a folder"), Default: "the folder `storage` beside the configuration",
			Examples: []any{"postgres:///data"}, Doc: "Where tables and files are that a run names no storage for.",
		},
		fields.Field{
			Name: "key_file", Type: folder(), Default: "`component.key` in the state folder", Also: []string{"keys", "key"},
			Examples: []any{"/etc/caisson/component.key"},
			Doc:      "The file of age identities, one a line, that open sealed `#` values; the first one seals. It is made when a value is sealed first.",
		},
		fields.Field{
			Name: "credentials", Type: folder(), Default: "none", Also: []string{"oauth"}, Examples: []any{"/etc/caisson/credentials.yaml"},
			Doc: "The file of OAuth credentials by id, with sealed `#` values, that configurations name.",
		},
		fields.Field{
			Name: "vault", Type: folder(), Default: "none", Examples: []any{"/etc/caisson/vault.yaml"},
			Doc: "The file of values that `{{ vault.NAME }}` stands for; a name that begins with `#` has a sealed one.",
		},
		fields.Field{
			Name: "library", Type: folder(), Default: "the configuration's folder",
			Doc: "The folder of `variables` and `shared_code`.",
		},
		fields.Field{
			Name: "strict_mapping", Type: toggle(), Default: "false",
			Doc: "Refuses what a component leaves in its output folder and nothing maps.",
		},
		fields.Field{Name: "project", Type: text("an id"), Default: "1", Doc: "The project's id: `KBC_PROJECTID`, and the scope of sealed values."},
		fields.Field{Name: "project_name", Type: text("a name"), Default: "caisson", Doc: "The project's name: `KBC_PROJECTNAME`."},
		fields.Field{Name: "stack", Type: text("a host's name"), Default: "localhost", Doc: "What components are told that they run on: `KBC_STACKID`."},
		fields.Field{Name: "branch", Type: text("an id"), Default: "none", Doc: "The branch's id: `KBC_BRANCHID`."},
		fields.Field{Name: "user", Type: text("a name"), Default: "none", Doc: "Who runs components: `KBC_REALUSER`."},
		fields.Field{
			Name: "token_file", Type: folder(), Default: "none", Examples: []any{"/etc/caisson/component.token"},
			Doc: "The file with the token that components with `forward_token` in the operator's `registry` are given: `KBC_TOKEN`. Its value is hidden in logs.",
		},
		fields.Field{Name: "url", Type: text("a URL"), Default: "none", Doc: "Where that token is good: `KBC_URL`, for components with `forward_token`."},
		fields.Field{Name: "token_id", Type: text("an id"), Default: "none", Doc: "`KBC_TOKENID` for components with `forward_token_details`."},
		fields.Field{Name: "token_name", Type: text("a name"), Default: "none", Doc: "`KBC_TOKENDESC` for components with `forward_token_details`."},
		fields.Field{
			Name: "features", Type: list(text("a feature's name")), Default: "none",
			Doc: "The project's features: `KBC_PROJECT_FEATURE_GATES`, beside `queuev2`.",
		},
		fields.Field{
			Name: "file_provider", Type: &fields.Type{Form: fields.Text, Enum: []string{"aws", "azure", "gcp"}}, Default: "aws",
			Doc: "`KBC_STAGING_FILE_PROVIDER`.",
		},
		fields.Field{
			Name: "limits", Type: toggle(), Default: "true",
			Doc: "Memory and processors of definitions are limits: a host that can't enforce them refuses the run. Without it they are not asked for.",
		},
		fields.Field{
			Name: "memory_limits", Default: "none", Examples: []any{map[string]any{"example.join": 2000}},
			Type: &fields.Type{Form: fields.Table, Want: "a number of megabytes for each component", Elem: whole("a number of megabytes, 1 to 64000", 1, 64000)},
			Doc:  "What components may use in place of what their definitions say, by component, in megabytes. The size that a configuration asks for does not change it.",
		},
		fields.Field{
			Name: "php_empty_arrays", Type: toggle(), Default: "false",
			Doc: "Writes empty objects inside of `parameters` as `[]` into `config.json`, as components may expect that were written for PHP's runner.",
		},
	)
}
