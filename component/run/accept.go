//go:build unix

package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/caissonrun/caisson/component/mapping"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/executor"
)

// registryFolder is where definitions lie beside a configuration.
const registryFolder = "registry"

// storageFolder is the storage beside a configuration.
const storageFolder = "storage"

// Accept implements executor.Composite. It reads the configuration and the
// definitions, opens what is sealed, and refuses what can't be done here.
func (r *Runner) Accept(ctx context.Context, task *caisson.Task, sub *executor.Submission) (*executor.Plan, error) {
	if !sub.Trusted {
		return nil, invalidf(caisson.ErrDenied, "component", "it acts with the caller's rights on files, so only the command line may run it")
	}
	if task.Retry.Limit > 0 {
		return nil, invalidf(caisson.ErrUnsupported, "retry", "a component's run is not tried again by itself: what it has loaded would be loaded twice; run it again")
	}
	a := &acceptance{
		Runner: r, ask: task.Component, base: sub.BaseDir, given: string(sub.Secrets[StorageSecret]),
		variables: task.Component.Variables,
	}
	if data := sub.Secrets[VariablesSecret]; data != nil {
		a.variables = nil
		if err := json.Unmarshal(data, &a.variables); err != nil {
			return nil, invalidf(caisson.ErrInvalid, "component.variables", "they are no JSON object of texts") // the cause could quote them
		}
	}
	if err := a.read(ctx); err != nil {
		return nil, err
	}
	if err := a.resolve(ctx); err != nil {
		return nil, err
	}
	if err := a.check(); err != nil {
		return nil, err
	}
	return pack(&a.plan, &a.secrets, a.values)
}

// An acceptance is one call of Accept.
type acceptance struct {
	*Runner
	ask       *caisson.ComponentRun
	base      string
	given     string // the storage with its password
	variables map[string]string

	conf     *component.Configuration
	registry *component.Registry
	rows     []component.Row
	configs  []*component.Config
	keys     component.Unsealer // nil: there are none

	plan    plan
	secrets secrets
	values  []string
}

// read finds the configuration and what it is a configuration of.
func (a *acceptance) read(ctx context.Context) error {
	a.conf = &component.Configuration{Data: component.NewObject(), Dir: a.base}
	if a.ask.Config != "" {
		conf, err := component.ReadConfiguration(a.path(a.ask.Config))
		if err != nil {
			return err
		}
		a.conf = conf
	}
	a.plan = plan{
		Version: planVersion, Mode: orElse(a.ask.Mode, caisson.ComponentRunMode), Action: orElse(a.ask.Action, actionRun),
		Tag: a.ask.Tag, Strict: a.ask.StrictMapping || a.opts.StrictMapping, ConfigID: a.conf.ID, ConfigVersion: a.conf.Version,
		Components: make(map[string]*defined),
	}
	a.secrets.Storage, a.plan.Dir = a.storageOf(a.ask, a.base, a.conf.Dir)
	if a.given != "" {
		a.secrets.Storage = a.given
	}
	plain, passwords := StripURL(a.secrets.Storage)
	a.plan.Storage = plain
	a.hide(passwords)
	a.registry = component.NewRegistry(a.folders()...)
	main, err := a.definition(ctx)
	if err != nil {
		return err
	}
	a.plan.Component = main.ID
	a.plan.Components[main.ID] = main
	return a.choose()
}

func (a *acceptance) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(a.base, name)
}

// storageOf returns where a run's tables and files are, and what that is
// relative to.
func (r *Runner) storageOf(ask *caisson.ComponentRun, base, conf string) (url, dir string) {
	switch {
	case ask.Storage != "":
		return ask.Storage, base
	case r.opts.DefaultStorage != "":
		return r.opts.DefaultStorage, base
	}
	return storageFolder, conf
}

// Storage opens the storage that a run would use whose relative paths start at
// base. The caller closes it.
func (r *Runner) Storage(ask *caisson.ComponentRun, given, base string) (storage.Storage, error) {
	conf := ask.Config
	if !filepath.IsAbs(conf) {
		conf = filepath.Join(base, conf)
	}
	if info, err := os.Stat(conf); err != nil || !info.IsDir() {
		conf = filepath.Dir(conf)
	}
	url, dir := r.storageOf(ask, base, conf)
	if given != "" {
		url = given
	}
	return r.opts.Storage(url, dir, os.Getenv)
}

// List returns the components of folders and of the operator's registry.
func (r *Runner) List(ctx context.Context, folders ...string) ([]*component.Definition, error) {
	return component.NewRegistry(append(folders, r.opts.Registry...)...).List(ctx)
}

// folders are where definitions are looked for.
func (a *acceptance) folders() []string {
	if a.ask.Registry != "" {
		return append([]string{a.path(a.ask.Registry)}, a.opts.Registry...)
	}
	list := slices.Clone(a.opts.Registry)
	for _, dir := range []string{filepath.Join(a.conf.Dir, registryFolder), filepath.Join(filepath.Dir(a.conf.Dir), registryFolder)} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			list = append(list, dir)
		}
	}
	return list
}

// definition returns the main component: of a file, or by its id.
func (a *acceptance) definition(ctx context.Context) (*defined, error) {
	id := orElse(a.ask.Definition, a.conf.Component)
	if id == "" {
		return nil, invalidf(caisson.ErrInvalid, "component", `the configuration names none; give the definition's file or id`)
	}
	if a.ask.Definition != "" {
		file := a.path(a.ask.Definition)
		if _, err := os.Stat(file); err == nil {
			def, err := component.ReadDefinition(file)
			if err != nil {
				return nil, err
			}
			return &defined{Definition: def}, nil
		} else if !errors.Is(err, fs.ErrNotExist) || strings.Contains(id, "/") {
			return nil, invalidf(caisson.ErrNotFound, fmt.Sprintf("definition %q", id), "there is no such file")
		}
	}
	return a.lookUp(ctx, id)
}

// lookUp returns a component of the registry.
func (a *acceptance) lookUp(ctx context.Context, id string) (*defined, error) {
	if d := a.plan.Components[id]; d != nil {
		return d, nil
	}
	def, err := a.registry.Definition(ctx, id)
	if err != nil {
		return nil, err
	}
	// A definition lies in the folder, or in one of its own there.
	mine := func(dir string) bool {
		return filepath.Clean(dir) == filepath.Clean(def.Dir) || filepath.Clean(dir) == filepath.Dir(filepath.Clean(def.Dir))
	}
	return &defined{Definition: def, Operator: slices.ContainsFunc(a.opts.Registry, mine)}, nil
}

// choose finds the rows to be run.
func (a *acceptance) choose() error {
	rows, skipped, forced, err := a.conf.Select(a.ask.Rows)
	if err != nil {
		return err
	}
	for _, id := range skipped {
		a.note("row %q is disabled: it is left out", id)
	}
	for _, id := range forced {
		a.note("row %q is disabled: it is run because it was asked for by name", id)
	}
	a.rows = rows
	for _, row := range rows {
		a.plan.Rows = append(a.plan.Rows, planRow{ID: row.ID, Name: row.Name})
	}
	return nil
}

func (a *acceptance) note(format string, args ...any) {
	a.plan.Notes = append(a.plan.Notes, fmt.Sprintf(format, args...))
}

// resolve makes each row's configuration of what is written, and finds the
// components that it names.
func (a *acceptance) resolve(ctx context.Context) error {
	main := a.plan.main()
	if a.opts.Keys != nil {
		keys, err := a.opts.Keys(main.ID, a.conf.ID)
		if err != nil {
			return err
		}
		a.keys = keys
	}
	library := &component.Library{Dir: orElse(a.opts.Library, a.conf.Dir)}
	resolver := &component.Resolver{
		Definition: main.Definition, Library: library, Unsealer: a.keys,
		Variables: a.variables, VariableValuesID: a.ask.VariableValues,
	}
	if a.opts.Credentials != nil {
		resolver.Credentials = func(id string) (*component.Value, error) { return a.opts.Credentials(a.keys, id) }
	}
	if a.opts.Vault != nil {
		var err error
		if resolver.Vault, resolver.VaultSecrets, err = a.opts.Vault(a.keys); err != nil {
			return err
		}
	}
	for _, row := range a.rows {
		if err := a.resolveRow(ctx, resolver, row); err != nil {
			return at(rowItem(row.ID), err)
		}
	}
	return a.unsealImages()
}

func (a *acceptance) resolveRow(ctx context.Context, resolver *component.Resolver, row component.Row) error {
	res, err := resolver.Resolve(a.conf, row)
	if err != nil {
		return err
	}
	data, err := json.Marshal(res.Config)
	if err != nil {
		return err
	}
	a.configs = append(a.configs, res.Config)
	a.secrets.Configs = append(a.secrets.Configs, data)
	a.hide(res.Secrets)
	for _, p := range slices.Concat(res.Config.Processors.Before, res.Config.Processors.After) {
		if a.plan.Components[p.Component] != nil {
			continue
		}
		d, err := a.lookUp(ctx, p.Component)
		if err != nil {
			return at("processors", err)
		}
		a.plan.Components[p.Component] = d
	}
	return nil
}

// hide remembers values that nobody is to read.
func (a *acceptance) hide(values []string) {
	for _, v := range values {
		if v != "" && !slices.Contains(a.values, v) {
			a.values = append(a.values, v)
		}
	}
}

// unsealImages opens what is sealed in definitions.
func (a *acceptance) unsealImages() error {
	a.secrets.Images = make(map[string]*imageSecrets)
	for id, d := range a.plan.Components {
		keys := a.keys
		if id != a.plan.Component && a.opts.Keys != nil {
			own, err := a.opts.Keys(id, "")
			if err != nil {
				return err
			}
			keys = own
		}
		plain, values, err := component.Unseal(keys, d.ImageParameters)
		if err != nil {
			return component.Application(at(fmt.Sprintf("component %q: image parameters", id), err))
		}
		a.hide(values)
		s := &imageSecrets{Parameters: plain}
		if d.Image != nil && d.Image.Password != "" {
			if keys == nil {
				return invalidf(caisson.ErrInvalid, fmt.Sprintf("component %q", id), "its registry's password is sealed, and there are no keys")
			}
			if s.Password, err = keys.Unseal("definition.repository.#password", d.Image.Password); err != nil {
				return component.Application(at(fmt.Sprintf("component %q", id), err))
			}
			a.hide([]string{s.Password})
		}
		a.secrets.Images[id] = s
		if err := a.forwardToken(id, d); err != nil {
			return err
		}
	}
	if err := a.builds(); err != nil {
		return err
	}
	for i, cfg := range a.configs {
		if err := folder.CheckSecrets(cfg.Parameters, a.secrets.Images[a.plan.Component].Parameters); err != nil {
			return at(rowItem(a.rows[i].ID), err)
		}
	}
	return nil
}

// forwardToken keeps the project's token for a component that asks for it.
func (a *acceptance) forwardToken(id string, d *defined) (err error) {
	if !d.ForwardToken {
		return nil
	}
	if !d.Operator {
		// Anybody could write that into a definition beside a configuration.
		a.note("component %q asks for a token, which only a definition in the operator's registry can have: KBC_TOKEN is empty", id)
		return nil
	}
	if a.opts.Project.Token == nil {
		a.note("component %q asks for a token, and there is none (component.token_file): KBC_TOKEN is empty", id)
		return nil
	}
	if a.secrets.Token, err = a.opts.Project.Token(); err != nil {
		return err
	}
	a.hide([]string{a.secrets.Token})
	return nil
}

// builds finds out what images are to be made of.
func (a *acceptance) builds() error {
	main := a.plan.main()
	a.secrets.Builds = make([]*component.Build, len(a.configs))
	for id, d := range a.plan.Components {
		if d.Builder != nil && (a.opts.Build == nil || id != a.plan.Component) {
			return component.Application(invalidf(caisson.ErrUnsupported, fmt.Sprintf("component %q", id), "its image can't be built here"))
		}
	}
	if main.Builder == nil {
		return nil
	}
	for i, cfg := range a.configs {
		b, err := main.Build(cfg, a.keys)
		if err != nil {
			return at(rowItem(a.rows[i].ID), err)
		}
		a.hide(b.Secrets)
		a.secrets.Builds[i] = b
	}
	return nil
}

// modes are those that a run can have.
var modes = []string{
	caisson.ComponentRunMode, caisson.ComponentDebug, caisson.ComponentInput, caisson.ComponentSandbox, caisson.ComponentDryRun,
}

// check refuses what this program, the component or the storage can't do.
func (a *acceptance) check() error {
	main := a.plan.main()
	if !slices.Contains(modes, a.plan.Mode) {
		return invalidf(caisson.ErrInvalid, "mode", "%q is none; use %s", a.plan.Mode, strings.Join(modes, ", "))
	}
	if a.opts.Project.Branch != "" && main.Has(component.FeatureBranchJobs) {
		return invalidf(caisson.ErrDenied, fmt.Sprintf("component %q", main.ID), "it can't be run in a development branch")
	}
	if a.plan.sync() && !slices.Contains(main.SyncActions, a.plan.Action) {
		return invalidf(caisson.ErrNotFound, fmt.Sprintf("action %q", a.plan.Action), "%s has %s", main.ID, listed(main.SyncActions))
	}
	if a.plan.sync() && len(a.rows) != 1 {
		return invalidf(caisson.ErrInvalid, "rows", "an action has one row: name it, there are %d", len(a.rows))
	}
	if a.plan.sync() && a.plan.Mode != caisson.ComponentRunMode {
		return invalidf(caisson.ErrInvalid, "mode", "an action has none but run")
	}
	for id, d := range a.plan.Components {
		if err := checkDefinition(d.Definition, id == a.plan.Component); err != nil {
			return component.Application(at(fmt.Sprintf("component %q", id), err))
		}
		if d.Has(component.FeatureRootUser) && !d.Operator {
			a.note("component %q asks for the root user, which only a definition in the operator's registry can have", id)
		}
	}
	if a.plan.sync() {
		return nil
	}
	store, err := a.opts.Storage(a.secrets.Storage, a.plan.Dir, a.getenv)
	if err != nil {
		return err
	}
	defer store.Close()
	for i, cfg := range a.configs {
		if a.opts.Project.Branch != "" && main.Has(component.FeatureBranchUnsafe) && !cfg.Runtime.Safe {
			return at(rowItem(a.rows[i].ID), invalidf(caisson.ErrDenied, "runtime.safe",
				"in a development branch the configuration has to say that it is safe there"))
		}
		if err := checkArtifacts(main.Definition, cfg); err != nil {
			return at(rowItem(a.rows[i].ID), err)
		}
		if err := mapping.Check(store.Features(), &cfg.Storage); err != nil {
			return at(rowItem(a.rows[i].ID), err)
		}
		if _, err := mapping.DefaultBucket(main.Definition, &cfg.Storage.Output, a.conf.ID); err != nil {
			return at(rowItem(a.rows[i].ID), err)
		}
	}
	return nil
}

// getenv looks a variable up for the storage, and keeps it for Run: that may
// be in a process that has not got it.
func (a *acceptance) getenv(name string) string {
	value := os.Getenv(name)
	if value == "" {
		return ""
	}
	if a.secrets.Env == nil {
		a.secrets.Env = make(map[string]string)
	}
	a.secrets.Env[name] = value
	return value
}

// checkDefinition refuses what a definition asks for and this program does not
// have.
func checkDefinition(d *component.Definition, main bool) error {
	for what, staging := range map[string]string{"input": d.StagingInput, "output": d.StagingOutput} {
		if staging != stagingLocal && staging != stagingNone {
			return invalidf(caisson.ErrUnsupported, "staging_storage."+what, "%q is not there, use local or none", staging)
		}
	}
	if d.Image == nil && d.Builder == nil && len(d.Command) == 0 {
		return invalidf(caisson.ErrInvalid, "definition", "there is no image, no builder and no command")
	}
	return nil
}

// The kinds of staging that are there.
const (
	stagingLocal = "local"
	stagingNone  = "none"
)

func listed(names []string) string {
	if len(names) == 0 {
		return "no actions"
	}
	return "only " + strings.Join(names, ", ")
}

func rowItem(id string) string {
	if id == "" {
		return ""
	}
	return fmt.Sprintf("row %q", id)
}

// at says where an error belongs to; its kind stays.
func at(item string, err error) error {
	if item == "" || err == nil {
		return err
	}
	return fmt.Errorf("%s: %w", item, err)
}

func invalidf(kind caisson.Kind, item, format string, args ...any) error {
	return &caisson.Error{Op: caisson.OpValidate, Item: item, Kind: kind, Err: fmt.Errorf(format, args...)}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
