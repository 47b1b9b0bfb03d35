//go:build unix

package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
)

// stateDocument is the name of a row's state in the storage; "" where there is
// none, because the configuration has no id.
func (a *attempt) stateDocument() string {
	if a.plan.ConfigID == "" {
		return ""
	}
	name := "state/" + part(a.plan.Component) + "/" + part(a.plan.ConfigID)
	if id := a.p.Rows[a.p.Row].ID; id != "" {
		name += "/" + part(id)
	}
	return name
}

// part makes an id one part of a document's name. Ids may be anything, and one
// such as "../x" must not be the way to another configuration's state.
func part(id string) string {
	if strings.Trim(id, ".") == "" {
		return strings.ReplaceAll(id, ".", "%2E")
	}
	return strings.NewReplacer("%", "%25", "/", "%2F").Replace(id)
}

// readState returns what is stored of the row at hand, and remembers which
// version that is.
func (r *row) readState(ctx context.Context) (*component.State, error) {
	empty := &component.State{Component: component.NewObject()}
	name := r.stateDocument()
	if name == "" {
		return empty, nil
	}
	data, version, err := r.store.Document(ctx, name)
	if err != nil && !errors.Is(err, caisson.ErrNotFound) {
		return nil, at("state", err)
	}
	switch known := r.report.State; {
	case known == nil:
		r.report.State = &pendingState{Document: name, Version: version}
	case known.Version != version:
		return nil, overtaken(name, "nothing of this one is stored")
	}
	if err != nil {
		return empty, nil
	}
	state, err := component.ParseState(name, data)
	return state, at("state", err)
}

// overtaken is the error of a run that another one of its configuration has
// overtaken.
func overtaken(name, what string) error {
	return &caisson.Error{
		Op: caisson.OpStageOut, Item: name, Kind: caisson.ErrExists,
		Err: fmt.Errorf("another run of this configuration has stored its state meanwhile; %s", what),
	}
}

// learn looks for what is secret in the state that a component has left: what it
// has just made is as secret as what it had. What is wrong with a state is told by
// takeState, where it counts.
func (r *row) learn() {
	left, err := r.folder.ReadState()
	if left == nil || err != nil {
		return
	}
	for _, v := range component.Secrets(left) {
		r.values = append(r.values, []byte(v))
	}
}

// takeState takes out/state.json for what is to be stored at the end of the run.
func (r *row) takeState(ctx context.Context) error {
	if r.report.State != nil && r.report.State.Data == nil {
		left, err := r.folder.ReadState()
		if err != nil {
			return component.Application(at("out/state.json", err))
		}
		if left == nil {
			left = component.NewObject()
		}
		sealed, err := r.seal(left)
		if err != nil {
			return at("out/state.json", err)
		}
		if r.report.State.Data, err = r.stateData(ctx, sealed); err != nil {
			return err
		}
		if err := r.save(); err != nil {
			return err
		}
	}
	return r.folder.DropState()
}

// stateData is what is to be stored: what there was, with what is new.
func (r *row) stateData(ctx context.Context, comp *component.Value) ([]byte, error) {
	state := &component.State{}
	data, _, err := r.store.Document(ctx, r.report.State.Document)
	switch {
	case err == nil:
		if state, err = component.ParseState(r.report.State.Document, data); err != nil {
			return nil, at("state", err)
		}
	case !errors.Is(err, caisson.ErrNotFound):
		return nil, at("state", err)
	}
	state.Component = comp
	if f := r.report.Fetched; f != nil {
		state.Input = f.State
	}
	return state.Marshal()
}

// putStates stores what is to be remembered of all rows. A state that somebody
// else has changed meanwhile is not overwritten.
func (a *attempt) putStates(ctx context.Context) error {
	for i := range a.p.Rows {
		s := a.p.Rows[i].State
		if s == nil || s.Data == nil || s.Done {
			continue
		}
		if err := a.putState(ctx, s); err != nil {
			return at(rowItem(a.p.Rows[i].ID), err)
		}
		s.Done = true
		if err := a.save(); err != nil {
			return err
		}
	}
	return nil
}

func (a *attempt) putState(ctx context.Context, s *pendingState) error {
	_, err := a.store.PutDocument(ctx, s.Document, s.Data, s.Version)
	if !errors.Is(err, caisson.ErrExists) {
		return at("state", err)
	}
	now, _, readErr := a.store.Document(ctx, s.Document)
	if readErr == nil && bytes.Equal(now, s.Data) {
		return nil // we have, before a crash
	}
	return overtaken(s.Document, "the tables of this one are loaded, its state is not kept")
}

// keys returns the keys of the run's configuration, or nil.
func (a *attempt) keys() (Keys, error) {
	if a.opts.Keys == nil {
		return nil, nil
	}
	return a.opts.Keys(a.plan.Component, a.plan.ConfigID)
}

// unseal opens a component's state. What was secret in it is.
func (a *attempt) unseal(state *component.Value) (*component.Value, error) {
	keys, err := a.keys()
	if err != nil {
		return nil, err
	}
	var u component.Unsealer
	if keys != nil {
		u = keys
	}
	plain, values, err := component.Unseal(u, state)
	for _, v := range values {
		a.values = append(a.values, []byte(v))
	}
	return plain, err
}

// seal seals what a component wants to remember under "#" keys.
func (a *attempt) seal(state *component.Value) (*component.Value, error) {
	keys, err := a.keys()
	if err != nil {
		return nil, err
	}
	if keys != nil {
		return component.Seal(keys, state)
	}
	if len(component.Secrets(state)) > 0 {
		return nil, &caisson.Error{
			Op: caisson.OpStageOut, Item: "state", Kind: caisson.ErrInvalid,
			Err: errors.New("it has # keys, and there is no key to encrypt them; set component.keys in the configuration file"),
		}
	}
	return state, nil
}
