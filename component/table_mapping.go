package component

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caissonrun/caisson/internal/fields"
)

// field returns a field; fill is its default as JSON, or "".
func field(name string, t *fields.Type, fill, doc string) fields.Field {
	return fields.Field{Name: name, Type: t, Fill: fill, Doc: doc}
}

func required(name string, t *fields.Type, doc string) fields.Field {
	return fields.Field{Name: name, Type: t, Required: true, Doc: doc}
}

// also adds names that people may try.
func also(f fields.Field, names ...string) fields.Field {
	f.Also = names
	return f
}

func operator() *fields.Type { return wordOrNothing("eq", "ne") }

func inputTableType() *fields.Type {
	days := whole("a whole number of days", 0, 1e6)
	days.Null = true
	columnType := object("a mapping with a column's source and type",
		required("source", given("a column's name"), "The column."),
		field("type", scalar(), "", "Its type in a workspace."),
		field("destination", scalar(), "", "Its name in a workspace."),
		field("length", scalar(), "", "Its type's length."),
		field("nullable", scalar(), "", "Whether it may have no value."),
		field("convert_empty_values_to_null", scalar(), "", "Whether empty text becomes no value."),
		field("compression", scalar(), "", "Its compression."),
	)
	return withRules(object(
		"a mapping with a table's source",
		required("source", given("a table's id such as in.c-main.sample"), "The id of the table."),
		also(field("destination", scalar(), "", "The name of the file; without it the source."), "file", "name", "target"),
		field("source_branch_id", scalar(), "", "The branch of the source."),
		field("days", days, "", "Only rows that were changed in so many days."),
		field("changed_since", scalar(), "", "Only rows that were changed since a time, such as `-2 days` or `adaptive`: since the last run."),
		field("columns", list(scalar()), "[]", "The columns, in this order; none: all."),
		field("column_types", list(columnType), "[]", "The columns with their types in a workspace."),
		field("where_column", scalar(), "", "The column that chooses rows."),
		field("where_values", list(scalar()), "[]", "The values that it has to have."),
		field("where_operator", operator(), `"eq"`, "`eq`: one of the values; `ne`: none of them."),
		field("limit", whole("a number of rows", 0, 1<<53), "", "How many rows at most."),
		field("overwrite", toggle(), "false", "Of workspaces: whether a table that is there is replaced."),
		field("load_type", scalar(), "", "Of workspaces: how the table gets there."),
		field("use_view", toggle(), "", "Of workspaces: a view in place of a copy."),
		field("keep_internal_timestamp_column", toggle(), "true", "Of workspaces: whether the column with the time of change is kept."),
		field("file_type", wordOrNothing("csv", "parquet"), "", "The format of the file."),
	),
		needsOther("where_column", "where_values", ""),
		needsOther("where_values", "where_column", ""),
		notBoth("days", "changed_since"),
		fields.Custom(checkColumnTypes))
}

// checkColumnTypes reports columns that stand in only one of columns and
// column_types.
func checkColumnTypes(o *fields.Found) {
	if !present(o, "columns") || !present(o, "column_types") {
		return
	}
	var names, typed []string
	for _, v := range o.Value("columns").Items {
		names = append(names, v.Text)
	}
	for _, v := range o.Value("column_types").Items {
		if source := v.Lookup("source"); source != nil {
			typed = append(typed, source.Text)
		}
	}
	if more := surplus(names, typed); more != "" {
		o.Problem("columns", "has columns that \"column_types\" has not: %s", more)
	}
	if more := surplus(typed, names); more != "" {
		o.Problem("column_types", "has columns that \"columns\" has not: %s", more)
	}
}

// surplus names what of a is not in b.
func surplus(a, b []string) string {
	var more []string
	for _, s := range a {
		if !slices.Contains(b, s) {
			more = append(more, `"`+clip(s)+`"`)
		}
	}
	return strings.Join(more, ", ")
}

// clip cuts outside text that goes into a message.
func clip(s string) string {
	const most = 60
	if r := []rune(s[:min(len(s), 5*most)]); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}

func inputFileType() *fields.Type {
	match := &fields.Type{Form: fields.Text, Enum: []string{"include", "exclude"}}
	source := object("a mapping with tags",
		field("tags", list(object(
			"a mapping with a tag's name",
			required("name", given("a tag"), "The tag."),
			field("match", match, `"include"`, "Whether files have it or must not have it."),
		)), "", "The tags."))
	ids := &fields.Type{
		Form: fields.Text, Want: "a file's number", Numbers: fields.WholeNumbers, Max: 1 << 53,
		Pattern: fields.Match(`[0-9]{1,18}`),
		Convert: func(v any) any { return json.Number(v.(string)) },
	}
	return withRules(object(
		"a mapping that chooses files",
		field("tags", list(scalar()), "", "Files that have all these tags."),
		field("source", source, "", "Files by tags that they have and have not."),
		field("query", scalar(), "", "Files that a query finds, such as `tags:\"x\" AND NOT tags:\"y\"`."),
		field("file_ids", list(ids), "", "Files by their numbers."),
		field("limit", whole("a number of files", 0, 1e6), "", "How many at most, the newest first; without it 100."),
		field("changed_since", scalar(), "", "Only files made since a time, or `adaptive`: since the last run."),
		field("overwrite", toggle(), "true", "Has to be true: files always replace those that are there."),
		field("processed_tags", list(scalar()), "", "Tags that the files are given after success."),
		field("filter_by_run_id", toggle(), "", "Has no effect."),
	),
		fields.Rule{Check: checkFileChoice}, notBoth("tags", "source"), notBoth("query", "changed_since"),
		fields.Rule{Check: checkFileRest})
}

func checkFileChoice(o *fields.Found) {
	sourceTags := o.Value("source").Lookup("tags")
	if !present(o, "tags") && isNothing(sourceTags) && !present(o, "query") && !present(o, "file_ids") {
		o.Problem("", "chooses no files: it needs at least one of \"tags\", \"source.tags\", \"query\" and \"file_ids\"")
	}
	if !present(o, "file_ids") {
		return
	}
	for _, key := range []string{"tags", "source", "query", "changed_since", "limit"} {
		if present(o, key) {
			o.Problem(key, "can't stand beside \"file_ids\", which goes with \"overwrite\" and \"processed_tags\" only")
		}
	}
}

func checkFileRest(o *fields.Found) {
	if v := o.Value("overwrite"); v != nil && v.Kind == fields.Bool && v.Text == "false" {
		o.Problem("overwrite", "can't be turned off for files")
	}
}

// manifestFields are the keys that a table's manifest and an output table's
// mapping have in common. In a mapping a configuration's config.json has their
// defaults, in the order of the reference.
func manifestFields() []fields.Field {
	pair := object(
		"a mapping with key and value",
		required("key", given("a name such as KBC.description"), "The name."),
		field("value", scalar(), "", "The value: text, a number, true or false."),
	)
	strategy := wordOrNothing("insert", "upsert")
	return []fields.Field{
		also(field("destination", scalar(), "", "A table's id such as `in.c-main.sample`, or its name in the default bucket."), "target", "table"),
		field("incremental", toggle(), "false", "Whether rows that are there stay."),
		also(field("primary_key", list(scalar()), "[]", "The columns that name a row."), "primary_keys", "primarykey", "pk"),
		field("columns", list(scalar()), "[]", "The columns of a CSV that has no header line."),
		field("distribution_key", list(given("a column's name")), "[]", "Of some databases: the columns that spread rows."),
		field("delete_where_column", scalar(), "", "The column that chooses rows to be deleted before the load."),
		field("delete_where_values", list(scalar()), "[]", "The values of those rows."),
		field("delete_where_operator", operator(), `"eq"`, "`eq`: one of the values; `ne`: none of them."),
		field("delete_where", list(deleteWhereType()), "", "Rows to be deleted before the load."),
		field("delimiter", scalar(), `","`, "What stands between fields of the CSV."),
		field("enclosure", scalar(), `"\""`, "What stands around fields of the CSV."),
		field("metadata", list(pair), "[]", "Notes on the table."),
		field("column_metadata", mapping(list(pair)), "[]", "Notes on columns."),
		field("write_always", toggle(), "false", "Whether the table is loaded although the component failed."),
		field("tags", list(given("a tag")), "[]", "Tags of the file that is staged."),
		field("deduplication_strategy", strategy, "", "What becomes of rows of the same key."),
		field("unload_strategy", scalar(), "", "Of workspaces only."),
		field("manifest_type", scalar(), "", "Information only."),
		field("has_header", toggle(), "", "Whether the CSV has a header line although columns are given."),
		field("description", scalar(), "", "What the table is."),
		field("table_metadata", mapping(scalar()), "", "Notes on the table, by name."),
		field("schema", list(columnType()), "[]", "Columns with types of their own, in place of columns, keys and metadata."),
	}
}

func deleteWhereType() *fields.Type {
	filter := withRules(object("a mapping with a column and values",
		required("column", given("a column's name"), "The column."),
		field("operator", operator(), `"eq"`, "`eq`: one of the values; `ne`: none of them."),
		field("values_from_set", list(scalar()), "", "The values."),
		field("values_from_workspace", object("a mapping with a workspace's table",
			field("workspace_id", scalar(), "", "The workspace."),
			required("table", given("a table's name"), "The table."),
			field("column", scalar(), "", "The column; without it the filter's."),
		), "", "The values, as a column of a workspace's table."),
		field("values_from_storage", object(
			"a mapping with a stored table",
			required("bucket_id", given("a bucket's id"), "The bucket."),
			required("table", given("a table's name"), "The table."),
			field("column", scalar(), "", "The column; without it the filter's."),
		), "", "The values, as a column of a stored table."),
	), fields.Rule{Check: func(o *fields.Found) {
		n := 0
		for _, key := range []string{"values_from_set", "values_from_workspace", "values_from_storage"} {
			if o.Has(key) && o.Value(key).Kind != fields.Null {
				n++
			}
		}
		if n != 1 {
			o.Problem("", "needs exactly one of \"values_from_set\", \"values_from_workspace\" and \"values_from_storage\"")
		}
	}})
	return withRules(object("a mapping with a time or filters",
		field("changed_since", scalar(), "", "Rows that were changed since then."),
		field("changed_until", scalar(), "", "Rows that were changed before then."),
		field("where_filters", list(filter), "", "Rows that all filters are true of."),
	), fields.Rule{Check: func(o *fields.Found) {
		if !present(o, "changed_since") && !present(o, "changed_until") && !present(o, "where_filters") {
			o.Problem("", "chooses no rows: it needs at least one of \"changed_since\", \"changed_until\" and \"where_filters\"")
		}
	}})
}

// backends are those that a column's type may be given for.
var backends = []string{"base", "redshift", "snowflake", "synapse", "bigquery", "exasol"}

func columnType() *fields.Type {
	dataType := func() *fields.Type {
		return object(
			"a mapping with a type",
			required("type", given("a type such as STRING or NUMERIC"), "The type."),
			field("length", scalar(), "", "Its length, such as `10,2`."),
			field("default", scalar(), "", "What a row has that has no value."),
		)
	}
	types := object("a mapping with a type for \"base\"")
	for _, name := range backends {
		f := field(name, dataType(), "", "The type in "+name+".")
		if name == "base" {
			f.Required, f.Doc = true, "The type everywhere: STRING, INTEGER, NUMERIC, FLOAT, BOOLEAN, DATE or TIMESTAMP."
		}
		types.Fields = append(types.Fields, f)
	}
	return withRules(object(
		"a mapping with a column's name",
		required("name", given("a column's name"), "The column."),
		field("data_type", types, "", "Its type, by backend."),
		field("nullable", toggle(), "true", "Whether it may have no value."),
		field("primary_key", toggle(), "false", "Whether it is part of what names a row."),
		field("distribution_key", toggle(), "false", "Whether it spreads rows."),
		field("description", scalar(), "", "What it is."),
		field("metadata", mapping(scalar()), "", "Notes on it, by name."),
	), fields.Custom(func(o *fields.Found) {
		if present(o, "description") && !isNothing(o.Value("metadata").Lookup("KBC.description")) {
			o.Problem("description", "can't stand beside \"metadata.KBC.description\"; use one of them")
		}
	}))
}

// manifestRules are the rules of those keys. A manifest may not have columns
// beside a schema; a mapping may.
func manifestRules(manifest bool) []fields.Rule {
	rules := []fields.Rule{
		needsOther("delete_where_column", "delete_where_values", ""),
		notBoth("schema", "metadata"), notBoth("schema", "column_metadata"),
		notBoth("schema", "primary_key"), notBoth("schema", "distribution_key"),
		notBoth("delete_where", "delete_where_column"),
		fields.Custom(func(o *fields.Found) {
			if present(o, "description") && !isNothing(o.Value("table_metadata").Lookup("KBC.description")) {
				o.Problem("description", "can't stand beside \"table_metadata.KBC.description\"; use one of them")
			}
		}),
	}
	if manifest {
		rules = append(rules, notBoth("schema", "columns"))
	}
	return rules
}

func outputTableType() *fields.Type {
	t := object("a mapping with a table's source", append([]fields.Field{
		also(required("source", given("the name of a file in out/tables"), "The file in out/tables."), "file", "name"),
	}, manifestFields()...)...)
	return withRules(t, manifestRules(false)...)
}

func tableManifestType() *fields.Type {
	return withRules(object("a mapping with a manifest's keys", manifestFields()...), manifestRules(true)...)
}

func fileManifestFields() []fields.Field {
	return []fields.Field{
		field("tags", list(given("a tag")), "[]", "Tags of the file."),
		field("is_public", toggle(), "false", "Whether everybody may read it."),
		field("is_permanent", toggle(), "false", "Whether it stays until somebody removes it."),
		field("is_encrypted", toggle(), "true", "Whether it is stored encrypted."),
		field("notify", toggle(), "false", "Has no effect."),
	}
}

func fileManifestType() *fields.Type {
	return object("a mapping with a manifest's keys", fileManifestFields()...)
}

func outputFileType() *fields.Type {
	return object("a mapping with a file's source", append([]fields.Field{
		also(required("source", given("the name of a file in out/files"), "The file in out/files."), "file", "name"),
	}, fileManifestFields()...)...)
}
