// Package config reads Caisson's configuration: caisson.toml files, CAISSON_*
// variables and flags, in rising order of precedence, checked against one
// table of keys.
package config

import (
	"encoding/json"

	"github.com/caissonrun/caisson"
)

// A Config is the effective configuration, defaults filled in.
type Config struct {
	State    string   `json:"state"`   // the state folder, absolute
	Runtime  string   `json:"runtime"` // the folder of sockets and secrets, absolute
	Executor Executor `json:"executor"`
	Engine   Engine   `json:"engine"`
	Mount    Mount    `json:"mount"`
	Stage    Stage    `json:"stage"`
	// Sections holds, by its dotted name, each section of Options.Sections that
	// was configured, as JSON.
	Sections map[string]json.RawMessage `json:"-"`
}

// Executor is the section [executor].
type Executor struct {
	Prefer   []string      `json:"prefer"`    // engine names, most wanted first
	LogLimit caisson.Bytes `json:"log_limit"` // of a log where the task sets none; 0: none
}

// Engine is the section [engine].
type Engine struct {
	Native Native `json:"native"`
}

// Native is the section [engine.native].
type Native struct {
	Shell            []string `json:"shell"`              // argv that a script is appended to; empty: bash -c or sh -c
	UID              int      `json:"uid"`                // inside, where the task asks for no user
	GID              int      `json:"gid"`                //
	IDBase           uint32   `json:"id_base"`            // first host id given to sandboxes
	IDCount          uint32   `json:"id_count"`           // how many host ids
	Isolation        string   `json:"isolation"`          // full or none
	Paths            []string `json:"paths"`              // host paths that every sandbox sees read-only
	AllowNone        bool     `json:"allow_none"`         // tasks may ask for isolation none
	AllowHostNetwork bool     `json:"allow_host_network"` // tasks may ask for network host
}

// Mount is the section [mount].
type Mount struct {
	Bind MountBind `json:"bind"`
}

// MountBind is the section [mount.bind].
type MountBind struct {
	Allow []string `json:"allow"` // folders that binds of tasks may lie in
}

// Stage is the section [stage].
type Stage struct {
	File StageFile `json:"file"`
	HTTP StageHTTP `json:"http"`
	Git  StageGit  `json:"git"`
}

// StageFile is the section [stage.file].
type StageFile struct {
	Allow []string `json:"allow"` // folders that file: inputs and outputs may lie in
}

// StageHTTP is the section [stage.http].
type StageHTTP struct {
	AllowPrivate []string         `json:"allow_private"` // host names, addresses and CIDR ranges
	MaxSize      caisson.Bytes    `json:"max_size"`
	Timeout      caisson.Duration `json:"timeout"`
}

// StageGit is the section [stage.git].
type StageGit struct {
	AllowPrivate []string         `json:"allow_private"`
	Timeout      caisson.Duration `json:"timeout"`
}

// Options says where the configuration comes from. The zero value reads the
// usual files and the process's environment.
type Options struct {
	// File is the one file to read, instead of the usual ones. Empty:
	// CAISSON_CONFIG, or the usual ones.
	File string
	// Flags are settings of the command line by dotted key, such as
	// "engine.native.shell", in the same text form as in variables.
	Flags map[string]string
	// Environ is the environment; nil: os.Environ().
	Environ []string
	// Sections are those of the embedding program, by dotted name such as
	// "engine.docker".
	Sections map[string]*Section
}

// A Section is a part of the configuration that only its owner knows.
type Section struct {
	// Schema is the JSON Schema of the section: an object whose top level
	// properties are its keys. Values of a key marked writeOnly are never shown.
	Schema json.RawMessage
}

// Load reads the configuration.
//
// Errors: Problems, of kind ErrInvalid, with everything that is wrong;
// ErrNotFound if the file that was asked for does not exist; ErrDenied if a file
// can't be read or could have been written by somebody else.
func Load(opts *Options) (*Config, error) { panic("todo") }

// Schema returns the JSON Schema (draft 2020-12) of caisson.toml.
func Schema(sections map[string]*Section) []byte { panic("todo") }

// A Setting is one key with its effective value and where that came from.
type Setting struct {
	Key    string `json:"key"`    // dotted
	Value  string `json:"value"`  // as TOML; hidden for secrets
	Origin string `json:"origin"` // "default", "FILE:LINE", a variable's name, or "flag"
}

// Show returns every setting in the order of the keys' table.
func (c *Config) Show() []Setting { panic("todo") }
