package component

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// A Configuration is one use of a component, with its rows, as it is kept in
// files: nothing is resolved, and "#" values are sealed.
type Configuration struct {
	ID        string // of a folder that says none, the folder's name; empty: it has none
	Name      string
	Version   string
	Component string // its id in the registry; empty: the caller knows
	Data      *Value // an object; never nil
	Rows      []Row
	File      string // where Data was read
	Dir       string // the folder of that file, absolute: what relative paths start at
}

// A Row is a part of a configuration that runs by itself. Its data is put over
// the configuration's.
type Row struct {
	ID       string // empty: there are no rows
	Name     string
	Disabled bool
	Data     *Value // an object; never nil
	File     string // where Data was read
}

// configurationType describes a file that says more of a configuration than
// its keys: as Keboola's storage hands it out, too.
func configurationType() *fields.Type {
	data := &fields.Type{Form: fields.Open, Want: "a mapping with a configuration's keys"}
	name := func() *fields.Type { return scalar() }
	t := object(
		"a mapping with component and configuration",
		also(field("component", name(), "", "The component's id in the registry."), "component_id", "componentid"),
		field("id", name(), "", "The configuration."),
		field("name", name(), "", "What people call it."),
		field("version", name(), "", "Its version."),
		required("configuration", data, "The configuration."),
		field("rows", list(rowType(true)), "", "Its rows."),
	)
	t.Fields = append(exported(t.Fields), field("isDisabled", anything(), "", "Has no effect."))
	return t
}

// rowType describes a row. Named says that nothing but its id names it: it is in
// no file of its own.
func rowType(named bool) *fields.Type {
	id := required("id", given("a row's id"), "The row.")
	if !named {
		id = field("id", scalar(), "", "The row: the file's name.")
	}
	t := object(
		"a mapping with id and configuration",
		id,
		required("configuration", &fields.Type{Form: fields.Open, Want: "a mapping with a configuration's keys"}, "What is put over the configuration."),
		field("name", scalar(), "", "What people call it."),
		also(field("isDisabled", toggle(), "", "Whether it runs only where it is named."), "disabled"),
	)
	t.Fields = append(exported(t.Fields), field("version", anything(), "", "Has no effect."))
	return t
}

// exported adds what comes with an export and means nothing here.
func exported(list []fields.Field) []fields.Field {
	for _, key := range []string{
		"description", "changeDescription", "created", "creatorToken", "currentVersion", "isDeleted", "rowsSortOrder",
		"state", "url", "token",
	} {
		list = append(list, field(key, anything(), "", "Has no effect."))
	}
	return list
}

// ReadConfiguration reads a configuration from a file or a folder.
//
// A file holds a configuration's keys (parameters, storage ...), or a mapping
// with "configuration" and what else there is to say: component, id, name,
// version, rows. A folder has such a file, config.json, config.yaml or
// config.yml, and may have rows: rows/ID.json (or .yaml, .yml), which may be a
// mapping with "configuration", name and isDisabled, or a folder rows/ID with a
// config file and maybe a file meta.json with name and isDisabled.
//
// Errors: ErrNotFound, Problems.
func ReadConfiguration(path string) (*Configuration, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	if !info.IsDir() {
		return readConfigurationFile(path)
	}
	file := oneOf(path, "config")
	if file == "" {
		return nil, &caisson.Error{
			Op: caisson.OpValidate, Item: path, Kind: caisson.ErrNotFound,
			Err: fmt.Errorf("there is no config.json, config.yaml or config.yml in the folder"),
		}
	}
	c, err := readConfigurationFile(file)
	if err != nil {
		return nil, err
	}
	rows, err := readRows(filepath.Join(path, "rows"))
	if err != nil {
		return nil, err
	}
	if c.Rows = append(c.Rows, rows...); len(c.Rows) > 0 {
		if err := c.checkRows(); err != nil {
			return nil, err
		}
	}
	if c.ID == "" {
		c.ID = filepath.Base(c.Dir)
	}
	return c, nil
}

func readConfigurationFile(file string) (*Configuration, error) {
	v, err := readText(file)
	if err != nil {
		return nil, err
	}
	if v.Kind == List && len(v.Items) == 0 {
		v = NewObject()
	}
	if v.Kind != Object {
		return nil, problem(file, "", "is not a mapping with a configuration's keys")
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, fileError(file, err)
	}
	c := &Configuration{File: file, Dir: dir, Data: v}
	switch {
	case v.Get("configuration") != nil:
	case v.Get("data", "definition") != nil:
		return nil, problem(file, "", "is a component's definition, not a configuration of it")
	case v.Get("component") != nil:
		return nil, problem(file, "component", `stands beside "configuration": {component: ID, configuration: {parameters: ...}}`)
	default:
		return c, nil
	}
	if v, err = check(file, v, configurationType()); err != nil {
		return nil, err
	}
	c.ID, c.Name, c.Component = scalarText(v.Get("id")), scalarText(v.Get("name")), scalarText(v.Get("component"))
	c.Version, c.Data = scalarText(v.Get("version")), v.Get("configuration")
	if rows := v.Get("rows"); rows != nil {
		for _, r := range rows.Items {
			c.Rows = append(c.Rows, Row{
				ID: scalarText(r.Get("id")), Name: scalarText(r.Get("name")), Disabled: isTrue(r.Get("isDisabled")),
				Data: r.Get("configuration"), File: file,
			})
		}
	}
	return c, c.checkRows()
}

// checkRows reports rows of the same id.
func (c *Configuration) checkRows() error {
	seen := map[string]bool{}
	var wrong Problems
	for _, r := range c.Rows {
		if seen[r.ID] {
			wrong = append(wrong, Problem{File: r.File, Path: "rows", Message: fmt.Sprintf("the row %q is there twice", clip(r.ID))})
		}
		seen[r.ID] = true
	}
	if len(wrong) > 0 {
		return wrong
	}
	return nil
}

// readRows reads a folder of rows, in the order of their names.
func readRows(dir string) ([]Row, error) {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fileError(dir, err)
	}
	var rows []Row
	for _, e := range entries {
		file, id := filepath.Join(dir, e.Name()), e.Name()
		row := Row{}
		if e.IsDir() {
			folder := file
			if file = oneOf(folder, "config"); file == "" {
				continue
			}
			if meta := oneOf(folder, "meta"); meta != "" {
				v, err := readText(meta)
				if err != nil {
					return nil, err
				}
				row.Name, row.Disabled = scalarText(v.Get("name")), isTrue(v.Get("isDisabled"))
			}
		} else if !isText(e.Name()) {
			continue
		} else {
			id = strings.TrimSuffix(id, filepath.Ext(id))
		}
		data, err := readText(file)
		if err != nil {
			return nil, err
		}
		if data.Kind == List && len(data.Items) == 0 {
			data = NewObject()
		}
		if data.Kind != Object {
			return nil, problem(file, "", "is not a mapping with a configuration's keys")
		}
		row.ID, row.Data, row.File = id, data, file
		if data.Get("configuration") != nil {
			if err := row.unwrap(); err != nil {
				return nil, err
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// unwrap takes a row of a file that says more of it than its keys. Its id, if
// there is one, is that of the file, so that there is one name for it.
func (r *Row) unwrap() error {
	v, err := check(r.File, r.Data, rowType(false))
	if err != nil {
		return err
	}
	if id := scalarText(v.Get("id")); id != "" && id != r.ID {
		return problem(r.File, "id", fmt.Sprintf("is not the file's name, %q", clip(r.ID)))
	}
	r.Name, r.Disabled, r.Data = scalarText(v.Get("name")), isTrue(v.Get("isDisabled")), v.Get("configuration")
	return nil
}

// Select returns the rows to be run, in the order of the configuration: all
// that are not disabled, or those named, disabled or not. A configuration
// without rows has one, whose ID is empty. Skipped are the ids of disabled rows
// that are not run, forced those that are.
//
// Errors: ErrNotFound where none of the names is a row's, or one is not.
func (c *Configuration) Select(names []string) (rows []Row, skipped, forced []string, err error) {
	if len(c.Rows) == 0 && len(names) == 0 {
		return []Row{{Data: NewObject(), File: c.File}}, nil, nil, nil
	}
	missing := slices.Clone(names)
	for _, r := range c.Rows {
		named := slices.Contains(names, r.ID)
		missing = slices.DeleteFunc(missing, func(name string) bool { return name == r.ID })
		switch {
		case len(names) > 0 && !named:
			continue
		case r.Disabled && !named:
			skipped = append(skipped, r.ID)
			continue
		case r.Disabled:
			forced = append(forced, r.ID)
		}
		rows = append(rows, r)
	}
	if len(missing) > 0 {
		for i := range missing {
			missing[i] = strconv.Quote(clip(missing[i]))
		}
		return nil, nil, nil, &caisson.Error{
			Op: caisson.OpValidate, Kind: caisson.ErrNotFound,
			Err: fmt.Errorf("the configuration has no row %s", strings.Join(missing, ", ")),
		}
	}
	return rows, skipped, forced, nil
}

// merged returns the configuration with a row put over it, as PHP's
// array_replace_recursive does: mappings key by key, lists element by element,
// so that a shorter list of the row keeps the rest of the configuration's.
func (c *Configuration) merged(row *Row) (*Value, error) {
	if !c.Data.Get("processors").noProcessors() && !row.Data.Get("processors").noProcessors() {
		return nil, problem(row.File, "processors", "are in the configuration and in its row "+strconv.Quote(clip(row.ID))+
			"; leave them in one of the two")
	}
	return replace(c.Data, row.Data).Clone(), nil
}

// noProcessors reports whether v, a processors section, names none.
func (v *Value) noProcessors() bool {
	return v.Get("before").IsEmpty() && v.Get("after").IsEmpty()
}

// replace returns base with over put over it. The result may share parts with
// both.
func replace(base, over *Value) *Value {
	if base == nil || over == nil || !isTree(base) || !isTree(over) {
		return over
	}
	if over.IsEmpty() {
		return base
	}
	if base.IsEmpty() {
		return over
	}
	if base.Kind == List && over.Kind == List {
		out := at(base, List)
		for i := range max(len(base.Items), len(over.Items)) {
			switch {
			case i >= len(over.Items):
				out.Items = append(out.Items, base.Items[i])
			case i >= len(base.Items):
				out.Items = append(out.Items, over.Items[i])
			default:
				out.Items = append(out.Items, replace(base.Items[i], over.Items[i]))
			}
		}
		return out
	}
	out := at(base, Object)
	out.Members = slices.Clone(members(base))
	for _, m := range members(over) {
		if there := out.Get(m.Key); there != nil {
			out.Set(m.Key, replace(there, m.Value))
		} else {
			out.Members = append(out.Members, m)
		}
	}
	if base.Kind == List || over.Kind == List {
		return relist(out)
	}
	return out
}

func isTree(v *Value) bool { return v.Kind == List || v.Kind == Object }

// members returns what is in an object, or in a list by its numbers.
func members(v *Value) []Member {
	if v.Kind == Object {
		return v.Members
	}
	out := make([]Member, len(v.Items))
	for i, item := range v.Items {
		out[i] = Member{Key: strconv.Itoa(i), Value: item}
	}
	return out
}

// relist makes a list of an object whose keys are 0, 1, 2 ..., as PHP has them
// written.
func relist(v *Value) *Value {
	for i, m := range v.Members {
		if m.Key != strconv.Itoa(i) {
			return v
		}
	}
	out := at(v, List)
	for _, m := range v.Members {
		out.Items = append(out.Items, m.Value)
	}
	return out
}
