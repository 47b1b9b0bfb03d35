//go:build unix

package run

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/keeper/redact"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

const stdout = tasklog.Stdout

// A step is one program of a row: a processor, or the component itself.
type step struct {
	name string // of its task, unique in the row
	def  *defined
	proc *component.Processor // nil: the component itself
}

// main reports whether it is the component itself.
func (s *step) main() bool { return s.proc == nil }

// chain lists the row's steps in order. Processors belong to data: where the
// component has none they are left out.
func (r *row) chain() []step {
	main := step{name: "main", def: r.plan.main()}
	if r.plan.sync() || main.def.StagingInput == stagingNone {
		return []step{main}
	}
	list := r.processors("before", r.cfg.Processors.Before)
	list = append(list, main)
	return append(list, r.processors("after", r.cfg.Processors.After)...)
}

func (r *row) processors(when string, procs []component.Processor) []step {
	var list []step
	for i := range procs {
		list = append(list, step{
			name: fmt.Sprintf("%s-%d-%s", when, i, plain(procs[i].Component)),
			def:  r.plan.Components[procs[i].Component], proc: &procs[i],
		})
	}
	return list
}

// plain replaces what can't stand in a name.
func plain(id string) string {
	return strings.Map(func(c rune) rune {
		if c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			return c
		}
		return '-'
	}, id)
}

// key is what the step's task is found again by.
func (r *row) key(s *step) string { return r.rowName() + "/" + s.name }

// runSteps runs what is left of the chain.
func (r *row) runSteps(ctx context.Context) error {
	for r.p.Step < len(r.steps) {
		s := &r.steps[r.p.Step]
		if !r.p.Ended {
			if err := r.runStep(ctx, s); err != nil {
				return err
			}
			r.p.Ended = true
			if err := r.save(); err != nil {
				return err
			}
		}
		if r.p.Step < len(r.steps)-1 {
			if err := r.swap(ctx); err != nil {
				return err
			}
		}
		r.p.Step, r.p.Started, r.p.Ended = r.p.Step+1, false, false
		if err := r.save(); err != nil {
			return err
		}
	}
	return nil
}

// runStep runs a step, or goes on with one that runs.
func (r *row) runStep(ctx context.Context, s *step) error {
	if !r.p.Started {
		if err := r.prepare(ctx, s); err != nil {
			return err
		}
		r.p.Started = true
		if err := r.save(); err != nil {
			return err
		}
	} else if s.main() && !r.plan.sync() {
		// Another process has given the component its state: its secrets are to be
		// known here too.
		if _, err := r.givenState(ctx); err != nil {
			return err
		}
	}
	log := r.gelfLog(s)
	defer log.close()
	child, err := r.child(s, log)
	if err != nil {
		return err
	}
	report := &r.report.Steps[r.p.Step]
	id, err := r.job.Submit(ctx, r.key(s), child)
	if err != nil {
		return at(s.name, err)
	}
	report.Task = id
	result, err := r.job.Wait(ctx, id)
	if err != nil {
		return at(s.name, err)
	}
	last, err := log.close()
	if err != nil {
		return err
	}
	report.Exit = &result.Exit
	return r.after(ctx, s, child, result, last)
}

// prepare writes what a step finds in its folder.
func (r *row) prepare(ctx context.Context, s *step) error {
	if s.main() {
		if err := r.writeState(ctx); err != nil {
			return err
		}
		if err := r.bringArtifacts(ctx); err != nil {
			return err
		}
	} else if err := r.say(r.key(s), "running processor %s", s.proc.Component); err != nil {
		return err
	}
	if err := r.writeConfig(s); err != nil {
		return err
	}
	if r.plan.Mode == caisson.ComponentDebug {
		return r.archive(ctx, fmt.Sprintf("stage_%d", r.p.Step), s.def)
	}
	return nil
}

// writeConfig gives a step its configuration.
func (r *row) writeConfig(s *step) error {
	opts := &component.FileOptions{Action: r.plan.Action, ImageParameters: r.secrets.Images[s.def.ID].Parameters}
	var config *component.Value
	if s.main() {
		config = r.cfg.File(opts)
	} else {
		config = s.proc.File(opts)
	}
	return r.folder.WriteConfig(config, component.Format(s.def.Format))
}

// writeState gives the component what it has remembered.
func (r *row) writeState(ctx context.Context) error {
	if r.plan.sync() {
		return r.folder.WriteState(nil)
	}
	plain, err := r.givenState(ctx)
	if err != nil {
		return err
	}
	return r.folder.WriteState(plain)
}

// givenState returns what the component has remembered, opened.
func (r *row) givenState(ctx context.Context) (*component.Value, error) {
	state, err := r.readState(ctx)
	if err != nil {
		return nil, err
	}
	return r.unseal(state.Component)
}

// after reads what a step has left and says what its end means. Last is what it
// has said by GELF.
func (r *row) after(ctx context.Context, s *step, child *executor.Child, result *caisson.Result, last string) error {
	if err := r.folder.RemoveConfig(); err != nil {
		return err
	}
	if err := r.folder.Mend(ctx, nil); err != nil {
		return err
	}
	var usageErr error
	if s.main() {
		r.learn()
		r.report.Usage, usageErr = r.folder.ReadUsage()
		for i := range r.report.Usage {
			u := &r.report.Usage[i]
			u.Metric, u.Value = r.hideJSON(u.Metric), r.hideJSON(u.Value)
		}
	}
	if result.Error != nil {
		return component.Application(&caisson.Error{
			Item: s.name, Kind: result.Error.Kind, Err: fmt.Errorf("%s", result.Error.Message),
		})
	}
	var answer *bytes.Buffer
	if r.plan.sync() {
		answer = new(bytes.Buffer)
	}
	out, errs, err := r.said(ctx, result.Task, answer)
	if err != nil {
		return err
	}
	end := r.ending(s, child, result, out, errs)
	end.GELF = last
	if f := judge(end); f != nil {
		return f
	}
	if usageErr != nil {
		return component.Application(fmt.Errorf("job usage could not be stored: %w", usageErr))
	}
	switch {
	case r.plan.sync():
		return r.checkAnswer(answer.Bytes())
	case s.main():
		if err := r.takeState(ctx); err != nil {
			return err
		}
		return r.keepArtifacts(ctx)
	}
	return nil
}

func (r *row) ending(s *step, child *executor.Child, result *caisson.Result, out, errs string) *ending {
	image := shortName(child.Task.Image)
	if image == "" && len(child.Task.Cmd) > 0 {
		image = path.Base(child.Task.Cmd[0])
	}
	return &ending{
		Exit: result.Exit, Image: image, Name: s.name, Stderr: errs, Stdout: out, Limits: child.Task.Limits,
		Timeout: child.Task.Timeout, Quiet: s.def.Logging.NoApplicationErrors,
	}
}

// shortName returns an image's name without its registry.
func shortName(ref string) string {
	host, rest, ok := strings.Cut(ref, "/")
	if ok && (strings.ContainsAny(host, ".:") || host == "localhost") && !strings.Contains(ref, "archive:") {
		return rest
	}
	return ref
}

// checkAnswer says what is wrong with the answer of a synchronous action.
func (r *row) checkAnswer(answer []byte) error {
	if len(bytes.TrimSpace(answer)) == 0 {
		return userFailure("no response from component")
	}
	if !json.Valid(answer) {
		var v any
		return userFailure("the component's response is no JSON: %v", json.Unmarshal(answer, &v))
	}
	return nil
}

// swap makes a step's output the next one's input.
func (r *row) swap(ctx context.Context) error {
	dropped, err := r.folder.Swap(ctx, r.p.Step)
	if err != nil || dropped == nil {
		return err
	}
	var names []string
	for _, list := range [][]string{dropped.Tables, dropped.Files, dropped.Manifests} {
		names = append(names, list...)
	}
	if len(names) == 0 || r.steps[r.p.Step].main() {
		return nil // what the component does not hand on it has used
	}
	text := strings.Join(names, ", ")
	if dropped.More > 0 {
		text += fmt.Sprintf(" and %d more", dropped.More)
	}
	r.warn("%s did not hand on %s", r.steps[r.p.Step].name, text)
	return nil
}

// actionTimeout is what a synchronous action has.
const actionTimeout = 30 * time.Second

// child is the task that runs a step. Log takes its GELF messages; nil: it sends
// none.
func (r *row) child(s *step, log *gelfLog) (*executor.Child, error) {
	limits, err := r.limits(s)
	if err != nil {
		return nil, err
	}
	task := &caisson.Task{
		Name: s.def.ID, Engine: r.job.Task.Engine, Options: r.job.Task.Options, Grace: r.job.Task.Grace,
		Network: network(r.networkOf(s)), Limits: limits, Timeout: caisson.Duration(r.timeout(s)),
	}
	task.Mounts = []caisson.Mount{
		{Type: mountType, Source: r.rowName() + "/data", Target: dataDir},
		{Type: mountType, Source: r.rowName() + "/tmp", Target: "/tmp"},
	}
	c := &executor.Child{Task: task, Redact: r.values, Links: make(map[string]string)}
	for i, b := range r.folder.Binds() {
		r.link(c, fmt.Sprintf("table-%d", i), b.Source, path.Join(dataDir, b.Target))
	}
	if err := r.env(c, s); err != nil {
		return nil, err
	}
	if log != nil {
		c.Ready = log.ready
	}
	c.Root = s.def.Operator && s.def.Has(component.FeatureRootUser)
	if len(s.def.Command) > 0 {
		return c, r.command(c, s)
	}
	return c, r.image(c, s)
}

// mountType is the type of mounts of a run's own folders, see package
// mount/component.
const mountType = "component"

const dataDir = "/data"

// link gives a child a file of the host.
func (r *row) link(c *executor.Child, name, source, target string) {
	c.Links[name] = source
	c.Task.Mounts = append(c.Task.Mounts, caisson.Mount{Type: mountType, Source: "link:" + name, Target: target, ReadOnly: true})
}

// networkOf is what the definition says of the network, or the configuration of
// what is built for it.
func (r *row) networkOf(s *step) string {
	if b := r.build(s); b != nil && b.Network != "" {
		return b.Network
	}
	return s.def.Network
}

// build is what a step's image is made of, or nil if it is not made.
func (r *row) build(s *step) *component.Build {
	if !s.main() || s.def.Builder == nil {
		return nil
	}
	return r.secrets.Builds[r.p.Row]
}

// network returns the network that a definition asks for. What must not reach
// the internet reaches nothing.
func network(name string) caisson.Network {
	if name == "bridge" {
		return caisson.Network{Mode: caisson.NetworkDefault}
	}
	return caisson.Network{Mode: caisson.NetworkNone}
}

// limits are a definition's, and for the component itself those of the size that
// the configuration asks for. More processors than the host has are all of them.
func (r *row) limits(s *step) (caisson.Limits, error) {
	if r.opts.NoLimits {
		return caisson.Limits{}, nil
	}
	cfg := r.cfg
	if !s.main() {
		cfg = &component.Config{}
	}
	memory, cpus, err := cfg.Resources(s.def.Definition, r.opts.MemoryLimits[s.def.ID])
	return caisson.Limits{Memory: memory, CPUs: min(cpus, caisson.CPUs(runtime.NumCPU()*1000))}, err
}

// timeout is what a step's program has.
func (r *row) timeout(s *step) time.Duration {
	switch {
	case r.plan.sync():
		return actionTimeout
	case s.main():
		return r.cfg.Timeout(s.def.Definition)
	}
	return s.def.Timeout
}

// dataTypes is what the main component's support of types is called.
func (r *row) dataTypes(cfg *component.Config) string {
	return orElse(cfg.Storage.Output.DataTypeSupport, r.plan.main().DataTypes)
}

// env are a step's variables.
func (r *row) env(c *executor.Child, s *step) error {
	p := &r.opts.Project
	def := s.def.Definition
	e := folder.Environment{
		RunID: r.job.ID, ProjectID: p.ID, ConfigID: r.plan.ConfigID, RowID: r.report.ID, ConfigVersion: r.plan.ConfigVersion,
		ComponentID: def.ID, StackID: p.Stack, BranchID: p.Branch, FileProvider: p.FileProvider, Features: p.Features,
		Mode: orElse(map[string]string{caisson.ComponentDebug: "debug"}[r.plan.Mode], "run"), DataTypeSupport: r.dataTypes(r.cfg),
		ForwardToken: def.ForwardToken, ForwardDetails: def.ForwardTokenDetails,
		Token: r.secrets.Token, URL: p.URL, ProjectName: p.Name, TokenID: p.TokenID, TokenDesc: p.TokenDesc, RealUser: p.User,
		Parameters: r.cfg.Parameters, Inject: def.InjectEnvironment,
	}
	if !s.main() {
		e.Parameters = s.proc.Parameters
	}
	if logsGELF(def) {
		e.LoggerAddr, e.LoggerPort = gelfHost, gelfPort
	}
	vars, err := e.Vars()
	if err != nil {
		return err
	}
	for name, value := range def.Env {
		if _, own := vars[name]; !own {
			vars[name] = value
		}
	}
	// What is secret must not be in the task's document, also where a variable or
	// the vault has put it into the middle of something else. Shorter values can't
	// be told from other text, and are no secrets of tasks.
	own := e.Secrets()
	for _, name := range slices.Collect(maps.Keys(vars)) {
		value := vars[name]
		if len(strings.TrimRight(value, "\r\n")) >= redact.MinSecret && (slices.Contains(own, name) || folder.IsParameter(name) && r.tells(value)) {
			secret(c, name, value)
			delete(vars, name)
		}
	}
	c.Task.Env = vars
	return nil
}

// tells reports whether a text has a secret in it.
func (a *attempt) tells(text string) bool {
	return slices.ContainsFunc(a.values, func(v []byte) bool {
		return len(v) >= redact.MinSecret && strings.Contains(text, string(v))
	})
}

// secret gives a child a secret, which its program sees as a variable unless it
// is the registry's password.
func secret(c *executor.Child, name, value string) {
	if c.Task.Secrets == nil {
		c.Task.Secrets, c.Secrets = make(map[string]caisson.Secret), make(map[string][]byte)
	}
	c.Task.Secrets[name] = caisson.Secret{}
	c.Secrets[name] = []byte(value)
}

// image has a step run its image: the one that was made ready.
func (r *row) image(c *executor.Child, s *step) error {
	c.Task.Image = r.report.Steps[r.index(s)].Image
	if s.def.Image == nil || s.def.Image.Username == "" {
		return nil
	}
	c.Task.Registry = &caisson.Registry{Username: s.def.Image.Username, Password: registrySecret}
	secret(c, registrySecret, r.secrets.Images[s.def.ID].Password)
	return nil
}

// index is the step's number in the chain.
func (r *row) index(s *step) int {
	return slices.IndexFunc(r.steps, func(other step) bool { return other.name == s.name })
}

// registrySecret is the name of the secret that is a registry's password. The
// program never sees it.
const registrySecret = "REGISTRY_PASSWORD"

// reference is the name of a step's image: the tag is the run's, the
// configuration's or the definition's, in this order.
func (r *row) reference(s *step) string {
	img := s.def.Image
	for _, scheme := range []string{"docker-archive:", "oci-archive:", "oci:"} {
		if file, ok := strings.CutPrefix(img.URI, scheme); ok {
			if !filepath.IsAbs(file) {
				file = filepath.Join(s.def.Dir, file)
			}
			return scheme + file
		}
	}
	if s.main() {
		return img.Reference(r.cfg.Tag(r.plan.Tag))
	}
	return img.Reference(s.proc.Tag)
}

// codeDir is where a command's own files are.
const codeDir = "/component"

// command has a step run a program of the host. What of it begins with "./" is
// a file or folder beside the definition, which it sees in codeDir.
func (r *row) command(c *executor.Child, s *step) error {
	c.Task.Workdir = orElse(s.def.Workdir, dataDir)
	shown := make(map[string]bool)
	for _, arg := range s.def.Command {
		file, ok := strings.CutPrefix(arg, "./")
		if !ok {
			c.Task.Cmd = append(c.Task.Cmd, arg)
			continue
		}
		if !filepath.IsLocal(file) {
			return component.Application(invalidf(caisson.ErrInvalid, "definition.command", "%q is not beside the definition", arg))
		}
		c.Task.Cmd = append(c.Task.Cmd, path.Join(codeDir, file))
		top, _, _ := strings.Cut(filepath.ToSlash(file), "/")
		if !shown[top] {
			shown[top] = true
			r.link(c, fmt.Sprintf("code-%d", len(shown)), filepath.Join(s.def.Dir, top), path.Join(codeDir, top))
		}
	}
	return nil
}
