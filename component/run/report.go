//go:build unix

package run

import (
	"encoding/json"
	"errors"
	"maps"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/mapping"
	"github.com/caissonrun/caisson/executor"
)

// A Document is what a result tells of a component's run.
type Document struct {
	Message       string                     `json:"message"`
	ConfigVersion string                     `json:"config_version,omitempty"`
	Component     string                     `json:"component"`
	Configuration string                     `json:"configuration,omitempty"`
	Mode          string                     `json:"mode"`
	Action        string                     `json:"action"`
	Images        [][]Image                  `json:"images"` // of each row's steps
	Input         Input                      `json:"input"`
	Output        Output                     `json:"output"`
	Variables     map[string]json.RawMessage `json:"variables,omitempty"`
	Usage         []component.Usage          `json:"usage,omitempty"`
	Archives      []Archive                  `json:"archives,omitempty"`
	Artifacts     *Artifacts                 `json:"artifacts,omitempty"`
	Plans         []*mapping.Plan            `json:"plans,omitempty"` // of a dry run
	Warnings      []string                   `json:"warnings,omitempty"`
	Error         *Error                     `json:"error,omitempty"`
}

// An Error is why a run has failed.
type Error struct {
	Type    component.Fault `json:"type"`
	Message string          `json:"message"`
	Row     string          `json:"row,omitempty"`
}

// An Image is what a step ran.
type Image struct {
	Component string   `json:"component"`
	ID        string   `json:"id,omitempty"` // the reference
	Digests   []string `json:"digests,omitempty"`
	Task      string   `json:"task,omitempty"`
}

// Input is what was mapped in.
type Input struct {
	Tables []mapping.FetchedTable `json:"tables"`
	Files  []mapping.FetchedFile  `json:"files"`
}

// Output is what was mapped out.
type Output struct {
	Tables []mapping.LoadedTable `json:"tables"`
	Files  []mapping.LoadedFile  `json:"files"`
}

// An Archive is a copy of a data folder in the storage.
type Archive struct {
	Row  string `json:"row,omitempty"`
	Name string `json:"name"`
	File int64  `json:"file"`
}

// The messages of runs that have gone well.
const (
	messageDone    = "Component processing finished."
	messageNothing = "No configurations executed."
)

// outcome is what the executor is told at the end.
func (a *attempt) outcome() (*executor.Outcome, error) {
	doc := a.document()
	out := &executor.Outcome{Exit: caisson.Exit{Reason: caisson.ReasonExited}}
	if f := a.p.Failure; f != nil {
		out.Exit = f.Exit
		out.Exit.Message = f.Message
	}
	if a.job.Stopped() != nil {
		out.Exit = caisson.Exit{} // the executor knows why
	}
	var err error
	if out.Document, err = doc.fit(); err != nil {
		return nil, err
	}
	return out, nil
}

// document collects what is known of all rows.
func (a *attempt) document() *Document {
	doc := &Document{
		Message: messageDone, ConfigVersion: a.plan.ConfigVersion, Component: a.plan.Component, Configuration: a.plan.ConfigID,
		Mode: a.plan.Mode, Action: a.plan.Action, Images: [][]Image{},
		Input:  Input{Tables: []mapping.FetchedTable{}, Files: []mapping.FetchedFile{}},
		Output: Output{Tables: []mapping.LoadedTable{}, Files: []mapping.LoadedFile{}},
	}
	if len(a.plan.Rows) == 0 {
		doc.Message = messageNothing
	}
	for i := range a.p.Rows {
		doc.add(&a.p.Rows[i])
	}
	if f := a.p.Failure; f != nil {
		doc.Message, doc.Error = f.Message, &Error{Type: f.Fault, Message: f.Message}
		if a.p.Row < len(a.plan.Rows) {
			doc.Error.Row = a.plan.Rows[a.p.Row].ID
		}
	}
	return doc
}

func (d *Document) add(r *rowReport) {
	var images []Image
	for _, s := range r.Steps {
		img := Image{Component: s.Component, ID: s.Image, Task: s.Task}
		if s.Digest != "" {
			img.Digests = []string{s.Digest}
		}
		images = append(images, img)
	}
	if images != nil {
		d.Images = append(d.Images, images)
	}
	if r.Fetched != nil {
		d.Input.Tables = append(d.Input.Tables, r.Fetched.Tables...)
		d.Input.Files = append(d.Input.Files, r.Fetched.Files...)
	}
	if r.Loaded != nil {
		d.Output.Tables = append(d.Output.Tables, r.Loaded.Tables...)
		d.Output.Files = append(d.Output.Files, r.Loaded.Files...)
	}
	if r.Plan != nil {
		d.Plans = append(d.Plans, r.Plan)
	}
	if len(r.Result) > 0 && d.Variables == nil {
		d.Variables = make(map[string]json.RawMessage)
	}
	maps.Copy(d.Variables, r.Result)
	d.Usage = append(d.Usage, r.Usage...)
	d.Warnings = append(d.Warnings, r.Warnings...)
	if r.Artifacts != nil {
		if d.Artifacts == nil {
			d.Artifacts = &Artifacts{}
		}
		d.Artifacts.Downloaded = append(d.Artifacts.Downloaded, r.Artifacts.Downloaded...)
		d.Artifacts.Uploaded = append(d.Artifacts.Uploaded, r.Artifacts.Uploaded...)
	}
	for _, f := range r.Archives {
		d.Archives = append(d.Archives, Archive{Row: r.ID, Name: f.Name, File: f.File})
	}
}

// fit makes JSON of the document. What is too much for a result is left out: the
// log has it.
func (d *Document) fit() ([]byte, error) {
	for _, drop := range []func(){
		func() {},
		func() { d.Plans, d.Warnings = nil, []string{"the document was too long: it lacks plans and warnings"} },
		func() { d.Input, d.Output = Input{}, Output{} },
		func() { d.Usage, d.Variables, d.Images = nil, nil, nil },
	} {
		drop()
		data, err := json.Marshal(d)
		if err != nil || len(data) <= int(executor.MaxDocument) {
			return data, err
		}
	}
	return nil, bad(errors.New("its result is too long"))
}
