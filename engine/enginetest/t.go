package enginetest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/ext4"
	"github.com/caissonrun/caisson/internal/safefs"
)

// heavy has cases repeat as often as their rules say. A flag must be known
// before tests begin, so it is the package's.
var heavy = flag.Bool("enginetest.heavy", false, "repeat as often as the rules of the conformance suite say")

// A T is what one case works with. Its failures are recorded, not reported, so
// that the suite can be tested itself.
type T struct {
	*suite
	ctx    context.Context // ends at the case's deadline
	tb     testing.TB      // for the harness
	dir    string          // folder of the case
	engine engine.Engine

	mu       sync.Mutex
	failures []string
	cleanups []func()
	boxes    int
	orphans  []int // process ids that lose left behind
}

// Errorf says that the rule is broken, and goes on.
func (t *T) Errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, file, line, _ := runtime.Caller(1)
	where := fmt.Sprintf("%s:%d: ", filepath.Base(file), line)
	t.failures = append(t.failures, where+fmt.Sprintf(format, args...))
}

// Fatalf says that the rule is broken, and ends the case. It is called from
// the case's own goroutine only.
func (t *T) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

func (t *T) failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.failures) > 0
}

// after calls f after the case, the last first.
func (t *T) after(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

// times returns how often a case repeats what a rule wants n times.
func (t *T) times(n int) int {
	switch {
	case *heavy:
		return n
	case t.h.Slow:
		return min(n, 2)
	}
	return max(n/20, min(n, 5))
}

// some returns what a case goes through of a list: where making a sandbox takes
// seconds, its ends and its middle.
func some[E any](t *T, list []E) []E {
	const few = 3
	if *heavy || !t.h.Slow || len(list) <= few {
		return list
	}
	return []E{list[0], list[len(list)/2], list[len(list)-1]}
}

// eventually waits until f is true, and ends the case if it does not become so.
func (t *T) eventually(what string, f func() bool) {
	for !f() {
		if t.ctx.Err() != nil {
			t.Fatalf("it never came true that %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// kind checks that an error is of one of some kinds.
func (t *T) kind(err error, call string, kinds ...caisson.Kind) {
	for _, k := range kinds {
		if errors.Is(err, k) {
			return
		}
	}
	_, file, line, _ := runtime.Caller(1)
	t.Errorf("%s (%s:%d) = %v, want an error of kind %v", call, filepath.Base(file), line, err, kinds)
}

// ok ends the case if there is an error.
func (t *T) ok(err error, call string) {
	if err != nil {
		_, file, line, _ := runtime.Caller(1)
		t.Fatalf("%s (%s:%d) = %v, want no error", call, filepath.Base(file), line, err)
	}
}

// spec returns a spec that runs the inside program with words(args), and has
// folders of its own.
func (t *T) spec(args ...string) *engine.Spec {
	t.mu.Lock()
	t.boxes++
	base := filepath.Join(t.dir, fmt.Sprint(t.boxes))
	t.mu.Unlock()
	spec := &engine.Spec{
		ID:        t.newID(),
		Dir:       filepath.Join(base, "dir"),
		Log:       filepath.Join(base, "log"),
		Work:      filepath.Join(base, "work"),
		WorkOwner: t.owner,
		Task:      "enginetest",
		Attempt:   1,
		Step:      "main",
	}
	t.ok(os.Mkdir(base, 0o755), "Mkdir")
	for _, dir := range []string{spec.Dir, spec.Work} {
		t.ok(os.Mkdir(dir, 0o700), "Mkdir")
	}
	t.own(spec.Work)
	if t.h.RootFS != "" {
		spec.RootFS = t.rootFS(base, t.h.RootFS)
	}
	t.program(spec, t.inside(spec, words(args)...))
	return spec
}

// rootFS returns a root file system that a sandbox can have for its own.
func (t *T) rootFS(base, image string) *engine.RootFS {
	image, err := filepath.EvalSymlinks(image)
	t.ok(err, "EvalSymlinks")
	if !t.features.Overlay {
		own := filepath.Join(base, "rootfs")
		t.ok(os.CopyFS(own, os.DirFS(image)), "CopyFS")
		return &engine.RootFS{Path: own}
	}
	changes := filepath.Join(base, "changes")
	t.ok(os.Mkdir(changes, 0o700), "Mkdir")
	root := &engine.RootFS{Path: image, Changes: changes}
	switch {
	case !t.features.Disk:
	case image == t.real(t.h.RootFS):
		// With a name it is an image that others follow: a state of it is worth saving.
		root.Disk, root.Image = t.disk, "enginetest"
	default:
		root.Disk = filepath.Join(base, "rootfs.ext4")
		t.ok(writeDisk(t.ctx, root.Disk, image), "write a disk")
	}
	return root
}

// writeDisk makes a disk of a root file system.
func writeDisk(ctx context.Context, path, image string) error {
	root, err := safefs.Open(image, nil)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = ext4.WriteTree(ctx, f, root, nil)
	return errors.Join(err, f.Close())
}

// inside returns arguments with the work folder where the program has it.
func (t *T) inside(spec *engine.Spec, args ...string) []string {
	if !t.h.HostPaths {
		return args
	}
	there := make([]string, len(args))
	for i, arg := range args {
		there[i] = arg
		if rest, ok := strings.CutPrefix(arg, caisson.WorkDir); ok && (rest == "" || rest[0] == '/') {
			there[i] = spec.Work + rest
		}
	}
	return there
}

// own gives a file or folder of the host to the owner of work folders.
func (t *T) own(path string) {
	if os.Geteuid() == 0 {
		t.ok(os.Lchown(path, t.owner.UID, t.owner.GID), "Lchown")
	}
}

// put makes a file in a work folder on the host.
func (t *T) put(spec *engine.Spec, name, text string, perm os.FileMode) {
	path := filepath.Join(spec.Work, name)
	t.ok(os.MkdirAll(filepath.Dir(path), 0o755), "MkdirAll")
	t.ok(os.WriteFile(path, []byte(text), perm), "WriteFile")
	t.ok(os.Chmod(path, perm), "Chmod")
	for p := path; p != spec.Work; p = filepath.Dir(p) {
		t.own(p)
	}
}

// get returns what a file in a work folder on the host holds.
func (t *T) get(spec *engine.Spec, name string) string {
	data, err := os.ReadFile(filepath.Join(spec.Work, name))
	if err != nil {
		t.Errorf("reading %s of the work folder: %v", name, err)
	}
	return string(data)
}

// create makes a sandbox that is destroyed after the case.
func (t *T) create(spec *engine.Spec) engine.Sandbox {
	sb, err := t.engine.Create(t.ctx, spec)
	t.ok(err, "Create")
	t.after(func() { t.discard(spec.Dir, sb) })
	return sb
}

// discard destroys a sandbox after a case, by another engine where the one
// that made it is closed.
func (t *T) discard(dir string, sb engine.Sandbox) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), t.suite.cleanup)
	defer cancel()
	err := sb.Destroy(ctx)
	if errors.Is(err, caisson.ErrUnavailable) {
		e := t.h.New(t.tb)
		defer e.Close()
		if sb, err = e.Recover(ctx, dir); err == nil {
			err = sb.Destroy(ctx)
		}
	}
	if err != nil && !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Destroy after the case = %v, want no error", err)
	}
}

// destroy destroys a sandbox, also where the case's time is up.
func (t *T) destroy(sb engine.Sandbox) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), t.suite.cleanup)
	defer cancel()
	if err := sb.Destroy(ctx); err != nil {
		t.Errorf("Destroy = %v, want no error", err)
	}
}

// refused checks that Create refuses a spec with an error of a kind, and that
// nothing of it is left in Spec.Dir.
func (t *T) refused(spec *engine.Spec, kinds ...caisson.Kind) error {
	sb, err := t.engine.Create(t.ctx, spec)
	if err == nil {
		t.destroy(sb)
		t.Errorf("Create succeeded, want an error of kind %v", kinds)
		return nil
	}
	t.kind(err, "Create", kinds...)
	if entries, _ := os.ReadDir(spec.Dir); len(entries) > 0 {
		t.Errorf("a failed Create left %s in Spec.Dir", entries[0].Name())
	}
	return err
}

// newEngine returns one more engine of the installation. It is closed after
// the case.
func (t *T) newEngine() engine.Engine {
	e := t.h.New(t.tb)
	t.after(func() { e.Close() })
	return e
}

// alone gives the case an engine that no other case has, so that it can be
// restarted.
func (t *T) alone() { t.engine = t.newEngine() }

// restart gives the case the engine that a new process would have after the
// one before was killed. The case must be alone.
func (t *T) restart() {
	if t.h.Restart != nil {
		t.engine = t.h.Restart(t.tb, t.engine)
	} else {
		t.ok(t.engine.Close(), "Close")
		t.engine = t.h.New(t.tb)
	}
	e := t.engine
	t.after(func() { e.Close() })
}

// parallel calls f from n goroutines at once and waits for all.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// lines returns the lines of a text.
func lines(text string) []string {
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}
