//go:build unix

package executor

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/mount"
)

// mounters are all mounters by type: one for every engine, or several for
// different ones.
type mounters map[string][]mount.Mounter

// add puts m in. Errors: ErrExists if another of its type serves one of its
// engines.
func (l mounters) add(m mount.Mounter) error {
	for _, other := range l[m.Type()] {
		if overlap(enginesOf(m), enginesOf(other)) {
			return duplicate("mount type", m.Type())
		}
	}
	l[m.Type()] = append(l[m.Type()], m)
	return nil
}

// enginesOf returns the engines that m serves; nil: all.
func enginesOf(m mount.Mounter) []string {
	if r, ok := m.(mount.Restricted); ok {
		return r.Engines()
	}
	return nil
}

func overlap(a, b []string) bool {
	return a == nil || b == nil || slices.ContainsFunc(a, func(name string) bool { return slices.Contains(b, name) })
}

// known returns the mounters of a type. Errors: ErrUnsupported, with the types
// that there are.
func (l mounters) known(kind string) ([]mount.Mounter, error) {
	if list := l[kind]; len(list) > 0 {
		return list, nil
	}
	return nil, &caisson.Error{
		Op: caisson.OpMount, Kind: caisson.ErrUnsupported,
		Err: fmt.Errorf("no mounts of type %q here; there are: %s", kind, strings.Join(slices.Sorted(maps.Keys(l)), ", ")),
	}
}

// of returns the mounter of a type for an engine. Errors: ErrUnsupported.
func (l mounters) of(kind, engine string) (mount.Mounter, error) {
	list, err := l.known(kind)
	if err != nil {
		return nil, err
	}
	var others []string
	for _, m := range list {
		if engines := enginesOf(m); engines == nil || slices.Contains(engines, engine) {
			return m, nil
		}
		others = append(others, enginesOf(m)...)
	}
	return nil, &caisson.Error{
		Op: caisson.OpMount, Kind: caisson.ErrUnsupported,
		Err: fmt.Errorf("mounts of type %q are for engine %s only", kind, strings.Join(others, ", ")),
	}
}

// checkMounts checks the mounts of a task whose engine is not yet known: those
// whose mounter serves all engines.
func (x *Executor) checkMounts(r *record) error {
	for i := range r.Task.Mounts {
		list, err := x.mounters.known(r.Task.Mounts[i].Type)
		if err == nil && len(list) == 1 && enginesOf(list[0]) == nil {
			err = x.checkMount(r, i, list[0])
		}
		if err != nil {
			return at(fmt.Sprintf("mounts[%d]", i), err)
		}
	}
	return nil
}

// checkEngineMounts checks the rest, for the record's engine.
func (x *Executor) checkEngineMounts(r *record) error {
	for i := range r.Task.Mounts {
		m, err := x.mounters.of(r.Task.Mounts[i].Type, r.Engine)
		if err == nil && enginesOf(m) != nil {
			err = x.checkMount(r, i, m)
		}
		if err != nil {
			return at(fmt.Sprintf("mounts[%d]", i), err)
		}
	}
	return nil
}

func (x *Executor) checkMount(r *record, i int, mounter mount.Mounter) error {
	m := r.Task.Mounts[i]
	m.Target = inside(m.Target)
	return x.guard(caisson.OpMount, func() error { return mounter.Check(m, x.mountEnv(r)) })
}

// errNoPlace is of a mounter that answers neither a place nor an error.
var errNoPlace = &caisson.Error{
	Op: caisson.OpMount, Kind: caisson.ErrInternal, Err: errors.New("the mounter returned no place: a bug of it"),
}
