//go:build unix

package executor

import (
	"fmt"
	"maps"
	"net/http"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/state"
)

// The files in the work folder in which a task tells Caisson something. They
// are not staged out.
const (
	outputFile   = ".caisson-output"
	progressFile = ".caisson-progress"
)

// A blueprint is all that a step's engine.Spec is made from.
type blueprint struct {
	record  *record
	attempt state.Attempt
	places  *places
	secrets map[string][]byte // only the names matter while a task is checked
	proxies map[string]http.Handler
	// logLimit is for tasks that set none.
	logLimit caisson.Bytes
	onExit   []string
	env      []string // of onExit
}

// spec describes the sandbox of a step that has the folder. It only looks at its arguments, so that
// a task can be checked against an engine before anything of it exists.
func (b *blueprint) spec(st *step, folder string) (*engine.Spec, error) {
	task := b.record.Task
	s := &engine.Spec{
		ID:        caisson.SandboxID(b.record.ID, b.attempt.Number, folder),
		Dir:       b.attempt.Step(folder),
		Log:       b.attempt.Log(folder),
		Task:      b.record.ID,
		Attempt:   b.attempt.Number,
		Step:      st.name,
		Env:       b.environ(st),
		Workdir:   workdir(&st.program),
		User:      st.program.User,
		Group:     task.Group,
		Root:      b.record.Root,
		Image:     st.program.Image,
		Registry:  task.Registry,
		Options:   task.Options,
		WorkOwner: b.record.Owner,
		Network:   task.Network,
		DNS:       task.DNS,
		Hostname:  task.Hostname,
		Limits:    task.Limits,
		Timeout:   st.timeout,
		Grace:     graceOf(task),
		Linger:    graceOf(task),
	}
	s.Forkable = task.Forkable && st.kind == kindMain
	s.Args, s.Run = argv(&st.program)
	if s.Limits.Log == 0 {
		s.Limits.Log = b.logLimit
	}
	if task.StopSignal != "" {
		signal, err := caisson.ParseSignal(task.StopSignal)
		if err != nil {
			return nil, invalid("stop_signal", err)
		}
		s.StopSignal = signal
	}
	if b.record.Sharing.Work {
		s.Work, s.Tmp = b.attempt.Work(), b.attempt.Tmp(folder)
		s.WorkLimited = s.Limits.Disk > 0
	}
	if st.kind == kindMain {
		b.forMain(s)
	}
	if b.record.Sharing.Enter && keepable(st.kind) {
		s.Keep = task.Keep
	}
	if st.kind != kindSidecar {
		// A sidecar that ends leaves nothing to be done before main ends.
		s.OnExit, s.OnExitEnv = b.onExit, b.env
	}
	b.onNetwork(s, st)
	if b.places != nil && b.places.Pinned[s.Image] != "" {
		s.Image = b.places.Pinned[s.Image]
	}
	if b.record.Sharing.RootFS && s.Image != "" {
		// Which one it is shows once it is pulled.
		s.Image, s.RootFS = "", &engine.RootFS{Path: "/"}
	}
	// An engine that brings images itself does not know the document's folder.
	const archive = "docker-archive:"
	if file, ok := strings.CutPrefix(s.Image, archive); ok && !filepath.IsAbs(file) && b.record.BaseDir != "" {
		s.Image = archive + filepath.Join(b.record.BaseDir, file)
	}
	s.ImageEntrypoint = s.Image != "" && len(s.Args) > 0 && len(st.program.Entrypoint) == 0
	b.addSecrets(s)
	b.addMounts(s, st)
	return s, b.addGateway(s)
}

// forMain adds what only the main program has.
func (b *blueprint) forMain(s *engine.Spec) {
	task := b.record.Task
	s.Module = b.module()
	s.Machine = task.Machine
	s.Ports = task.Ports
	s.Displays = task.Displays
	s.Privileged = task.Privileged
	s.Devices = task.Devices
	s.GPUs = task.GPUs
	if (s.Module != "" || s.Machine != nil) && s.Workdir == caisson.WorkDir && task.Workdir == "" {
		s.Workdir = "" // theirs to choose
	}
}

func (b *blueprint) environ(st *step) map[string]string {
	env := make(map[string]string, len(st.program.Env)+6)
	maps.Copy(env, st.program.Env)
	env["CAISSON_WORK"] = caisson.WorkDir
	env["CAISSON_TASK"] = b.record.ID
	env["CAISSON_ATTEMPT"] = strconv.Itoa(b.attempt.Number)
	env["CAISSON_STEP"] = st.label()
	env["CAISSON_OUTPUT"] = path.Join(caisson.WorkDir, outputFile)
	env["CAISSON_PROGRESS"] = path.Join(caisson.WorkDir, progressFile)
	return env
}

func (b *blueprint) addSecrets(s *engine.Spec) {
	task := b.record.Task
	for _, name := range slices.Sorted(maps.Keys(task.Secrets)) {
		secret := task.Secrets[name]
		as := secret.As
		switch {
		case b.record.Parent != nil && task.Registry != nil && task.Registry.Password == name:
			as = "" // a part pulls its image with it, and shows it to no program
		case as == "":
			as = caisson.SecretEnv
		}
		if secret.Broker != nil {
			b.addPlaceholder(s, name, as)
			as = "" // the value is known to nobody inside, and is not told by the log
		}
		s.Secrets = append(s.Secrets, engine.Secret{Name: name, Value: b.secrets[name], As: as, Once: secret.Once})
	}
	for _, name := range slices.Sorted(maps.Keys(b.secrets)) {
		if b.record.Parent != nil && strings.HasPrefix(name, redactPrefix) {
			s.Secrets = append(s.Secrets, engine.Secret{Name: name, Value: b.secrets[name]})
		}
	}
}

// addPlaceholder adds what the program gets instead of a brokered secret.
func (b *blueprint) addPlaceholder(s *engine.Spec, name, as string) {
	if kept := b.record.brokerage; kept != nil && as != "" {
		s.Secrets = append(s.Secrets, engine.Secret{Name: name, Value: []byte(kept.Placeholders[name]), As: as, Placeholder: true})
	}
}

// addMounts adds inputs that are bound, the task's mounts in their order, and
// the step's files outside of the work folder. A mount may lie below /work, so
// inputs come first.
func (b *blueprint) addMounts(s *engine.Spec, st *step) {
	if b.places == nil {
		s.Mounts = planned(b.record.Task.Mounts)
	} else {
		for _, bind := range b.places.Binds {
			s.Mounts = append(s.Mounts, engine.Mount{Type: engine.MountBind, Source: bind.Source, Target: bind.Target, ReadOnly: true})
		}
		for _, p := range b.places.Mounts {
			m := engine.Mount{
				Type: engine.MountBind, Source: p.Source, Target: p.Target,
				ReadOnly: p.ReadOnly, Owned: p.Owned, Size: p.Size, Mode: p.Mode,
			}
			if p.Source == "" {
				m.Type = engine.MountTmpfs
			}
			s.Mounts = append(s.Mounts, m)
		}
	}
	for i, name := range outsideFiles(&st.program) {
		s.Mounts = append(s.Mounts, engine.Mount{Type: engine.MountBind, Source: b.outside(st, i), Target: name, ReadOnly: true})
	}
}

// outside is where the step's i-th file outside of the work folder lies on the
// host.
func (b *blueprint) outside(st *step, i int) string {
	return filepath.Join(b.attempt.Files(), fmt.Sprintf("%s-%d", st.name, i))
}

// planned is what the task's mounts will ask of the engine.
func planned(mounts []caisson.Mount) []engine.Mount {
	var list []engine.Mount
	for _, m := range mounts {
		p := engine.Mount{Type: engine.MountBind, Source: "/", Target: inside(m.Target), ReadOnly: m.ReadOnly}
		if m.Type == engine.MountTmpfs {
			p.Type, p.Source = engine.MountTmpfs, ""
		}
		list = append(list, p)
	}
	return list
}

// inside returns the absolute form of a path in the sandbox: relative ones
// start at the work folder.
func inside(name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(caisson.WorkDir, name)
}

// insideWork returns where in the work folder a path of a document lies, and
// whether it does.
func insideWork(name string) (string, bool) {
	rel, err := filepath.Rel(caisson.WorkDir, inside(name))
	return rel, err == nil && filepath.IsLocal(rel)
}

// outsideFiles lists, in order, the files of a program that lie outside of the
// work folder.
func outsideFiles(p *caisson.Program) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(p.Files)) {
		if _, inside := insideWork(name); !inside {
			names = append(names, path.Clean(name))
		}
	}
	return names
}

func graceOf(task *caisson.Task) caisson.Duration {
	if task.Grace > 0 {
		return task.Grace
	}
	return caisson.DefaultGrace
}

func invalid(item string, err error) error {
	return &caisson.Error{Op: caisson.OpValidate, Item: item, Kind: caisson.ErrInvalid, Err: err}
}
