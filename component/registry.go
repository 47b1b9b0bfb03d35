package component

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// A Registry is folders of definitions: files whose names end in .json, .yaml
// or .yml, each with one definition, and folders with a file component.json,
// component.yaml or component.yml.
type Registry struct{ folders []string }

// NewRegistry returns the registry of folders. Of the same id in several the
// first counts; twice in one is an error. A folder that does not exist is
// empty.
func NewRegistry(folders ...string) *Registry { return &Registry{folders} }

// Definition returns the definition of a component. Errors: ErrNotFound;
// Problems of its file, which are the application's.
func (r *Registry) Definition(ctx context.Context, id string) (*Definition, error) {
	all, err := r.List(ctx)
	for _, d := range all {
		if d.ID == id {
			return d, nil
		}
	}
	why := "there is no registry: put its definition into a folder registry beside the configuration, or name folders in component.registry"
	if len(r.folders) > 0 {
		why = "no definition has this id in " + strings.Join(r.folders, ", ")
	}
	missing := &caisson.Error{Op: caisson.OpValidate, Item: fmt.Sprintf("component %q", id), Kind: caisson.ErrNotFound, Err: errors.New(why)}
	if err != nil {
		// The one that is looked for may be among those that can't be read.
		return nil, errors.Join(missing, err)
	}
	return nil, missing
}

// List returns all definitions that can be read, in the order of their ids,
// and what is wrong with the others.
func (r *Registry) List(ctx context.Context) ([]*Definition, error) {
	var all []*Definition
	var wrong []error
	seen := map[string]bool{}
	for _, folder := range r.folders {
		found, err := readFolder(ctx, folder)
		if err != nil {
			wrong = append(wrong, err)
		}
		here := map[string]bool{}
		for _, d := range found {
			if here[d.ID] {
				wrong = append(wrong, Application(problem(folder, "", fmt.Sprintf("the component %q is defined twice", d.ID))))
			}
			if !seen[d.ID] {
				all = append(all, d)
			}
			here[d.ID], seen[d.ID] = true, true
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].ID < all[j].ID })
	return all, errors.Join(wrong...)
}

// readFolder reads the definitions of a folder, in the order of their names.
func readFolder(ctx context.Context, folder string) ([]*Definition, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fileError(folder, err)
	}
	var found []*Definition
	var wrong []error
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		file := filepath.Join(folder, e.Name())
		if e.IsDir() {
			if file = oneOf(file, "component"); file == "" {
				continue
			}
		} else if !isText(e.Name()) {
			continue
		}
		d, err := ReadDefinition(file)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		found = append(found, d)
	}
	return found, errors.Join(wrong...)
}

// extensions are the ends of the names of files in JSON and YAML.
var extensions = []string{".json", ".yaml", ".yml"}

func isText(name string) bool {
	return slices.Contains(extensions, filepath.Ext(name)) && name[0] != '.'
}

// oneOf returns the path of the file of that name in dir, in whatever format,
// or "".
func oneOf(dir, name string) string {
	for _, ext := range extensions {
		file := filepath.Join(dir, name+ext)
		if info, err := os.Stat(file); err == nil && !info.IsDir() {
			return file
		}
	}
	return ""
}

// fileError is what the file system says of a file of the user.
func fileError(file string, err error) error {
	kind := caisson.ErrUnavailable
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind = caisson.ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		kind = caisson.ErrDenied
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return &caisson.Error{Op: caisson.OpValidate, Item: file, Kind: kind, Err: err}
}

// readText reads a file that a person wrote.
func readText(file string) (*Value, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fileError(file, err)
	}
	if !info.Mode().IsRegular() {
		return nil, problem(file, "", "is not a file")
	}
	if info.Size() > MaxConfiguration {
		return nil, problem(file, "", fmt.Sprintf("is larger than %d MiB", MaxConfiguration>>20))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fileError(file, err)
	}
	return ParseValue(file, data)
}

// ReadDefinition reads a file with a definition. Errors: ErrNotFound; Problems,
// the application's.
func ReadDefinition(file string) (*Definition, error) {
	v, err := readText(file)
	if err != nil {
		return nil, Application(err)
	}
	d, err := newDefinition(file, v)
	if err != nil {
		return nil, err
	}
	if d.Dir, err = filepath.Abs(filepath.Dir(file)); err != nil {
		return nil, fileError(file, err)
	}
	return d, nil
}

// ParseDefinition reads a definition. Errors: Problems, the application's.
func ParseDefinition(name string, data []byte) (*Definition, error) {
	v, err := ParseValue(name, data)
	if err != nil {
		return nil, Application(err)
	}
	return newDefinition(name, v)
}

// newDefinition makes a Definition of its file.
func newDefinition(file string, v *Value) (*Definition, error) {
	v, err := check(file, v, definitionType())
	if err != nil {
		return nil, Application(err)
	}
	data := v.Get("data")
	d := &Definition{
		ID: scalarText(v.Get("id")), Type: scalarText(v.Get("type")), Name: scalarText(v.Get("name")),
		Features:          texts(v.Get("features")),
		DataTypes:         orElse(v.Get("dataTypesConfiguration", "dataTypesSupport"), "none"),
		ProcessorPosition: orElse(v.Get("processorConfiguration", "allowedProcessorPosition"), "any"),
		Memory:            memory(scalarText(data.Get("memory"))),
		Format:            scalarText(data.Get("configuration_format")),
		Timeout:           time.Duration(number(data.Get("process_timeout"))) * time.Second,
		Network:           scalarText(data.Get("network")),
		CPUShares:         number(data.Get("cpu_shares")),
		ImageParameters:   objectOrList(data.Get("image_parameters")),
		SyncActions:       texts(data.Get("synchronous_actions")),
		StagingInput:      orElse(data.Get("staging_storage", "input"), "local"),
		StagingOutput:     orElse(data.Get("staging_storage", "output"), "local"),

		DefaultBucket:       isTrue(data.Get("default_bucket")),
		DefaultBucketStage:  scalarText(data.Get("default_bucket_stage")),
		ForwardToken:        isTrue(data.Get("forward_token")),
		ForwardTokenDetails: isTrue(data.Get("forward_token_details")),
		InjectEnvironment:   isTrue(data.Get("inject_environment")),
	}
	if d.Timeout == 0 {
		d.Timeout = time.Hour
	}
	if d.Name == "" {
		d.Name = d.ID
	}
	d.Logging, err = logging(file, data.Get("logging"))
	if err != nil {
		return nil, Application(err)
	}
	d.readSource(data.Get("definition"))
	return d, nil
}

func orElse(v *Value, otherwise string) string {
	if s := scalarText(v); s != "" {
		return s
	}
	return otherwise
}

func isTrue(v *Value) bool { return v != nil && v.Kind == Bool && v.Text == "true" }

// number returns a whole number that was checked.
func number(v *Value) int {
	f, _ := strconv.ParseFloat(scalarText(v), 64)
	return int(f)
}

const megabyte = 1_000_000

// memory reads a size that was checked. Its letters are decimal, as in the
// reference.
func memory(s string) caisson.Bytes {
	n, _ := strconv.ParseInt(s[:len(s)-1], 10, 64)
	if strings.HasSuffix(strings.ToLower(s), "g") {
		n *= 1000
	}
	return caisson.Bytes(n) * megabyte
}

// defaultVerbosity is what becomes of messages, by level.
var defaultVerbosity = map[int]string{
	100: "none", 200: "normal", 250: "normal", 300: "normal", 400: "normal",
	500: "camouflage", 550: "camouflage", 600: "camouflage",
}

func logging(file string, v *Value) (Logging, error) {
	l := Logging{
		Type: orElse(v.Get("type"), "standard"), GELFServer: orElse(v.Get("gelf_server_type"), "tcp"),
		NoApplicationErrors: isTrue(v.Get("no_application_errors")),
		Verbosity:           map[int]string{},
	}
	given := v.Get("verbosity")
	if given.IsEmpty() {
		for level, what := range defaultVerbosity {
			l.Verbosity[level] = what
		}
		return l, nil
	}
	var wrong Problems
	for _, m := range given.Members {
		level, err := strconv.Atoi(m.Key)
		if err != nil || defaultVerbosity[level] == "" {
			wrong = append(wrong, Problem{
				File: file, Path: fields.Join("data.logging.verbosity", m.Key),
				Message: "is not a level; want 100, 200, 250, 300, 400, 500, 550 or 600",
			})
			continue
		}
		l.Verbosity[level] = orElse(m.Value, "none")
	}
	if len(wrong) > 0 {
		return l, wrong
	}
	return l, nil
}

// readSource reads where the program comes from.
func (d *Definition) readSource(v *Value) {
	kind := scalarText(v.Get("type"))
	switch kind {
	case "command":
		d.Command, d.Workdir = texts(v.Get("command")), scalarText(v.Get("workdir"))
		d.Env = map[string]string{}
		if env := v.Get("env"); env != nil {
			for _, m := range env.Members {
				d.Env[m.Key] = scalarText(m.Value)
			}
		}
	case "builder":
		options := v.Get("build_options")
		b := &Builder{
			Parent: imageSource(scalarText(options.Get("parent_type")), v),
			Repository: Repository{
				URI:      scalarText(options.Get("repository", "uri")),
				Username: scalarText(options.Get("repository", "username")),
				Password: scalarText(options.Get("repository", "#password")),
			},
			EntryPoint: scalarText(options.Get("entry_point")),
			Commands:   texts(options.Get("commands")),
			Version:    scalarText(options.Get("version")),
			NoCache:    !isTrue(options.Get("cache")),
		}
		if list := options.Get("parameters"); list != nil {
			for _, p := range list.Items {
				b.Parameters = append(b.Parameters, BuildParameter{
					Name: scalarText(p.Get("name")), Type: scalarText(p.Get("type")), Optional: !isTrue(p.Get("required")),
					Default: scalarText(p.Get("default_value")), Values: texts(p.Get("values")),
				})
			}
		}
		d.Builder = b
	default:
		d.Image = imageSource(kind, v)
	}
}

// imageSource reads where an image comes from. Kind is the registry's.
func imageSource(kind string, v *Value) *ImageSource {
	s := &ImageSource{
		URI: scalarText(v.Get("uri")), Tag: orElse(v.Get("tag"), "latest"), Digest: scalarText(v.Get("digest")),
		Username: scalarText(v.Get("repository", "username")), Password: scalarText(v.Get("repository", "#password")),
		Server: scalarText(v.Get("repository", "server")),
	}
	host, _, _ := strings.Cut(s.URI, "/")
	if strings.HasPrefix(kind, "quayio") && !strings.ContainsAny(host, ".:") {
		s.URI = "quay.io/" + s.URI
	}
	if s.Digest != "" && !strings.HasPrefix(s.Digest, "sha256:") {
		s.Digest = "sha256:" + s.Digest
	}
	return s
}
