package kept

import "github.com/caissonrun/caisson/engine"

// The optional interfaces are methods of types of their own, so that a sandbox
// has one if and only if the features say so.
type (
	bare     struct{ *sandbox }
	filed    struct{ *sandbox }
	gated    struct{ *sandbox }
	measured struct{ *sandbox }
	pausable struct{ *sandbox }
	copyable struct{ *sandbox }
)

var (
	_ engine.Execer      = bare{}
	_ engine.Filer       = filed{}
	_ engine.Gatekeeper  = gated{}
	_ engine.StatsReader = measured{}
	_ engine.Pauser      = pausable{}
	_ engine.Snapshotter = copyable{}
	_ engine.Originator  = copyable{}
)

// compose returns s with the optional interfaces that it has: exec always,
// files with a root of its own, a gateway, stats and pause where the host has
// what they need.
func compose(s *sandbox, w *Works) engine.Sandbox {
	b, f, m, p := bare{s}, filed{s}, measured{s}, pausable{s}
	if s.rec.Blind && w.Gateway {
		return struct {
			bare
			engine.Gatekeeper
			engine.StatsReader
			engine.Pauser
		}{b, gated{s}, m, p}
	}
	if s.rec.Blind {
		return struct {
			bare
			engine.StatsReader
			engine.Pauser
		}{b, m, p}
	}
	if s.b.opts.Snapshots {
		return copied(s, w)
	}
	if s.rec.Isolation != None && w.Gateway {
		return served(s, w)
	}
	switch [3]bool{s.rec.Isolation != None, w.Stats, w.Pause} {
	case [3]bool{true, true, true}:
		return struct {
			bare
			engine.Filer
			engine.StatsReader
			engine.Pauser
		}{b, f, m, p}
	case [3]bool{true, true, false}:
		return struct {
			bare
			engine.Filer
			engine.StatsReader
		}{b, f, m}
	case [3]bool{true, false, true}:
		return struct {
			bare
			engine.Filer
			engine.Pauser
		}{b, f, p}
	case [3]bool{true, false, false}:
		return struct {
			bare
			engine.Filer
		}{b, f}
	case [3]bool{false, true, true}:
		return struct {
			bare
			engine.StatsReader
			engine.Pauser
		}{b, m, p}
	case [3]bool{false, true, false}:
		return struct {
			bare
			engine.StatsReader
		}{b, m}
	case [3]bool{false, false, true}:
		return struct {
			bare
			engine.Pauser
		}{b, p}
	}
	return b
}

// copied is compose for a sandbox that can be copied.
func copied(s *sandbox, w *Works) engine.Sandbox {
	b, f, m, p, c := bare{s}, filed{s}, measured{s}, pausable{s}, copyable{s}
	if !w.Gateway {
		return struct {
			bare
			engine.Filer
			engine.StatsReader
			engine.Pauser
			engine.Snapshotter
			engine.Originator
		}{b, f, m, p, c, c}
	}
	return struct {
		bare
		engine.Filer
		engine.Gatekeeper
		engine.StatsReader
		engine.Pauser
		engine.Snapshotter
		engine.Originator
	}{b, f, gated{s}, m, p, c, c}
}

// served is compose for a sandbox with a root and a gateway.
func served(s *sandbox, w *Works) engine.Sandbox {
	b, f, g, m, p := bare{s}, filed{s}, gated{s}, measured{s}, pausable{s}
	switch [2]bool{w.Stats, w.Pause} {
	case [2]bool{true, true}:
		return struct {
			bare
			engine.Filer
			engine.Gatekeeper
			engine.StatsReader
			engine.Pauser
		}{b, f, g, m, p}
	case [2]bool{true, false}:
		return struct {
			bare
			engine.Filer
			engine.Gatekeeper
			engine.StatsReader
		}{b, f, g, m}
	case [2]bool{false, true}:
		return struct {
			bare
			engine.Filer
			engine.Gatekeeper
			engine.Pauser
		}{b, f, g, p}
	}
	return struct {
		bare
		engine.Filer
		engine.Gatekeeper
	}{b, f, g}
}
