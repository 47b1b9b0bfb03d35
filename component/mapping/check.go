//go:build unix

package mapping

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/caissonrun/caisson/component/storage"
)

// Check refuses, before anything runs, what no run could do: names and table ids
// and dates that are none, and what a storage with these features can't do. It
// tells all of it at once. Errors: ErrInvalid, ErrUnsupported.
func Check(f storage.Features, c *component.StorageConfig) error {
	k := &checker{features: f}
	for i := range c.Input.Tables {
		k.inputTable(fmt.Sprintf("storage.input.tables[%d]", i), &c.Input.Tables[i])
	}
	for i := range c.Input.Files {
		k.inputFile(fmt.Sprintf("storage.input.files[%d]", i), &c.Input.Files[i])
	}
	for i := range c.Output.Tables {
		k.outputTable(fmt.Sprintf("storage.output.tables[%d]", i), &c.Output.Tables[i].TableManifest)
	}
	if b := c.Output.DefaultBucket; b != "" {
		if _, err := storage.ParseID(b + ".t"); err != nil {
			k.add("storage.output.default_bucket", caisson.ErrInvalid, fmt.Errorf("%q is no bucket: write STAGE.c-BUCKET", b))
		}
	}
	if c.Output.DataTypeSupport == "authoritative" && !f.Types {
		k.unsupported("storage.output.data_type_support", "the storage keeps text only; use hints or none")
	}
	if v := c.Output.TreatValuesAsNull; len(v) > 0 && !slices.Equal(v, []string{""}) {
		k.unsupported("storage.output.treat_values_as_null", "no storage has it")
	}
	return errors.Join(k.problems...)
}

type checker struct {
	features storage.Features
	problems []error
}

func (k *checker) unsupported(item, format string, args ...any) {
	k.add(item, caisson.ErrUnsupported, fmt.Errorf(format, args...))
}

func (k *checker) add(item string, kind caisson.Kind, err error) {
	k.problems = append(k.problems, &caisson.Error{Op: caisson.OpValidate, Item: item, Kind: kind, Err: err})
}

// date refuses what is no date.
func (k *checker) date(item, text string) {
	if text == "" || text == Adaptive {
		return
	}
	if _, err := ParseTime(text, time.Now().UTC()); err != nil {
		k.add(item, caisson.ErrInvalid, err)
	}
}

func (k *checker) inputTable(item string, t *component.InputTable) {
	if _, err := storage.ParseID(t.Source); err != nil {
		k.add(item+".source", caisson.ErrInvalid, err)
	}
	if err := folder.CheckName(t.FileName()); err != nil {
		k.add(item+".destination", caisson.ErrInvalid, err)
	}
	k.date(item+".changed_since", t.ChangedSince)
	if !k.features.ChangedSince && (t.ChangedSince != "" || t.Days != 0) {
		k.unsupported(item, "days and changed_since: the storage does not know when rows were changed")
	}
	if t.SourceBranchID != "" {
		k.unsupported(item+".source_branch_id", "there are no branches")
	}
	if t.FileType != "" && t.FileType != "csv" {
		k.unsupported(item+".file_type", "%q: tables are CSV", t.FileType)
	}
}

func (k *checker) inputFile(item string, f *component.InputFile) {
	k.date(item+".changed_since", f.ChangedSince)
	if f.Query != "" && !k.features.FileQuery {
		k.unsupported(item+".query", "the storage can't search; use tags")
	}
	if f.FilterByRunID {
		k.unsupported(item+".filter_by_run_id", "it is no more: files have a tag with the run's id")
	}
}

func (k *checker) outputTable(item string, t *component.TableManifest) {
	if truthy(t.Destination) {
		if _, err := storage.ParseID(t.Destination); err != nil {
			k.add(item+".destination", caisson.ErrInvalid, err)
		}
	}
	if t.UnloadStrategy != "" {
		k.unsupported(item+".unload_strategy", "%q is of workspaces, which there are none of", t.UnloadStrategy)
	}
	for i, d := range t.DeleteWhere {
		at := fmt.Sprintf("%s.delete_where[%d]", item, i)
		k.date(at+".changed_since", d.ChangedSince)
		k.date(at+".changed_until", d.ChangedUntil)
		if !k.features.ChangedSince && (d.ChangedSince != "" || d.ChangedUntil != "") {
			k.unsupported(at, "changed_since and changed_until: the storage does not know when rows were changed")
		}
		for n, w := range d.Filters {
			if w.FromWorkspace != nil {
				k.unsupported(fmt.Sprintf("%s.where_filters[%d]", at, n), "values_from_workspace: there are no workspaces")
			}
		}
	}
}
