package kept

import "github.com/caissonrun/caisson/engine"

// The optional interfaces are methods of types of their own, so that a sandbox
// has one if and only if the features say so.
type (
	bare     struct{ *sandbox }
	filed    struct{ *sandbox }
	measured struct{ *sandbox }
	pausable struct{ *sandbox }
)

var (
	_ engine.Execer      = bare{}
	_ engine.Filer       = filed{}
	_ engine.StatsReader = measured{}
	_ engine.Pauser      = pausable{}
)

// compose returns s with the optional interfaces that it has: exec always,
// files with a root of its own, stats and pause where the host has what they
// need.
func compose(s *sandbox, stats, pause bool) engine.Sandbox {
	b, f, m, p := bare{s}, filed{s}, measured{s}, pausable{s}
	switch [3]bool{s.rec.Isolation != None, stats, pause} {
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
