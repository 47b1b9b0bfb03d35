// Package tork translates the configuration of a Tork worker to Caisson's: what
// concerns the running of tasks, which are [runtime], [mounts] and [mounter.*]
// and their variables. What has no counterpart is named and not guessed.
package tork

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/caissonrun/caisson"
)

// mounterTable is Tork's table of the settings of custom mounters.
const mounterTable = "mounter"

// A Result is a translated configuration.
type Result struct {
	// TOML is the text of a caisson.toml.
	TOML string
	// Notes are the settings that were not taken over, or not as they were.
	Notes []Note
}

// A Note is about one setting.
type Note struct {
	Key  string // Tork's dotted key
	From string // the variable that it came from; empty: the file
	Text string // what became of it and what to do
}

// String returns the note on one line.
func (n Note) String() string {
	if n.From != "" {
		return n.From + ": " + n.Text
	}
	return n.Key + ": " + n.Text
}

// Options says what is known about the program that will read the result.
type Options struct {
	// Environ holds TORK_* variables, NAME=value, which win over the file.
	Environ []string
	// Sections are the dotted names of sections that only that program knows,
	// such as "mounter.mymounter".
	Sections []string
}

// Convert translates the text of a Tork configuration file. Nil opts mean no
// variables and no sections.
//
// Errors: ErrInvalid if it is not TOML.
func Convert(text []byte, opts *Options) (*Result, error) {
	if opts == nil {
		opts = &Options{}
	}
	var tree map[string]any
	if err := toml.Unmarshal(text, &tree); err != nil {
		return nil, invalid(err)
	}
	c := &converter{opts: opts, given: map[string]setting{}, sections: map[string]map[string]any{}, mounter: map[string]any{}}
	if mounter, ok := tree[mounterTable].(map[string]any); ok {
		c.mounter = mounter
		delete(tree, mounterTable)
	}
	c.flatten("", tree)
	c.variables()
	c.convert()
	return &Result{TOML: c.render(), Notes: c.notes}, nil
}

func invalid(err error) error {
	text := strings.TrimPrefix(err.Error(), "toml: ")
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, column := decode.Position()
		text = fmt.Sprintf("line %d, column %d: %s", line, column, text)
	}
	return &caisson.Error{Op: caisson.OpConfig, Kind: caisson.ErrInvalid, Err: fmt.Errorf("not valid TOML: %s", text)}
}

// A setting is a value of Tork's with where it came from.
type setting struct {
	value any
	from  string // a variable's name, or empty
}

// converter is one call of Convert.
type converter struct {
	opts  *Options
	given map[string]setting // by Tork's dotted key
	kind  string             // of runtime
	// sections are what was made, by Caisson's dotted name of a section.
	sections map[string]map[string]any
	mounter  map[string]any // the tables of custom mounters as they are
	tail     []string       // the text of what is taken over as it is
	notes    []Note
}

// flatten lists the settings of the file by dotted key.
func (c *converter) flatten(path string, tree map[string]any) {
	for key, value := range tree {
		if path != "" {
			key = path + "." + key
		}
		if below, ok := value.(map[string]any); ok {
			c.flatten(key, below)
			continue
		}
		c.given[key] = setting{value: value}
	}
}

// variables puts those of the environment over the settings of the file, as
// Tork does: without TORK_, in small letters, and each _ is a dot.
func (c *converter) variables() {
	for _, entry := range c.opts.Environ {
		name, value, _ := strings.Cut(entry, "=")
		rest, ok := strings.CutPrefix(name, "TORK_")
		if !ok || name == "TORK_CONFIG" {
			continue
		}
		key := strings.ReplaceAll(strings.ToLower(rest), "_", ".")
		if path, ok := strings.CutPrefix(key, mounterTable+"."); ok {
			store(c.mounter, strings.Split(path, "."), value)
		}
		if strings.HasPrefix(key, "runtime.") || strings.HasPrefix(key, "mounts.") {
			c.given[key] = setting{value: value, from: name}
		}
	}
}

// store puts a value at its place among tables.
func store(tree map[string]any, path []string, value any) {
	for _, part := range path[:len(path)-1] {
		below, ok := tree[part].(map[string]any)
		if !ok {
			below = map[string]any{}
			tree[part] = below
		}
		tree = below
	}
	tree[path[len(path)-1]] = value
}

// take returns a setting and forgets it.
func (c *converter) take(key string) (setting, bool) {
	s, ok := c.given[key]
	delete(c.given, key)
	return s, ok
}

func (c *converter) set(section, key string, value any) {
	if c.sections[section] == nil {
		c.sections[section] = map[string]any{}
	}
	c.sections[section][key] = value
}

func (c *converter) note(key string, s setting, format string, args ...any) {
	c.notes = append(c.notes, Note{Key: key, From: s.from, Text: fmt.Sprintf(format, args...)})
}

// convert goes through everything that is given. Whatever no part of it takes
// is named at the end.
func (c *converter) convert() {
	c.runtime()
	c.shell()
	c.docker()
	c.podman()
	c.sandbox()
	c.binds()
	c.mounters()
	c.rest()
}

// render writes the sections in the order of their names.
func (c *converter) render() string {
	var b strings.Builder
	b.WriteString("# Made of a Tork configuration by caisson config import tork.\n")
	for _, name := range slices.Sorted(maps.Keys(c.sections)) {
		fmt.Fprintf(&b, "\n[%s]\n%s", name, asTOML(c.sections[name]))
	}
	for _, text := range c.tail {
		b.WriteString("\n" + text)
	}
	return b.String()
}

// asTOML writes plain values, sorted by key.
func asTOML(values map[string]any) string {
	data, err := toml.Marshal(values)
	if err != nil {
		panic("caisson: bug: " + err.Error()) // what was read can be written
	}
	return string(data)
}
