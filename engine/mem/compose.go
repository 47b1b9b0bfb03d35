package mem

import "github.com/caissonrun/caisson/engine"

// The optional interfaces are methods of types of their own, so that a sandbox
// has one if and only if the engine's features say so.
type (
	execer      struct{ *Sandbox }
	filer       struct{ *Sandbox }
	statsReader struct{ *Sandbox }
	pauser      struct{ *Sandbox }
)

var (
	_ engine.Execer      = execer{}
	_ engine.Filer       = filer{}
	_ engine.StatsReader = statsReader{}
	_ engine.Pauser      = pauser{}
)

// compose returns s with the optional interfaces that f declares.
func compose(s *Sandbox, f engine.Features) engine.Sandbox {
	// Every sandbox is a Gatekeeper and a Displayer; where gateways or displays are
	// not declared it says so.
	type core interface {
		engine.Sandbox
		engine.Gatekeeper
		engine.Displayer
	}
	type (
		exec  = engine.Execer
		files = engine.Filer
		stats = engine.StatsReader
		pause = engine.Pauser
	)
	e, fl, st, p := execer{s}, filer{s}, statsReader{s}, pauser{s}
	switch [4]bool{f.Exec, f.Files, f.Stats, f.Pause} {
	case [4]bool{true, true, true, true}:
		return struct {
			core
			exec
			files
			stats
			pause
		}{s, e, fl, st, p}
	case [4]bool{true, true, true, false}:
		return struct {
			core
			exec
			files
			stats
		}{s, e, fl, st}
	case [4]bool{true, true, false, true}:
		return struct {
			core
			exec
			files
			pause
		}{s, e, fl, p}
	case [4]bool{true, false, true, true}:
		return struct {
			core
			exec
			stats
			pause
		}{s, e, st, p}
	case [4]bool{false, true, true, true}:
		return struct {
			core
			files
			stats
			pause
		}{s, fl, st, p}
	case [4]bool{true, true, false, false}:
		return struct {
			core
			exec
			files
		}{s, e, fl}
	case [4]bool{true, false, true, false}:
		return struct {
			core
			exec
			stats
		}{s, e, st}
	case [4]bool{true, false, false, true}:
		return struct {
			core
			exec
			pause
		}{s, e, p}
	case [4]bool{false, true, true, false}:
		return struct {
			core
			files
			stats
		}{s, fl, st}
	case [4]bool{false, true, false, true}:
		return struct {
			core
			files
			pause
		}{s, fl, p}
	case [4]bool{false, false, true, true}:
		return struct {
			core
			stats
			pause
		}{s, st, p}
	case [4]bool{true, false, false, false}:
		return struct {
			core
			exec
		}{s, e}
	case [4]bool{false, true, false, false}:
		return struct {
			core
			files
		}{s, fl}
	case [4]bool{false, false, true, false}:
		return struct {
			core
			stats
		}{s, st}
	case [4]bool{false, false, false, true}:
		return struct {
			core
			pause
		}{s, p}
	}
	return s
}
