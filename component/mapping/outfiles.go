//go:build unix

package mapping

import (
	"fmt"
	"slices"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
)

// files plans out/files, and out/tables where those are kept as plain files.
func (p *planner) files() error {
	listing, err := p.Folder.List(p.ctx, folder.Files)
	if err != nil {
		return p.problem("", err)
	}
	mapped := map[string]*component.OutputFile{}
	for i := range p.Config.Files {
		f := &p.Config.Files[i]
		if mapped[f.Source] != nil {
			p.warn("file %q is mapped more than once: the last mapping counts", f.Source)
		}
		mapped[f.Source] = f
	}
	p.missingFiles(listing)
	if len(listing.Orphans) > 0 {
		p.problemf("out/files", "orphaned file manifests, with no data beside them: %s", quoteAll(listing.Orphans))
	}
	for i := range listing.Items {
		item := &listing.Items[i]
		load, err := p.file(item, mapped[item.Name])
		if err != nil {
			if err := p.problem(fmt.Sprintf("file %q", item.Name), err); err != nil {
				return err
			}
			continue
		}
		if err := p.addFile(load); err != nil {
			return err
		}
	}
	if p.plainFiles() {
		return p.tableFiles()
	}
	return nil
}

// missingFiles tells of mappings without a file.
func (p *planner) missingFiles(l *folder.Listing) {
	var gone []string
	for i := range p.Config.Files {
		s := p.Config.Files[i].Source
		there := slices.ContainsFunc(l.Items, func(item folder.Item) bool { return item.Name == s })
		if !there && !slices.Contains(gone, s) {
			gone = append(gone, s)
		}
	}
	if len(gone) > 0 {
		_ = p.problem("out/files", &caisson.Error{Kind: caisson.ErrNotFound, Err: fmt.Errorf("files not found: %s", quoteAll(gone))})
	}
}

// file plans one file: by its mapping, which takes the place of its manifest.
func (p *planner) file(item *folder.Item, mapping *component.OutputFile) (*FileLoad, error) {
	load := &FileLoad{
		Part: folder.Files, Source: item.Name, Name: item.Name, File: item.Slices[0],
		Said: component.FileManifest{IsEncrypted: true}, Origin: FromDefault,
	}
	switch {
	case mapping != nil:
		load.Said, load.Origin = mapping.FileManifest, FromMapping
		if item.Manifest {
			p.warn("file %q: its manifest does not count, because there is a mapping for it", item.Name)
		}
	case p.Strict:
		return nil, fmt.Errorf("no mapping names it, and strict mapping keeps nothing else")
	case item.Manifest:
		m, err := p.Folder.FileManifest(item.Name)
		if err != nil {
			return nil, err
		}
		load.Said, load.Origin = *m, FromManifest
	}
	return load, nil
}

// addFile gives a file its id and tags and adds it to the plan.
func (p *planner) addFile(load *FileLoad) error {
	load.ID = p.loadID(load.Part, load.Source, 0)
	load.Tags = append(slices.Clone(load.Said.Tags), p.systemTags()...)
	slices.Sort(load.Tags)
	load.Tags = slices.Compact(load.Tags)
	if err := p.grow(load); err != nil {
		return err
	}
	p.plan.Files = append(p.plan.Files, *load)
	return nil
}

// systemTags are the tags that every output file gets.
func (p *planner) systemTags() []string {
	var out []string
	for _, t := range []struct{ name, value string }{
		{"componentId", p.componentID()},
		{"configurationId", p.Who.Configuration},
		{"configurationRowId", p.Who.Row},
		{"branchId", p.Who.Branch},
		{"runId", p.Who.Run},
	} {
		if t.value != "" {
			out = append(out, t.name+": "+t.value)
		}
	}
	return out
}

// plainFiles reports whether out/tables is kept as files: the configuration asks
// for it, and the component is one that may.
func (p *planner) plainFiles() bool {
	return p.Config.TableFiles != nil && p.Component != nil && p.Component.Has(component.FeatureFilesAllowed)
}

// tableFiles plans out/tables as plain files, with their manifests as they are.
func (p *planner) tableFiles() error {
	listing, err := p.Folder.List(p.ctx, folder.Tables)
	if err != nil {
		return p.problem("", err)
	}
	for i := range listing.Items {
		item := &listing.Items[i]
		if item.Sliced {
			if err := p.problem(fmt.Sprintf("table %q", item.Name), unsupported("a folder of slices can't be kept as a plain file")); err != nil {
				return err
			}
			continue
		}
		load := &FileLoad{
			Part: folder.Tables, Source: item.Name, Name: item.Name, File: item.Slices[0],
			Said: component.FileManifest{
				Tags: p.Config.TableFiles.Tags, IsPermanent: p.Config.TableFiles.IsPermanent, IsEncrypted: true,
			},
			Origin: FromMapping,
		}
		if err := p.addFile(load); err != nil {
			return err
		}
	}
	return nil
}
