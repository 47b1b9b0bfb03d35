package component

import (
	"slices"

	"github.com/caissonrun/caisson/internal/fields"
)

// configType describes a configuration (section 7 of the reference).
func configType() *fields.Type {
	return object(
		"a mapping with a configuration's keys",
		also(field("parameters", anything(), "", "What the component itself is to know."), "params", "parameter"),
		also(field("storage", storageType(), "", "What the component is given and what becomes of what it makes."), "mapping"),
		also(field("processors", processorsType(), "", "Components that run before and after."), "processor"),
		field("runtime", runtimeType(), "", "How the component is run."),
		field("authorization", authorizationType(), "", "Where credentials come from."),
		field("image_parameters", anything(), "", "Has no effect: the component's definition sets them."),
		field("action", scalar(), "", "What the component is to do; without it `run`."),
		field("variables_id", scalar(), "", "The variables that `{{ name }}` stands for."),
		field("variables_values_id", scalar(), "", "The values of those variables."),
		field("shared_code_id", scalar(), "", "The shared code that `{{rowId}}` stands for."),
		field("shared_code_row_ids", list(scalar()), "[]", "Its parts that are used."),
		field("artifacts", artifactsType(), "", "Artifacts of earlier runs."),
	)
}

func storageType() *fields.Type {
	support := wordOrNothing("authoritative", "hints", "none")
	changes := wordOrNothing("none", "non-destructive", "all")
	return object(
		"a mapping with input and output",
		field("input", object(
			"a mapping with tables and files",
			field("read_only_storage_access", toggleOrNull(), "", "Of workspaces only."),
			field("tables", list(inputTableType()), "[]", "Tables that the component is given."),
			field("files", list(inputFileType()), "[]", "Files that the component is given."),
		), "", "What the component is given."),
		field("output", object(
			"a mapping with tables and files",
			field("default_bucket", scalar(), "", "The bucket of tables whose destination names none."),
			field("data_type_support", support, "", "Whether columns have types of their own."),
			field("table_modifications", changes, "", "Which changes of tables are allowed."),
			field("treat_values_as_null", list(scalar()), "", "Values that are no value."),
			field("tables", list(outputTableType()), "[]", "What becomes of tables."),
			field("files", list(outputFileType()), "[]", "What becomes of files."),
			field("table_files", object(
				"a mapping with tags and is_permanent",
				field("tags", list(scalar()), "[]", "Tags of those files."),
				field("is_permanent", toggle(), "true", "Whether they stay until somebody removes them."),
			), "", "Tables are kept as files."),
		), "", "What becomes of what the component makes."),
	)
}

func processorsType() *fields.Type {
	one := object(
		"a mapping with definition and parameters",
		required("definition", object(
			"a mapping with the component's id",
			required("component", given("a component's id"), "The id of the processor in the registry."),
			field("tag", scalar(), "", "The tag of its image; without it its definition's."),
		), "Which component it is."),
		field("parameters", anything(), "", "What it is to know."),
	)
	return object(
		"a mapping with before and after",
		field("before", list(one), "", "They see what the component is given."),
		field("after", list(one), "", "They see what the component made."),
	)
}

// backendTypes are the sizes of runtime.backend.type.
var backendTypes = []string{"xsmall", "small", "medium", "large"}

// maxTimeout is the longest process_timeout, in seconds.
const maxTimeout = 24 * 60 * 60

func runtimeType() *fields.Type {
	timeout := whole("a whole number of seconds, 1 to 86400, or null", 1, maxTimeout)
	timeout.Null = true
	parallelism := &fields.Type{
		Form: fields.Text, Want: `a number from 2 to 100, "infinity", or null`, Numbers: fields.WholeNumbers, Min: 2, Max: 100,
		Pattern: fields.Match(`[2-9]|[1-9][0-9]|100|infinity`), Null: true,
	}
	credentials := object(
		"a mapping with id and type",
		required("id", given("an id"), "The workspace."),
		required("type", oneWord("snowflake", "bigquery"), "Its kind."),
		field("#password", secret(), "", "Its password."),
		field("#privateKey", secret(), "", "Its private key."),
	)
	credentials.Extra = true
	backend := object(
		"a mapping with type",
		field("type", wordOrNothing(backendTypes...), "", "How much memory and how many cores the component gets."),
		field("context", scalar(), "", "Handed to the component."),
		field("workspace_credentials", credentials, "", "Of workspaces only."),
	)
	backend.Extra = true
	t := object(
		"a mapping",
		field("safe", toggleOrNull(), "", "Of branches only."),
		field("image_tag", scalar(), "", "The tag of the component's image."),
		field("tag", scalar(), "", "The same; wins over `image_tag`."),
		field("process_timeout", timeout, "", "How many seconds the component may run."),
		field("backend", backend, "", "What the component runs on."),
		field("parallelism", parallelism, "", "How many rows may run at the same time; here they run one by one."),
	)
	t.Extra = true
	return t
}

func authorizationType() *fields.Type {
	workspace := object("a mapping")
	for _, key := range []string{"host", "account", "warehouse", "database", "schema", "region", "user"} {
		workspace.Fields = append(workspace.Fields, field(key, scalar(), "", "Of workspaces only."))
	}
	for _, key := range []string{"password", "privateKey"} {
		workspace.Fields = append(workspace.Fields, field(key, secret(), "", "Of workspaces only."))
	}
	workspace.Fields = append(workspace.Fields, field("credentials", anything(), "", "Of workspaces only."))
	return object(
		"a mapping",
		field("oauth_api", object(
			"a mapping with id or credentials",
			field("id", scalar(), "", "Credentials of the local store."),
			field("version", scalar(), "", "Has no effect."),
			field("credentials", anything(), "", "The credentials themselves."),
		), "", "OAuth credentials."),
		field("workspace", workspace, "", "Of workspaces only."),
		field("context", scalar(), "", "Handed to the component by `runtime.backend.context` only."),
		field("app_proxy", appProxyType(), "", "Of data apps only; handed to the component as it is."),
	)
}

func appProxyType() *fields.Type {
	text := &fields.Type{Form: fields.Text, Want: "text", NotEmpty: true, Lines: true}
	names := &fields.Type{Form: fields.Series, Elem: text, Null: true}
	provider := object(
		"a mapping with id and type",
		required("id", text, "The provider."), required("type", text, "Its kind."),
		field("allowed_roles", names, "", "Who may use it."),
	)
	provider.Extra = true
	rule := withRules(object(
		"a mapping with type and auth_required",
		required("type", text, "Its kind."),
		required("auth_required", toggle(), "Whether it needs authentication."),
		field("auth", names, "", "Ids of the providers that do it."),
	), fields.Custom(func(o *fields.Found) {
		needs, ok := o.Valid["auth_required"].(bool)
		if ok && needs != present(o, "auth") {
			o.Problem("auth", "is there where \"auth_required\" is true, and only there")
		}
	}))
	rule.Extra = true
	rules := &fields.Type{Form: fields.Series, Elem: rule, Least: 1}
	return withRules(object(
		"a mapping with auth_providers and auth_rules",
		required("auth_providers", &fields.Type{Form: fields.Series, Elem: provider}, "Who authenticates."),
		required("auth_rules", rules, "What needs it."),
	), fields.Custom(checkProviders))
}

// checkProviders reports rules with providers that nobody defines.
func checkProviders(o *fields.Found) {
	var known []string
	if list := o.Value("auth_providers"); list != nil {
		for _, p := range list.Items {
			if id := p.Lookup("id"); id != nil {
				known = append(known, id.Text)
			}
		}
	}
	rules := o.Value("auth_rules")
	if rules == nil {
		return
	}
	for _, rule := range rules.Items {
		auth := rule.Lookup("auth")
		if auth == nil {
			continue
		}
		for _, id := range auth.Items {
			if id.Kind == fields.String && !slices.Contains(known, id.Text) {
				o.Problem("auth_rules", "names %q, which is none of \"auth_providers\"", clip(id.Text))
			}
		}
	}
}

func artifactsType() *fields.Type {
	enabled := field("enabled", toggle(), "false", "Whether they are fetched.")
	since := field("date_since", scalar(), "", "Only those made since a time.")
	limit := field("limit", whole("a number of runs", 0, 1e6), "", "How many at most.")
	filter := func(fs ...fields.Field) fields.Field {
		return field("filter", object("a mapping", fs...), "", "Which.")
	}
	on := func(o *fields.Found) bool { return o.Valid["enabled"] == true }
	runs := withRules(
		object("a mapping with enabled and filter", enabled, filter(since, limit)),
		fields.Custom(func(o *fields.Found) {
			f := o.Value("filter")
			if on(o) && isNothing(f.Lookup("date_since")) && isNothing(f.Lookup("limit")) {
				o.Problem("", "needs at least one of \"filter.date_since\" and \"filter.limit\"")
			}
		}),
	)
	custom := withRules(
		object("a mapping with enabled and filter", enabled, filter(
			field("component_id", scalar(), "", "Of this component."), field("config_id", scalar(), "", "Of this configuration."),
			field("branch_id", scalar(), "", "Of this branch."), since, limit,
		)),
		fields.Custom(func(o *fields.Found) {
			f := o.Value("filter")
			if on(o) && isNothing(f.Lookup("component_id")) && isNothing(f.Lookup("config_id")) && isNothing(f.Lookup("branch_id")) {
				o.Problem("", "needs \"filter.component_id\", \"filter.config_id\" and \"filter.branch_id\"")
			}
		}),
	)
	return object(
		"a mapping",
		field("options", object("a mapping", field("zip", toggle(), "true", "Whether they are kept as an archive.")), "", "How they are kept."),
		field("runs", runs, "", "Those of earlier runs of this configuration."),
		field("custom", custom, "", "Those of another configuration."),
		field("shared", object("a mapping", enabled), "", "Those that are shared."),
	)
}

// stateType describes what is stored of a configuration.
func stateType() *fields.Type {
	tag := object(
		"a mapping with a tag's name",
		field("name", scalar(), "", "The tag."),
		field("match", scalar(), "", "Whether files have it (`include`) or not."),
	)
	return object(
		"a mapping with component and storage",
		field("component", tree(), "", "What the component left in out/state.json."),
		field("storage", object("a mapping with input", field("input", object(
			"a mapping with tables and files",
			field("tables", list(object(
				"a mapping with source and lastImportDate",
				required("source", scalar(), "The id of the table."),
				required("lastImportDate", scalar(), "When rows were last loaded into what was read."),
			)), "", "Tables that were read."),
			field("files", list(object(
				"a mapping with tags and lastImportId",
				required("tags", list(tag), "The tags that chose the files."),
				required("lastImportId", scalar(), "The greatest number of a file that was read."),
			)), "", "Files that were read."),
		), "", "What was read.")), "", "How far storage was read."),
		field("data_app", tree(), "", "Of data apps."),
	)
}

// usageType describes out/usage.json.
func usageType() *fields.Type {
	value := func() *fields.Type {
		t := scalar()
		t.NotEmpty, t.Null, t.Want = true, false, "text or a number, not empty"
		return t
	}
	return &fields.Type{Form: fields.Series, Want: "a list of metrics", Elem: &fields.Type{
		Form: fields.Object, Want: "a mapping with metric and value", Fields: []fields.Field{
			required("metric", value(), "What was counted."),
			required("value", value(), "How much."),
		},
	}}
}

// resultType describes out/result.json.
func resultType() *fields.Type {
	return object("a mapping with variables", field("variables", mapping(scalar()), "", "Values for the result of the run, by name."))
}
