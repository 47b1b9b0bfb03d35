// Package config reads Caisson's configuration: caisson.toml files, CAISSON_*
// variables and flags, each overriding those before it, setting by setting.
// All of them are checked against one table of settings, of which the JSON
// Schema and the tables of docs/configuration.md are made too.
//
// Files are ./caisson.toml, $XDG_CONFIG_HOME/caisson/caisson.toml and
// /etc/caisson/caisson.toml; a setting of a nearer one wins, lists are not
// joined. A variable's name is CAISSON_ and the setting's key in capitals with
// each dot as _: engine.native.allow_none is CAISSON_ENGINE_NATIVE_ALLOW_NONE.
// It is found by comparing whole names, so that keys with _ are not special.
package config

import (
	"encoding/json"
	"os"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// A Config is the effective configuration, defaults filled in.
type Config struct {
	State    string   `json:"state"`   // the state folder, absolute
	Runtime  string   `json:"runtime"` // the folder of sockets and secrets, absolute
	Executor Executor `json:"executor"`
	Engine   Engine   `json:"engine"`
	Image    Image    `json:"image"`
	Mount    Mount    `json:"mount"`
	Stage    Stage    `json:"stage"`
	// Proxies are the sections [proxy.NAME], by name.
	Proxies map[string]Proxy `json:"proxy,omitempty"`
	// Networks are the sections [network.NAME], by name.
	Networks map[string]Network `json:"network,omitempty"`
	// Warm are the sections [warm.NAME], by name.
	Warm map[string]Warm `json:"warm,omitempty"`
	// Component is the section [component].
	Component Component `json:"component"`
	// Sections holds, by its dotted name, each section of Options.Sections that
	// was configured, as a JSON object.
	Sections map[string]json.RawMessage `json:"-"`
	// Files are the files that were read, absolute, nearest first.
	Files []string `json:"-"`

	settings []Setting
}

// FileList returns what Options.File has to be for another process to read the
// same files, from wherever it is started.
func (c *Config) FileList() string {
	if len(c.Files) == 0 {
		return os.DevNull
	}
	return strings.Join(c.Files, string(os.PathListSeparator))
}

// Executor is the section [executor].
type Executor struct {
	// Prefer lists engine names, most wanted first. Empty: Caisson's own order.
	Prefer []string `json:"prefer"`
	// LogLimit bounds the log of a step where the task sets no limit; 0: none.
	LogLimit caisson.Bytes `json:"log_limit"`
}

// Engine is the section [engine].
type Engine struct {
	Native Native `json:"native"`
	OCI    OCI    `json:"oci"`
	Docker Docker `json:"docker"`
	Qemu   Qemu   `json:"qemu"`
	Wasm   Wasm   `json:"wasm"`
	Script Script `json:"script"`
}

// Native is the section [engine.native].
type Native struct {
	Shell            []string `json:"shell"`              // argv that a script is appended to; empty: bash -c or sh -c
	UID              int      `json:"uid,omitempty"`      // of programs where the task names no user; 0: the engine's default
	GID              int      `json:"gid,omitempty"`      // that user's group; 0: the engine's default
	IDBase           uint32   `json:"id_base"`            // first id of the host for sandboxes
	IDCount          uint32   `json:"id_count"`           // how many ids of the host
	Isolation        string   `json:"isolation"`          // full or none
	Paths            []string `json:"paths"`              // of the host, that every sandbox sees read-only
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
}

// StageFile is the section [stage.file].
type StageFile struct {
	Allow []string `json:"allow"` // folders that file: inputs and outputs may lie in
}

// StageHTTP is the section [stage.http].
type StageHTTP struct {
	AllowPrivate bool `json:"allow_private"` // inputs may come from private addresses
}

// Options says where the configuration comes from. The zero value reads the
// usual files and the process's environment.
type Options struct {
	// File is what to read instead of the usual files: one path, or several
	// separated as in PATH, nearest first. Empty: CAISSON_CONFIG, or else the
	// usual files. Who a file named here belongs to is not checked.
	File string
	// Flags are settings of the command line by dotted key, such as
	// "engine.native.shell", in the same text form as in variables.
	Flags map[string]string
	// Environ is the environment; nil: os.Environ().
	Environ []string
	// Sections are those of the embedding program, by dotted name such as
	// "engine.docker".
	Sections map[string]*Section
	// Dir is where ./caisson.toml is looked for and relative paths of variables
	// and flags start. Empty: the current folder.
	Dir string
	// System is the folder of the host's file. Empty: /etc/caisson.
	System string
}

// A Section is a part of the configuration that only its owner knows.
type Section struct {
	// Schema is the JSON Schema of the section, an object. See
	// fields.FromSchema for the keywords that it may have; keys that it does
	// not name are refused, and values of keys with writeOnly are never shown.
	Schema json.RawMessage
}

// A Problem is one thing that is wrong with the configuration.
type Problem = fields.Problem

// Problems is all that is wrong with the configuration. It is an error of kind
// caisson.ErrInvalid, and of a type of its own: front doors tell it from what is
// wrong with a task's document.
type Problems fields.Problems

// Error returns one line for each problem.
func (p Problems) Error() string { return fields.Problems(p).Error() }

// Is reports whether target is caisson.ErrInvalid.
func (p Problems) Is(target error) bool { return fields.Problems(p).Is(target) }

// As sets a target of type *caisson.Kind, so that caisson.KindOf knows the kind.
func (p Problems) As(target any) bool { return fields.Problems(p).As(target) }
