package source

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	"github.com/caissonrun/caisson/internal/fields"
)

// yaml reads the one YAML document in data.
func (s *sourceReader) yaml(data []byte) *fields.Value {
	// Duplicate keys are found later, all of them. Aliases are not expanded by
	// the loader, which only makes nodes, but here.
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithUniqueKeys(false),
		yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth), loaderlimits.AliasNone())))
	if err != nil {
		s.add(0, 0, "%v", err)
		return nil
	}
	var first, second yaml.Node
	err = loader.Load(&first)
	switch {
	case err == io.EOF || err == nil && empty(&first):
		s.add(0, 0, "%s", cmp.Or(s.options.Empty, "the document is empty"))
		return nil
	case err != nil:
		s.yamlError(err)
		return nil
	}
	switch err := loader.Load(&second); {
	case err == nil:
		s.add(second.Line, second.Column, "a second document begins here; a file holds one %s", cmp.Or(s.options.Second, "document"))
	case err != io.EOF:
		s.yamlError(err)
	}
	r := &yamlReader{sourceReader: s, open: map[*yaml.Node]bool{}}
	return r.value(first.Content[0], 0)
}

func empty(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].ShortTag() == "!!null"
}

func (s *sourceReader) yamlError(err error) {
	var load *yaml.LoadError
	if !errors.As(err, &load) {
		s.add(0, 0, "not valid YAML: %v", err)
		return
	}
	message := load.Message
	if load.ContextMsg != "" {
		message = load.ContextMsg + ": " + message
	}
	if strings.Contains(message, "cannot start any token") {
		message += "; indent with spaces, not tabs, and quote text that begins with @, ` or %"
	}
	s.add(load.Mark.Line, load.Mark.Column, "not valid YAML: %s", message)
}

type yamlReader struct {
	*sourceReader
	open map[*yaml.Node]bool // anchors that are being expanded
}

// value reads a node. One that is of no use is reported and Broken, so that
// everything else can still be checked.
func (r *yamlReader) value(n *yaml.Node, depth int) *fields.Value {
	v := &fields.Value{Kind: fields.Broken, Line: n.Line, Column: n.Column}
	if r.tooLarge || !r.count(n.Line, n.Column, len(n.Value)) {
		return v
	}
	if depth > maxDepth {
		r.add(n.Line, n.Column, "lists and mappings lie more than %d deep in each other", maxDepth)
		r.tooLarge = true
		return v
	}
	switch n.Kind {
	case yaml.AliasNode:
		return r.alias(v, n, depth)
	case yaml.ScalarNode:
		r.scalar(v, n)
	case yaml.SequenceNode:
		if r.tag(n, "!!seq") {
			v.Kind = fields.List
		}
		for _, c := range n.Content {
			v.Items = append(v.Items, r.value(c, depth+1))
		}
	case yaml.MappingNode:
		if r.tag(n, "!!map") {
			v.Kind = fields.Map
		}
		r.mapping(v, n, depth)
	}
	return v
}

// alias reads what an alias stands for.
func (r *yamlReader) alias(v *fields.Value, n *yaml.Node, depth int) *fields.Value {
	if n.Alias == nil || r.open[n.Alias] {
		r.add(n.Line, n.Column, "the anchor &%s contains itself", n.Value)
		return v
	}
	r.open[n.Alias] = true
	defer delete(r.open, n.Alias)
	return r.value(n.Alias, depth)
}

// tag reports whether n has the one tag it may have, and says so if not.
func (r *yamlReader) tag(n *yaml.Node, allowed string) bool {
	if n.ShortTag() == allowed {
		return true
	}
	r.add(n.Line, n.Column, "the tag %q is not understood; leave it out", n.ShortTag())
	return false
}

func (r *yamlReader) scalar(v *fields.Value, n *yaml.Node) {
	v.Text = n.Value
	switch n.ShortTag() {
	case "!!null":
		v.Kind = fields.Null
	case "!!bool":
		v.Kind = fields.String // such as YAML 1.1's yes and off
		if lower := strings.ToLower(n.Value); lower == "true" || lower == "false" {
			v.Kind, v.Text = fields.Bool, lower
		}
	case "!!int":
		v.Kind = fields.Int
	case "!!float":
		v.Kind = fields.Float
	case "!!timestamp", "!!merge":
		v.Kind = fields.String
	default:
		if r.tag(n, "!!str") {
			v.Kind = fields.String
		}
	}
}

func (r *yamlReader) mapping(v *fields.Value, n *yaml.Node, depth int) {
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		at, value := n.Content[i], n.Content[i+1]
		key := at
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		switch {
		case key == nil || key.Kind != yaml.ScalarNode || key.ShortTag() == "!!null":
			r.add(at.Line, at.Column, "a key must be text")
		case key.ShortTag() == "!!merge":
			merges = append(merges, value)
		case r.count(at.Line, at.Column, len(key.Value)):
			v.Keys = append(v.Keys, fields.Entry{
				Key: key.Value, Value: r.value(value, depth+1), Line: at.Line, Column: at.Column,
			})
		}
	}
	if len(merges) > 0 {
		r.merge(v, merges, depth)
	}
}

// merge adds the entries that merge keys (<<) stand for, as far as v has no
// entry of its own for the key. Of several mappings the first wins.
func (r *yamlReader) merge(v *fields.Value, merges []*yaml.Node, depth int) {
	there := make(map[string]bool, len(v.Keys))
	for _, e := range v.Keys {
		there[e.Key] = true
	}
	for _, n := range merges {
		from := r.value(n, depth+1)
		list := []*fields.Value{from}
		if from.Kind == fields.List {
			list = from.Items
		}
		for _, m := range list {
			if m.Kind != fields.Map && m.Kind != fields.Broken {
				r.add(n.Line, n.Column, "what is merged with << must be a mapping, or a list of them")
			}
			for _, e := range m.Keys {
				if !there[e.Key] {
					there[e.Key] = true
					v.Keys = append(v.Keys, e)
				}
			}
		}
	}
}
