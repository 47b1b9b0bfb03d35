//go:build unix

package mapping

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/caissonrun/caisson/component/storage"
)

const (
	// maxPlan is how many bytes a plan may have: it is held in memory, and a
	// component says what is in it.
	maxPlan = 64 << 20
	// maxProblems is how many problems are told at once.
	maxProblems = 50
)

// A planner makes a plan. It collects what the user can mend, and ends at once
// at anything else.
type planner struct {
	*Output
	ctx    context.Context // of the one call that the planner lives for
	now    time.Time
	plan   *Plan
	bucket string
	known  map[string]*storage.Table // by id; nil: there is none
	size   int

	problems []error
	more     int // problems that are left out
}

// Plan checks everything in out/ and says what would be loaded. It changes
// nothing in the storage.
//
// Errors: ErrInvalid and ErrNotFound for what the component or its configuration
// got wrong, all of it at once where that is possible; ErrUnsupported for what
// the storage can't do.
func (o *Output) Plan(ctx context.Context) (*Plan, error) {
	p := &planner{
		Output: o, ctx: ctx, now: timeOrNow(o.Now), known: map[string]*storage.Table{},
		plan: &Plan{Files: []FileLoad{}, Tables: []TableLoad{}},
	}
	var err error
	if p.bucket, err = DefaultBucket(o.Component, &o.Config, o.Who.Configuration); err != nil {
		return nil, err
	}
	if !o.Failed {
		if err := p.files(); err != nil {
			return nil, err
		}
	}
	if err := p.tables(); err != nil {
		return nil, err
	}
	if err := p.told(); err != nil {
		return nil, err
	}
	return p.plan, nil
}

func (p *planner) warn(format string, args ...any) {
	if len(p.plan.Warnings) < maxProblems {
		p.plan.Warnings = append(p.plan.Warnings, short(fmt.Sprintf(format, args...)))
	}
}

// maxText is how many bytes a message has: names in it are a component's.
const maxText = 4000

func short(text string) string {
	if len(text) > maxText {
		return text[:maxText] + " ..."
	}
	return text
}

// problem keeps what the user can mend, and returns what he can't.
func (p *planner) problem(item string, err error) error {
	if err == nil {
		return nil
	}
	kind := caisson.KindOf(err)
	if kind == caisson.ErrUnknown {
		kind = caisson.ErrInvalid // what is found out here has no kind yet
	}
	sorted := about(item, kind, err)
	switch {
	case p.ctx.Err() != nil:
		return p.ctx.Err()
	case component.FaultOf(sorted) == component.ApplicationFault:
		return fmt.Errorf("%s: %w", item, err)
	}
	if len(p.problems) == maxProblems {
		p.more++
		return nil
	}
	if text := sorted.Error(); len(text) > maxText {
		sorted = &caisson.Error{Kind: kind, Err: errors.New(short(text))}
	}
	p.problems = append(p.problems, sorted)
	return nil
}

// about is a user's error about a part of out/. What says already that it is of
// staging out does not say so twice.
func about(item string, kind caisson.Kind, err error) *caisson.Error {
	e, ok := err.(*caisson.Error)
	switch {
	case !ok || e.Op != caisson.OpStageOut:
	case item == "":
		return e
	default:
		inner := *e
		inner.Op = ""
		err = &inner
	}
	return &caisson.Error{Op: caisson.OpStageOut, Item: item, Kind: kind, Err: err}
}

// problemf is problem for what is found out here.
func (p *planner) problemf(item, format string, args ...any) {
	_ = p.problem(item, fmt.Errorf(format, args...)) // it has no kind yet, so it is kept
}

// told returns all problems. A failed component's are warnings: whatever of its
// output is in order is loaded all the same.
func (p *planner) told() error {
	if p.Failed {
		for _, err := range p.problems {
			p.warn("%v", err)
		}
		return nil
	}
	if p.more > 0 {
		p.problems = append(p.problems, fmt.Errorf("and %d more", p.more))
	}
	return errors.Join(p.problems...)
}

// grow accounts for what was added to the plan.
func (p *planner) grow(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if p.size += len(data); p.size > maxPlan {
		return &caisson.Error{
			Op: caisson.OpStageOut, Item: "out", Kind: caisson.ErrInvalid,
			Err: fmt.Errorf("what manifests and headers say of its tables and files is more than %s", caisson.Bytes(maxPlan)),
		}
	}
	return nil
}

// loadID names a load: by what is loaded, so that it is the same in every plan
// of this attempt.
func (p *planner) loadID(part folder.Part, name string, k int) string {
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("%s/%s/%s.%d", p.LoadID, part, hex.EncodeToString(sum[:8]), k)
}

// quoteAll returns names for a message, no more than fit.
func quoteAll(list []string) string {
	const most = 20
	var out []string
	for i, s := range list {
		if i == most {
			out = append(out, fmt.Sprintf("and %d more", len(list)-most))
			break
		}
		out = append(out, fmt.Sprintf("%.200q", s))
	}
	return strings.Join(out, ", ")
}

// tables plans out/tables.
func (p *planner) tables() error {
	if p.plainFiles() {
		return nil // they are among the files
	}
	listing, err := p.Folder.List(p.ctx, folder.Tables)
	if err != nil {
		return p.problem("", err)
	}
	if len(listing.Orphans) > 0 {
		p.problemf("out/tables", "orphaned table manifests, with no data beside them: %s", quoteAll(listing.Orphans))
	}
	mapped := map[string][]*component.OutputTable{}
	for i := range p.Config.Tables {
		t := &p.Config.Tables[i]
		mapped[t.Source] = append(mapped[t.Source], t)
	}
	if !p.Failed {
		p.missingSources(listing)
	}
	for i := range listing.Items {
		item := &listing.Items[i]
		if err := p.item(item, mapped[item.Name]); err != nil {
			return err
		}
	}
	p.twice()
	return nil
}

// missingSources tells of mappings without data.
func (p *planner) missingSources(l *folder.Listing) {
	there := map[string]bool{}
	for i := range l.Items {
		there[l.Items[i].Name] = true
	}
	var gone []string
	for i := range p.Config.Tables {
		if s := p.Config.Tables[i].Source; !there[s] && !slices.Contains(gone, s) {
			gone = append(gone, s)
		}
	}
	if len(gone) > 0 {
		_ = p.problem("out/tables", &caisson.Error{Kind: caisson.ErrNotFound, Err: fmt.Errorf("table sources not found: %s", quoteAll(gone))})
	}
}

// item plans the loads of one table that the component wrote: one for each
// mapping, or one by its manifest alone.
func (p *planner) item(item *folder.Item, mappings []*component.OutputTable) error {
	name := fmt.Sprintf("table %q", item.Name)
	var manifest *component.TableManifest
	if item.Manifest {
		var err error
		if manifest, err = p.Folder.TableManifest(item.Name); err != nil {
			return p.problem(name, err)
		}
		for _, w := range manifest.Warnings {
			p.warn("%s: %s", name, w)
		}
	}
	if len(mappings) == 0 {
		if p.Strict && !p.Failed {
			p.problemf(name, "no mapping names it, and strict mapping loads nothing else")
			return nil
		}
		mappings = []*component.OutputTable{nil}
	}
	for k, t := range mappings {
		var mapping *component.TableManifest
		if t != nil {
			mapping = &t.TableManifest
		}
		load, err := p.table(item, manifest, mapping)
		if err != nil {
			if err := p.problem(name, err); err != nil {
				return err
			}
			continue
		}
		if load == nil {
			continue
		}
		load.ID = p.loadID(folder.Tables, item.Name, k)
		if err := p.grow(load); err != nil {
			return err
		}
		p.plan.Tables = append(p.plan.Tables, *load)
	}
	return nil
}

// twice warns where a load throws away what another one of the plan has loaded.
func (p *planner) twice() {
	first := map[string]string{}
	for i := range p.plan.Tables {
		t := &p.plan.Tables[i]
		key := strings.ToLower(t.Table)
		if other, ok := first[key]; ok && !t.Incremental {
			p.warn("%q replaces in %s what %q has put there before", t.Source, t.Table, other)
		}
		first[key] = t.Source
	}
}

// table plans one load; nil if there is nothing to be loaded.
func (p *planner) table(item *folder.Item, manifest, mapping *component.TableManifest) (*TableLoad, error) {
	names := newNames(item.Name, p.warn)
	m, err := merge(manifest, mapping, names)
	if err != nil {
		return nil, err
	}
	if p.Failed && !m.WriteAlways {
		return nil, nil
	}
	load := &TableLoad{
		Source: item.Name, Incremental: m.Incremental, WriteAlways: m.WriteAlways,
		Delimiter: m.Delimiter, Enclosure: m.Enclosure, Insert: m.DeduplicationStrategy == "insert",
		Origins: m.origins,
	}
	if load.Table, load.Origins["table"], err = p.destination(item.Name, manifest, mapping); err != nil {
		return nil, err
	}
	delete(load.Origins, "destination")
	if err := p.dataTypes(m); err != nil {
		return nil, err
	}
	said, err := p.columns(load, item, m)
	if err != nil {
		return nil, err
	}
	if err := p.name(load, said, m, names); err != nil {
		return nil, err
	}
	table, err := p.stored(load.Table)
	if err != nil {
		return nil, err
	}
	load.New = table == nil
	if err := p.fit(load, table, m, names); err != nil {
		return nil, err
	}
	if load.Delete, err = p.deletes(m, table, names); err != nil {
		return nil, err
	}
	p.describe(load, m, names)
	for _, key := range []string{
		"columns", "delimiter", "enclosure", "incremental", "primary_key", "delete", "metadata", "column_metadata", "write_always", "insert",
	} {
		if load.Origins[key] == "" {
			load.Origins[key] = FromDefault
		}
	}
	return load, nil
}

// dataTypes checks what a component that knows of types owes.
func (p *planner) dataTypes(m *merged) error {
	if p.DataTypes == "" || p.DataTypes == "none" {
		return nil
	}
	if p.DataTypes == "authoritative" && !p.Storage.Features().Types {
		return unsupported("data types of columns: the storage keeps text only")
	}
	if len(m.Schema) == 0 {
		return errors.New("its schema is missing: a component with data types must give one")
	}
	if p.DataTypes != "authoritative" {
		return nil
	}
	var untyped []string
	for _, c := range m.Schema {
		if c.DataType["base"].Type == "" {
			untyped = append(untyped, c.Name)
		}
	}
	if len(untyped) > 0 {
		return fmt.Errorf("the data type is missing for columns: %s", quoteAll(untyped))
	}
	return nil
}

func unsupported(format string, args ...any) error {
	return &caisson.Error{Kind: caisson.ErrUnsupported, Err: fmt.Errorf(format, args...)}
}

// columns finds out where rows begin, and what the component calls its columns.
func (p *planner) columns(load *TableLoad, item *folder.Item, m *merged) ([]string, error) {
	delimiter, enclosure, err := m.dialect()
	if err != nil {
		return nil, err
	}
	var said []string
	for _, c := range m.Schema {
		said = append(said, c.Name)
	}
	load.Origins["columns"] = m.origins["columns"]
	if len(said) > 0 {
		load.Origins["columns"] = FromSchema
	} else {
		said = m.Columns
	}
	for _, s := range item.Slices {
		load.Slices = append(load.Slices, SliceFile{File: s})
	}
	switch {
	case item.Sliced && len(said) == 0:
		return nil, errors.New("it is a folder of slices, which have no header: its columns must be in its manifest or mapping")
	case item.Sliced && m.HasHeader:
		p.warn("table %q: has_header does not count: slices never have a header", item.Name)
		return said, nil
	}
	head, err := load.Slices[0].readHeader(p.Folder, delimiter, enclosure)
	if len(said) > 0 && !m.HasHeader {
		// Whatever is wrong with its rows is told when they are loaded.
		if err == nil && sameSet(head.Columns, said) {
			p.warn("table %q: its first line looks like a header, and is loaded as a row because columns are given: set has_header, or leave columns out", item.Name)
		}
		return said, nil
	}
	if err != nil {
		return nil, err
	}
	load.Slices[0].Offset, load.Slices[0].Lines = head.Size, head.Lines
	if len(said) == 0 {
		load.Origins["columns"] = FromHeader
		return head.Columns, nil
	}
	if len(said) != len(head.Columns) {
		return nil, fmt.Errorf("its header has %d columns instead of %d; check the delimiter (%q)", len(head.Columns), len(said), m.Delimiter)
	}
	return said, nil
}

// name gives columns and keys names that storages can have.
func (p *planner) name(load *TableLoad, said []string, m *merged, names *names) error {
	for _, c := range said {
		if restricted(c) {
			return fmt.Errorf("the system column %q can't be imported", c)
		}
	}
	load.Columns = names.all(said)
	if err := checkColumns(load.Columns, said); err != nil {
		return err
	}
	keys := slices.Clone(m.PrimaryKey)
	for _, c := range m.Schema {
		if c.PrimaryKey {
			keys = append(keys, c.Name)
			load.Origins["primary_key"] = FromSchema
		}
	}
	load.PrimaryKey = []string{}
	seen := map[string]bool{}
	for _, key := range names.all(keys) {
		if !seen[key] {
			seen[key] = true
			load.PrimaryKey = append(load.PrimaryKey, key)
		}
	}
	return nil
}

// stored returns what the storage knows of a table; nil if it has none.
func (p *planner) stored(id string) (*storage.Table, error) {
	key := strings.ToLower(id)
	if t, ok := p.known[key]; ok {
		return t, nil
	}
	t, err := p.Storage.Table(p.ctx, id)
	if errors.Is(err, caisson.ErrNotFound) {
		t, err = nil, nil
	}
	if err == nil {
		p.known[key] = t
	}
	return t, ofStorage(err)
}

// fit checks a load against the table that is there, and takes over how that
// writes its columns' names.
func (p *planner) fit(load *TableLoad, table *storage.Table, m *merged, names *names) error {
	if table != nil {
		spellingOf(table.Columns).all(load.Columns)
		if gone := missing(table.Columns, load.Columns); len(gone) > 0 {
			return fmt.Errorf("some columns of %s are missing in it: %s; expected are %s; check whether %q is its delimiter",
				table.ID, quoteAll(gone), quoteAll(table.Columns), load.Delimiter)
		}
	}
	columns := spellingOf(load.Columns)
	if gone := columns.missing(load.PrimaryKey); len(gone) > 0 {
		return fmt.Errorf("columns of the primary key are missing in it: %s; it has %s", quoteAll(gone), quoteAll(load.Columns))
	}
	columns.all(load.PrimaryKey)
	for column := range m.ColumnMetadata {
		if _, ok := columns.of(names.one(column)); !ok {
			return fmt.Errorf("column_metadata is about a column %q, which it does not have", column)
		}
	}
	if table == nil {
		return nil
	}
	if !sameSet(table.PrimaryKey, load.PrimaryKey) {
		load.OldKey = slices.Clone(table.PrimaryKey)
	}
	added := missing(load.Columns, table.Columns)
	switch mode := p.Config.TableModifications; {
	case mode == "none" && len(added) > 0:
		return fmt.Errorf("columns would be added to %s, which table_modifications forbids: %s", table.ID, quoteAll(added))
	case (mode == "none" || mode == "non-destructive") && !sameSet(table.PrimaryKey, load.PrimaryKey):
		return fmt.Errorf("the primary key of %s would be changed from %s to %s, which table_modifications forbids",
			table.ID, quoteKey(table.PrimaryKey), quoteKey(load.PrimaryKey))
	}
	return nil
}

func quoteKey(key []string) string {
	if len(key) == 0 {
		return "none"
	}
	return quoteAll(key)
}
