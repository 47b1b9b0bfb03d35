package component

import (
	"github.com/caissonrun/caisson/internal/fields"
)

// definitionType describes a definition (section 4 of the reference). Keys that
// it does not name are taken and mean nothing.
func definitionType() *fields.Type {
	t := open(
		"a mapping with a definition's keys",
		required("id", given("an id such as keboola.ex-foo"), "The component."),
		field("type", scalar(), "", "What it does: extractor, writer, application, processor, transformation, other."),
		field("name", scalar(), "", "What people call it."),
		field("features", list(scalar()), "", "What a runner is to heed."),
		field("dataTypesConfiguration", open(
			"a mapping",
			field("dataTypesSupport", wordOrNothing("none", "hints", "authoritative"), "", "Whether its tables have types of their own."),
		), "", "Types of columns."),
		field("processorConfiguration", open(
			"a mapping",
			field("allowedProcessorPosition", wordOrNothing("any", "before", "after"), "", "Where it may stand; information only."),
		), "", "For processors."),
		required("data", dataType(), "How it is run."),
	)
	t.Null = false
	return t
}

// open is an object with keys that nobody names.
func open(want string, fs ...fields.Field) *fields.Type {
	t := object(want, fs...)
	t.Extra = true
	return t
}

func dataType() *fields.Type {
	memory := &fields.Type{Form: fields.Text, Want: "a size such as 256m or 2g", Pattern: fields.Match(`[0-9]{1,9}[mgMG]`)}
	level := wordOrNothing("none", "camouflage", "normal", "verbose")
	workspaces := []string{
		"workspace-snowflake", "workspace-bigquery", "workspace-redshift", "workspace-synapse", "workspace-abs",
		"workspace-exasol", "workspace-teradata",
	}
	input := wordOrNothing(append([]string{"local", "s3", "abs", "none"}, workspaces...)...)
	output := wordOrNothing(append([]string{"local", "none"}, workspaces...)...)
	timeout := whole("a whole number of seconds", 0, maxTimeout)
	t := open(
		"a mapping with definition",
		required("definition", sourceType(), "Where its program comes from."),
		field("memory", memory, `"256m"`, "What it may use."),
		field("cpu_shares", whole("a number", 0, 1<<31), "", "Has no effect."),
		field("configuration_format", oneWord("json", "yaml"), `"json"`, "The syntax of its files."),
		field("process_timeout", timeout, "3600", "How many seconds it may run; 0: an hour."),
		field("forward_token", toggle(), "false", "Whether it is given a token."),
		field("forward_token_details", toggle(), "false", "Whether it is told about the token."),
		field("inject_environment", toggle(), "false", "Whether parameters become variables."),
		field("default_bucket", toggle(), "false", "Whether its tables go to a bucket of the configuration."),
		field("default_bucket_stage", oneWord("in", "out"), `"in"`, "The stage of that bucket."),
		field("image_parameters", tree(), "", "What every configuration's config.json holds."),
		field("network", oneWord("none", "bridge", "no-internet"), `"bridge"`, "What it may reach."),
		field("vendor", anything(), "", "Has no effect."),
		field("synchronous_actions", list(scalar()), "", "Actions that answer at once."),
		field("logging", open(
			"a mapping",
			field("type", oneWord("standard", "gelf"), `"standard"`, "How it logs."),
			field("gelf_server_type", oneWord("tcp", "udp", "http"), `"tcp"`, "How GELF messages come."),
			field("no_application_errors", toggle(), "false", "Whether every failure is the user's error."),
			field("verbosity", mapping(level), "", "What becomes of messages, by level."),
		), "{}", "What becomes of what it prints."),
		field("staging_storage", open(
			"a mapping",
			field("input", input, `"local"`, "How it is given data."),
			field("output", output, `"local"`, "How it hands data out."),
		), "{}", "How data comes and goes."),
	)
	t.Null = false
	return t
}

// sourceKinds are the values of data.definition.type.
var sourceKinds = []string{
	"dockerhub", "quayio", "aws-ecr", "dockerhub-private", "quayio-private", "builder", "command",
}

func sourceType() *fields.Type {
	text := &fields.Type{Form: fields.Text, Want: "text", Lines: true}
	digest := &fields.Type{
		Form: fields.Text, Want: "a digest as sha256: and 64 hexadecimal digits", Null: true,
		Pattern: fields.Match(`|(sha256:)?[0-9a-f]{64}`),
	}
	t := open(
		"a mapping with type and uri",
		required("type", oneWord(sourceKinds...), "What it is: an image in a registry, `builder` (an image made of a git repository), or `command` (a program of this host)."),
		field("uri", scalar(), "", "The image without its tag."),
		field("tag", scalar(), `"latest"`, "The image's tag."),
		field("digest", digest, "", "The image's digest."),
		field("name", scalar(), "", "Has no effect."),
		field("repository", open(
			"a mapping",
			field("region", scalar(), "", "Has no effect."),
			field("username", scalar(), "", "The user at the registry."),
			field("#password", secret(), "", "The user's password, sealed."),
			field("server", scalar(), "", "The registry."),
		), "", "How the registry is reached."),
		field("build_options", buildType(), "", "Of `builder`: how the image is made."),
		field("command", &fields.Type{Form: fields.Series, Elem: text, Least: 1}, "", "Of `command`: the program with its arguments."),
		field("env", mapping(scalar()), "", "Of `command`: its environment."),
		field("workdir", scalar(), "", "Of `command`: its current directory; without it /data."),
	)
	t.Null = false
	return withRules(t, fields.Rule{Check: checkSource})
}

// checkSource reports what a kind of source needs and has not.
func checkSource(o *fields.Found) {
	kind := o.Text("type")
	need := map[string]string{"command": "command", "builder": "build_options", "": ""}
	key, special := need[kind]
	if !special {
		key = "uri"
	}
	if key != "" && !present(o, key) {
		o.Problem("", "the key %q is missing; a %s needs it", key, kind)
	}
	if kind == "builder" && !present(o, "uri") {
		o.Problem("", "the key \"uri\" is missing: the image that the new one is made from")
	}
}

// parameterTypes are the types of build parameters.
var parameterTypes = []string{"int", "integer", "string", "argument", "plain_string", "enumeration"}

func buildType() *fields.Type {
	name := &fields.Type{Form: fields.Text, Want: "a name", Pattern: fields.Match(`#?[A-Za-z0-9_.-]+`)}
	parameter := withRules(open(
		"a mapping with name and type",
		required("name", name, "What stands between `{{` and `}}`."),
		required("type", oneWord(parameterTypes...), "What it may be."),
		field("required", toggle(), "true", "Whether it has to be given."),
		field("default_value", scalar(), "", "What it is where it is not given."),
		field("values", list(scalar()), "", "Of an enumeration: what it may be."),
	), fields.Custom(func(o *fields.Found) {
		if o.Text("type") == "enumeration" && !present(o, "values") {
			o.Problem("", "the key \"values\" is missing; an enumeration needs it")
		}
	}))
	return open(
		"a mapping with repository and entry_point",
		required("parent_type", oneWord("dockerhub", "quayio", "aws-ecr", "dockerhub-private", "quayio-private"), "The kind of the image that the new one is made from."),
		required("repository", open(
			"a mapping with uri",
			required("uri", given("a repository's URL"), "The repository."),
			field("type", oneWord("git"), `"git"`, "Its kind."),
			field("username", scalar(), "", "The user."),
			field("#password", secret(), "", "The user's password, sealed."),
		), "Where the sources are."),
		required("entry_point", given("a command"), "What the image runs."),
		field("commands", list(given("a command")), "", "What makes the image."),
		field("parameters", list(parameter), "", "What `{{name}}` stands for in commands and entry point."),
		field("version", scalar(), "", "The version; `master` is always made anew."),
		field("cache", toggle(), "true", "Whether a build may use an earlier one."),
	)
}
