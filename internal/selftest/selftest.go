//go:build unix

// Package selftest tries attacks on the host that it runs on: those of package
// engine/attack on each engine, those on whatever moves data once. Its results
// are what `caisson selftest` prints and docs/security-scoreboard.md is made of.
//
// It works in a folder of its own, with an installation of its own, and
// touches no task of the user's. Each attack says what keeps the host from harm
// where it is not held.
package selftest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/attack"
	"github.com/caissonrun/caisson/executor"
)

// Options says what is tried.
type Options struct {
	// Dir is an empty folder that everyone may enter. What is made there stays
	// until the caller removes it.
	Dir string
	// Engines are tried one after the other.
	Engines []engine.Engine
	// Executor has the same engines, and a state folder of its own.
	Executor *executor.Executor
	// Hidden are folders of the host that no sandbox may see anything of.
	Hidden []string
	// Programs are paths of the programs that engines start on the host.
	Programs []string
	// Only has attacks of these ids and names tried alone. Empty: all.
	Only []string
	// Rounds multiplies how often races are tried; 0: once.
	Rounds int
	// Clean makes a name that a task chose fit to be shown, as the command line
	// does.
	Clean func(string) string
	// Progress is told what is tried next. Nil: nobody is told.
	Progress func(engine, attack string)
}

// A Report is what came of the attacks on one engine.
type Report struct {
	// Engine is the engine's name; Host for what is the same for every engine.
	Engine  string `json:"engine"`
	Version string `json:"version,omitempty"`
	// Unusable says why the engine could not be tried at all.
	Unusable string   `json:"unusable,omitempty"`
	Results  []Result `json:"results"`
}

// Host is the Engine of the report about what is the same for every engine.
const Host = "caisson"

// A Result is what came of one attack.
type Result struct {
	ID    string   `json:"id"`
	Name  string   `json:"name"`
	Tries string   `json:"tries"`
	CVE   []string `json:"cve,omitempty"`
	Bound string   `json:"bound"`
	attack.Outcome
}

// Run tries everything and returns a report for each engine, and one for what
// is the same for all. ctx's end ends it; reports of what was tried until then
// are returned with its error.
//
// Errors: ErrUnavailable if the program that attacks run can't be had.
func Run(ctx context.Context, opts *Options) ([]Report, error) {
	inside, err := program(ctx, filepath.Join(opts.Dir, "bin"))
	if err != nil {
		return nil, err
	}
	s := &suite{Options: opts, inside: inside}
	var reports []Report
	for _, e := range opts.Engines {
		reports = append(reports, s.engine(ctx, e))
	}
	reports = append(reports, s.host(ctx))
	return reports, ctx.Err()
}

// Check returns an error for a word of only that is neither the id nor the
// name of an attack.
func Check(only []string) error {
	known := slices.Concat(attack.All(), attack.Modules(), attack.Payloads(), tasks(nil, nil), data(nil))
	for _, word := range only {
		if !slices.ContainsFunc(known, func(a attack.Attack) bool { return a.ID == word || a.Name == word }) {
			return &caisson.Error{
				Op: caisson.OpValidate, Item: fmt.Sprintf("attack %q", word), Kind: caisson.ErrNotFound,
				Err: errors.New("no attack has this id or name; see docs/security-scoreboard.md"),
			}
		}
	}
	return nil
}

// A suite is one run.
type suite struct {
	*Options
	inside string // path of the program that attacks run
}

// engine tries everything on one engine.
func (s *suite) engine(ctx context.Context, e engine.Engine) Report {
	report := Report{Engine: e.Name()}
	features, err := e.Probe(ctx)
	report.Version = features.Version
	switch {
	case err != nil:
		report.Unusable = err.Error()
	case !features.Usable && len(features.Missing) > 0:
		report.Unusable = features.Missing[0].What + ": " + features.Missing[0].Why
	case !features.Usable:
		report.Unusable = "it does not work on this host; see caisson engines"
	case !features.Command && !features.Module && !features.OptionsOnly:
		report.Unusable = "attacks are commands, and it runs none; its own tests attack it"
	}
	if report.Unusable != "" {
		return report
	}
	r, err := s.newTarget(e, &features)
	if err != nil {
		report.Unusable = err.Error()
		return report
	}
	all := append(attack.All(), tasks(s.Executor, r)...)
	if !features.Command {
		all = nil // they are programs
	}
	if features.Module {
		all = append(all, attack.Modules()...)
	}
	if features.OptionsOnly {
		all = append(all, attack.Payloads()...)
	}
	report.Results = s.try(ctx, e.Name(), all, r.place)
	if err := s.forget(ctx, e); err != nil {
		report.Results = append(report.Results, Result{
			ID: "D34", Name: "selftest/left-behind", Tries: "leave nothing of this behind", Bound: "it is told",
			Outcome: attack.Outcome{Status: attack.Untried, Why: []string{err.Error()}},
		})
	}
	return report
}

// forget has an engine remove the images that it was given.
func (s *suite) forget(ctx context.Context, e engine.Engine) error {
	const patience = time.Minute
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if p, ok := e.(engine.Pruner); ok {
		_, err := p.Prune(ctx, 0)
		return err
	}
	return nil
}

// host tries what is the same for every engine.
func (s *suite) host(ctx context.Context) Report {
	place := func(dir string) (*attack.Place, error) {
		return &attack.Place{Features: &engine.Features{}, Dir: dir, Owner: owner(), Inside: s.inside, Rounds: s.Rounds}, nil
	}
	return Report{Engine: Host, Results: s.try(ctx, Host, data(s.Clean), place)}
}

// try tries attacks one after the other, each in a folder of its own.
func (s *suite) try(ctx context.Context, name string, all []attack.Attack, place func(dir string) (*attack.Place, error)) []Result {
	slices.SortStableFunc(all, func(a, b attack.Attack) int { return compareIDs(a.ID, b.ID) })
	var results []Result
	for _, a := range all {
		if len(s.Only) > 0 && !slices.Contains(s.Only, a.ID) && !slices.Contains(s.Only, a.Name) {
			continue
		}
		if ctx.Err() != nil {
			return results
		}
		if s.Progress != nil {
			s.Progress(name, a.Name)
		}
		outcome, err := s.one(ctx, &a, place)
		if err != nil {
			outcome = attack.Outcome{Status: attack.Untried, Why: []string{err.Error()}}
		}
		results = append(results, Result{ID: a.ID, Name: a.Name, Tries: a.Tries, CVE: a.CVE, Bound: a.Bound, Outcome: outcome})
	}
	return results
}

// one tries one attack.
func (s *suite) one(ctx context.Context, a *attack.Attack, place func(dir string) (*attack.Place, error)) (attack.Outcome, error) {
	dir, err := os.MkdirTemp(s.Dir, "attack-")
	if err != nil {
		return attack.Outcome{}, err
	}
	// Who a program runs as must be able to pass.
	err = os.Chmod(dir, 0o755)
	var p *attack.Place
	if err == nil {
		p, err = place(dir)
	}
	var outcome attack.Outcome
	if err == nil {
		outcome = attack.Try(ctx, a, p)
	}
	return outcome, errors.Join(err, os.RemoveAll(dir))
}

// compareIDs orders A2 before A10.
func compareIDs(a, b string) int {
	if a[0] != b[0] {
		return int(a[0]) - int(b[0])
	}
	return number(a) - number(b)
}

func number(id string) int {
	n := 0
	_, _ = fmt.Sscanf(id[1:], "%d", &n)
	return n
}

// owner is who work folders belong to.
func owner() engine.Owner {
	const taskUser = 1000
	if os.Geteuid() == 0 {
		return engine.Owner{UID: taskUser, GID: taskUser}
	}
	return engine.Owner{UID: os.Getuid(), GID: os.Getgid()}
}

// Verdict returns the exit status that reports come to: 0 if every attack that
// could be tried is held, 1 if one is not, 125 if nothing could be tried, or an
// attack that can be tried here could not be.
func Verdict(reports []Report) int {
	const held, broken, failed = 0, 1, 125
	status, tried := held, false
	for _, r := range reports {
		for _, result := range r.Results {
			tried = tried || result.Status == attack.Held
			switch result.Status {
			case attack.NotHeld:
				return broken
			case attack.Untried:
				status = failed
			}
		}
	}
	if !tried {
		return failed
	}
	return status
}
