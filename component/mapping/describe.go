//go:build unix

package mapping

import (
	"encoding/json"
	"sort"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/storage"
)

// systemProvider is who notes are of that Caisson makes itself.
const systemProvider = "system"

// componentID returns whose output it is.
func (o *Output) componentID() string {
	if o.Component == nil {
		return ""
	}
	return o.Component.ID
}

// describe adds notes and types to a load.
func (p *planner) describe(load *TableLoad, m *merged, names *names) {
	provider := p.componentID()
	load.Metadata = p.system("KBC.lastUpdatedBy.")
	load.BucketCreated = p.system("KBC.createdBy.")
	if load.New {
		load.Metadata = append(p.system("KBC.createdBy."), load.Metadata...)
	}
	for _, n := range m.Metadata {
		load.Metadata = append(load.Metadata, storage.Metadata{Key: n.Key, Value: n.Value, Provider: provider})
	}
	load.Metadata = append(load.Metadata, notes(m.TableMetadata, provider)...)
	if m.Description != "" {
		load.Metadata = append(load.Metadata, note("KBC.description", m.Description, provider))
	}
	load.Metadata = lastOfEach(load.Metadata)

	load.ColumnMeta = map[string][]storage.Metadata{}
	columns := spellingOf(load.Columns)
	add := func(column string, list ...storage.Metadata) {
		if len(list) > 0 {
			as, _ := columns.of(names.one(column))
			load.ColumnMeta[as] = append(load.ColumnMeta[as], list...)
		}
	}
	for column, list := range m.ColumnMetadata {
		for _, n := range list {
			add(column, storage.Metadata{Key: n.Key, Value: n.Value, Provider: provider})
		}
	}
	for _, c := range m.Schema {
		add(c.Name, notes(c.Metadata, provider)...)
		if c.Description != "" {
			add(c.Name, note("KBC.description", c.Description, provider))
		}
		if p.DataTypes != "authoritative" {
			add(c.Name, typeNotes(c, provider)...)
		}
	}
	for column, list := range load.ColumnMeta {
		load.ColumnMeta[column] = lastOfEach(list)
	}
	p.types(load, m, names)
}

// types sets the types of columns for a storage that has them.
func (p *planner) types(load *TableLoad, m *merged, names *names) {
	if p.DataTypes != "authoritative" {
		return
	}
	load.Types = map[string]storage.Type{}
	columns := spellingOf(load.Columns)
	for _, c := range m.Schema {
		as, _ := columns.of(names.one(c.Name))
		base := c.DataType["base"]
		load.Types[as] = storage.Type{
			Base: strings.ToUpper(base.Type), Length: base.Length, Default: base.Default, NotNull: !c.Nullable,
		}
	}
	load.Origins["types"] = FromSchema
}

// typeNotes are how a column's type is kept by a storage of text.
func typeNotes(c component.Column, provider string) []storage.Metadata {
	base, ok := c.DataType["base"]
	if !ok {
		return nil
	}
	out := []storage.Metadata{
		note("KBC.datatype.basetype", strings.ToUpper(base.Type), provider),
		{Key: "KBC.datatype.nullable", Value: json.RawMessage(strconv.FormatBool(c.Nullable)), Provider: provider},
	}
	if base.Length != "" {
		out = append(out, note("KBC.datatype.length", base.Length, provider))
	}
	if base.Default != "" {
		out = append(out, note("KBC.datatype.default", base.Default, provider))
	}
	return out
}

func note(key, value, provider string) storage.Metadata {
	data, _ := json.Marshal(value) // a string always can be
	return storage.Metadata{Key: key, Value: data, Provider: provider}
}

// notes makes notes of an object's keys, in their order.
func notes(values map[string]json.RawMessage, provider string) []storage.Metadata {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	var out []storage.Metadata
	for _, key := range keys {
		out = append(out, storage.Metadata{Key: key, Value: values[key], Provider: provider})
	}
	return out
}

// system returns the notes on whose output something is.
func (p *planner) system(prefix string) []storage.Metadata {
	out := []storage.Metadata{}
	for _, n := range []struct{ key, value string }{
		{"component.id", p.componentID()},
		{"configuration.id", p.Who.Configuration},
		{"configurationRow.id", p.Who.Row},
		{"branch.id", p.Who.Branch},
	} {
		if n.value != "" {
			out = append(out, note(prefix+n.key, n.value, systemProvider))
		}
	}
	return out
}

// lastOfEach drops notes that a later one of the same key and provider replaces.
func lastOfEach(list []storage.Metadata) []storage.Metadata {
	out := list[:0:0]
	at := make(map[string]int, len(list))
	for _, n := range list {
		key := n.Provider + "\x00" + n.Key
		i, ok := at[key]
		if !ok {
			at[key] = len(out)
			out = append(out, n)
			continue
		}
		out[i] = n
	}
	return out
}
