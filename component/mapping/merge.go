package mapping

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caissonrun/caisson/component"
)

// A merged is what is known of a table from its manifest and one mapping.
type merged struct {
	component.TableManifest
	origins map[string]Origin
}

// truthy is what PHP takes for true, which decides whether a mapping's text says
// anything.
func truthy(s string) bool { return s != "" && s != "0" }

// merge starts with the manifest and lays the mapping over it; nil for what is
// not there. The reference's rules are kept, also where they surprise: a
// mapping can't take back what a manifest says but for the primary key, which is
// always the mapping's.
func merge(manifest, mapping *component.TableManifest, names *names) (*merged, error) {
	m := &merged{TableManifest: defaults(), origins: map[string]Origin{}}
	if manifest != nil {
		m.take(manifest)
		m.overlaySchema(manifest.Schema, FromManifest)
	}
	if mapping != nil {
		if err := m.overlay(mapping, manifest, names); err != nil {
			return nil, err
		}
	}
	return m, m.check()
}

func defaults() component.TableManifest {
	return component.TableManifest{Delimiter: ",", Enclosure: `"`, DeleteWhereOperator: "eq"}
}

// take begins with all that a manifest says but its schema. Lists are copied:
// a manifest is merged with several mappings.
func (m *merged) take(manifest *component.TableManifest) {
	m.TableManifest = *manifest
	m.Schema = nil
	m.Metadata = slices.Clone(manifest.Metadata)
	m.ColumnMetadata = map[string][]component.Metadata{}
	for column, list := range manifest.ColumnMetadata {
		m.ColumnMetadata[column] = slices.Clone(list)
	}
	m.TableMetadata = cloneMap(manifest.TableMetadata)
	m.Delimiter = either(m.Delimiter, ",")
	m.Enclosure = either(m.Enclosure, `"`)
	m.DeleteWhereOperator = either(m.DeleteWhereOperator, "eq")
	for key, said := range map[string]bool{
		"destination":     manifest.Destination != "",
		"primary_key":     len(manifest.PrimaryKey) > 0,
		"incremental":     manifest.Incremental,
		"columns":         len(manifest.Columns) > 0,
		"delimiter":       m.Delimiter != ",",
		"enclosure":       m.Enclosure != `"`,
		"delete":          manifest.DeleteWhereColumn != "" || len(manifest.DeleteWhere) > 0,
		"metadata":        len(manifest.Metadata) > 0 || len(manifest.TableMetadata) > 0 || manifest.Description != "",
		"column_metadata": len(manifest.ColumnMetadata) > 0,
		"write_always":    manifest.WriteAlways,
		"insert":          manifest.DeduplicationStrategy != "",
		"has_header":      manifest.HasHeader,
		"tags":            len(manifest.Tags) > 0,
	} {
		if said {
			m.origins[key] = FromManifest
		}
	}
}

func either(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// from notes that a value is the mapping's, or a mixture of both.
func (m *merged) from(key string, o Origin) { m.origins[key] = o }

// mixed notes that something of the mapping was added.
func (m *merged) mixed(key string) {
	if m.origins[key] == FromManifest {
		m.origins[key] = FromBoth
		return
	}
	m.origins[key] = FromMapping
}

// overlay lays a mapping over what the manifest said.
func (m *merged) overlay(t, manifest *component.TableManifest, names *names) error {
	if manifest != nil && len(manifest.Schema) > 0 {
		m.overlaySchema(t.Schema, FromMapping)
		if err := m.keysOfSchema(t.PrimaryKey, names); err != nil {
			return err
		}
	} else {
		m.overlaySchema(t.Schema, FromMapping)
		if len(t.PrimaryKey) == 0 && len(m.PrimaryKey) > 0 {
			names.warn("the mapping of %q gives no primary key, so that the manifest's (%s) does not count: repeat it in the mapping to keep it",
				names.source, strings.Join(m.PrimaryKey, ", "))
		}
		m.PrimaryKey = slices.Clone(t.PrimaryKey)
		m.from("primary_key", FromMapping)
	}
	m.text("destination", &m.Destination, t.Destination, "")
	m.text("delimiter", &m.Delimiter, t.Delimiter, ",")
	m.text("enclosure", &m.Enclosure, t.Enclosure, `"`)
	m.text("delete", &m.DeleteWhereOperator, t.DeleteWhereOperator, "eq")
	m.text("delete", &m.DeleteWhereColumn, t.DeleteWhereColumn, "")
	m.text("insert", &m.DeduplicationStrategy, t.DeduplicationStrategy, "")
	m.text("unload_strategy", &m.UnloadStrategy, t.UnloadStrategy, "")
	m.text("manifest_type", &m.ManifestType, t.ManifestType, "")
	m.text("metadata", &m.Description, t.Description, "")
	m.flag("incremental", &m.Incremental, t.Incremental)
	m.flag("write_always", &m.WriteAlways, t.WriteAlways)
	m.flag("has_header", &m.HasHeader, t.HasHeader)
	m.list("columns", &m.Columns, t.Columns)
	m.list("delete", &m.DeleteWhereValues, t.DeleteWhereValues)
	m.list("distribution_key", &m.DistributionKey, t.DistributionKey)
	m.list("tags", &m.Tags, t.Tags)
	if len(t.DeleteWhere) > 0 {
		m.DeleteWhere = t.DeleteWhere
		m.from("delete", FromMapping)
	}
	m.overlayMetadata(t)
	return nil
}

func (m *merged) text(key string, to *string, value, byDefault string) {
	if truthy(value) && value != byDefault {
		*to = value
		m.from(key, FromMapping)
	}
}

func (m *merged) flag(key string, to *bool, value bool) {
	if value {
		*to = true
		m.from(key, FromMapping)
	}
}

func (m *merged) list(key string, to *[]string, value []string) {
	if len(value) > 0 {
		*to = value
		m.from(key, FromMapping)
	}
}

// overlayMetadata merges notes by their keys.
func (m *merged) overlayMetadata(t *component.TableManifest) {
	if len(t.Metadata) > 0 {
		m.Metadata = mergeNotes(m.Metadata, t.Metadata)
		m.mixed("metadata")
	}
	for key, value := range t.TableMetadata {
		if m.TableMetadata == nil {
			m.TableMetadata = map[string]json.RawMessage{}
		}
		m.TableMetadata[key] = value
		m.mixed("metadata")
	}
	for column, list := range t.ColumnMetadata {
		if m.ColumnMetadata == nil {
			m.ColumnMetadata = map[string][]component.Metadata{}
		}
		m.ColumnMetadata[column] = mergeNotes(m.ColumnMetadata[column], list)
		m.mixed("column_metadata")
	}
}

func mergeNotes(old, over []component.Metadata) []component.Metadata {
	out := slices.Clone(old)
	at := index(out, func(n component.Metadata) string { return n.Key })
	for _, n := range over {
		i, ok := at[n.Key]
		if !ok {
			at[n.Key] = len(out)
			out = append(out, n)
			continue
		}
		out[i] = n
	}
	return out
}

// overlaySchema merges columns by their names.
func (m *merged) overlaySchema(over []component.Column, o Origin) {
	at := index(m.Schema, func(c component.Column) string { return c.Name })
	for _, c := range over {
		i, ok := at[c.Name]
		if !ok {
			at[c.Name] = len(m.Schema)
			m.Schema = append(m.Schema, c)
			continue
		}
		m.Schema[i] = mergeColumn(m.Schema[i], c)
	}
	switch {
	case len(over) == 0:
	case m.origins["schema"] == "":
		m.from("schema", o)
	default:
		m.mixed("schema")
	}
}

func mergeColumn(old, over component.Column) component.Column {
	out := old
	out.DataType = cloneMap(old.DataType)
	for backend, t := range over.DataType {
		if out.DataType == nil {
			out.DataType = map[string]component.DataType{}
		}
		out.DataType[backend] = t
	}
	out.Metadata = cloneMap(old.Metadata)
	for key, value := range over.Metadata {
		if out.Metadata == nil {
			out.Metadata = map[string]json.RawMessage{}
		}
		out.Metadata[key] = value
	}
	out.Nullable = old.Nullable && over.Nullable // true is the default
	out.PrimaryKey = old.PrimaryKey || over.PrimaryKey
	out.DistributionKey = old.DistributionKey || over.DistributionKey
	if truthy(over.Description) {
		out.Description = over.Description
	}
	return out
}

func cloneMap[V any](m map[string]V) map[string]V {
	if m == nil {
		return nil
	}
	out := make(map[string]V, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// keysOfSchema adds a mapping's keys to the schema that a manifest has.
func (m *merged) keysOfSchema(keys []string, names *names) error {
	if len(keys) == 0 {
		return nil
	}
	by := index(m.Schema, func(c component.Column) string { return names.one(c.Name) })
	for _, key := range keys {
		at, ok := by[names.one(key)]
		if !ok {
			return fmt.Errorf("primary key column %q is not in the manifest's schema", key)
		}
		m.Schema[at].PrimaryKey = true
		m.mixed("primary_key")
	}
	return nil
}

// check refuses what can't stand together.
func (m *merged) check() error {
	var problems []error
	if len(m.Schema) > 0 {
		for _, other := range []struct {
			name string
			set  bool
		}{
			{"columns", len(m.Columns) > 0},
			{"metadata", len(m.Metadata) > 0},
			{"column_metadata", len(m.ColumnMetadata) > 0},
			{"primary_key", len(m.PrimaryKey) > 0},
			{"distribution_key", len(m.DistributionKey) > 0},
		} {
			if other.set {
				problems = append(problems, fmt.Errorf("only one of schema and %s can be given", other.name))
			}
		}
	}
	if m.DeleteWhereColumn != "" && len(m.DeleteWhere) > 0 {
		problems = append(problems, errors.New("only one of delete_where and delete_where_column can be given"))
	}
	if m.DeleteWhereColumn != "" && len(m.DeleteWhereValues) == 0 {
		problems = append(problems, errors.New("delete_where_column needs delete_where_values"))
	}
	if m.UnloadStrategy != "" {
		problems = append(problems, fmt.Errorf("unload_strategy %q is of workspaces, which there are none of", m.UnloadStrategy))
	}
	return errors.Join(problems...)
}

// dialect returns how the CSV separates its fields.
func (m *merged) dialect() (delimiter, enclosure byte, err error) {
	for _, s := range []string{m.Delimiter, m.Enclosure} {
		if len(s) != 1 {
			return 0, 0, fmt.Errorf("delimiter %q and enclosure %q must be one ASCII character each", m.Delimiter, m.Enclosure)
		}
	}
	return m.Delimiter[0], m.Enclosure[0], nil
}
