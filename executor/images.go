//go:build unix

package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
)

// Images is where engines with Features.RootFS get root file systems from, and
// who knows which images engines that pull by themselves may have. image.Store
// is one.
type Images interface {
	Permit(ctx context.Context, req *image.Request) (string, error)
	Get(ctx context.Context, req *image.Request) (*image.Image, error)
	RootFS(ctx context.Context, img *image.Image, lease *image.Lease) (*image.RootFS, error)
	Unlease(ctx context.Context, owner string) error
	Sweep(ctx context.Context, live func(owner string) bool) error
}

// A rooted is an image that steps of the attempt run. Its lease is durable
// here before it exists.
type rooted struct {
	Image  string        `json:"image"` // as the task names it
	Lease  string        `json:"lease"` // the owner's name
	Digest string        `json:"digest,omitempty"`
	Config *image.Config `json:"config,omitempty"`
	// Path is the unpacked folder that all steps share. Empty: each has a copy.
	Path string `json:"path,omitempty"`
	// Disk is a disk of that folder, for engines that need one.
	Disk string `json:"disk,omitempty"`

	found *image.Image // in the process that has pulled it
}

// rootOf returns what is known of a step's image, or nil.
func (p *places) rootOf(ref string) *rooted {
	for _, r := range p.Images {
		if r.Image == ref {
			return r
		}
	}
	return nil
}

// lease names a user of an image. Its beginning tells whose attempt it is.
func (a *attendant) lease(what string) string {
	return strings.Join([]string{a.task.ID, strconv.Itoa(a.h.attempt), what}, "/")
}

// leaseLives reports whether the attempt that a lease is of still has a folder.
func (o *owned) leaseLives(owner string) bool {
	parts := strings.SplitN(owner, "/", 3)
	if len(parts) != 3 {
		return true // nothing of an executor's
	}
	attempt, err := strconv.Atoi(parts[1])
	return err == nil && o.attempts[attemptKey{parts[0], attempt}]
}

// imageRefs lists the images that steps run, each once.
func (a *attendant) imageRefs() []string {
	var refs []string
	for _, st := range a.steps.all() {
		if ref := st.program.Image; ref != "" && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	return refs
}

// pull brings the attempt's images while inputs are fetched. What it returns
// waits for them, or ends that if they are not needed any more.
func (a *attendant) pull(ctx context.Context) (wait func(needed bool) error, err error) {
	refs := a.imageRefs()
	if !a.record.Sharing.RootFS || len(refs) == 0 {
		return func(bool) error { return nil }, a.permit(ctx, refs)
	}
	for i, ref := range refs {
		if a.places.rootOf(ref) == nil {
			a.places.Images = append(a.places.Images, &rooted{Image: ref, Lease: a.lease("image-" + strconv.Itoa(i))})
		}
	}
	if err := a.places.write(a.attempt()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	// What is found out is put in its place only when nobody else writes that.
	list := make([]*rooted, len(a.places.Images))
	for i, r := range a.places.Images {
		own := *r
		list[i] = &own
	}
	stop := a.clock("pull")
	done := make(chan error, 1)
	go func() { done <- a.pullAll(ctx, list) }()
	return func(needed bool) error {
		defer cancel()
		if !needed {
			cancel()
		}
		err := <-done
		stop()
		if err != nil || !needed {
			return err
		}
		a.places.Images = list
		return a.places.write(a.attempt())
	}, nil
}

// permit asks the operator's policies about images that the engine will pull by
// itself, before it can begin to.
func (a *attendant) permit(ctx context.Context, refs []string) error {
	if a.x.opts.Images == nil || len(refs) == 0 {
		return nil
	}
	options, err := a.imageOptions()
	if err != nil {
		return err
	}
	pinned := make(map[string]string)
	for _, ref := range refs {
		as, err := a.x.opts.Images.Permit(ctx, a.request(ref, &options))
		if err != nil {
			return err // it names the image
		}
		if as != ref {
			pinned[ref] = as
		}
	}
	if len(pinned) == 0 {
		return nil
	}
	a.places.Pinned = pinned
	return a.places.write(a.attempt())
}

// pullAll fills in what the images are.
func (a *attendant) pullAll(ctx context.Context, list []*rooted) error {
	for _, r := range list {
		if err := a.x.guard(caisson.OpPrepare, func() error { return a.pullOne(ctx, r) }); err != nil {
			return err
		}
	}
	return nil
}

// pullOne pulls an image, and unpacks it if all steps can share that.
func (a *attendant) pullOne(ctx context.Context, r *rooted) error {
	options, err := a.imageOptions()
	if err != nil {
		return err
	}
	if r.found, err = a.x.opts.Images.Get(ctx, a.request(r.Image, &options)); err != nil {
		return err // it names the image
	}
	config := r.found.Config
	r.Digest, r.Config = r.found.Digest, &config
	if a.record.Sharing.Disk {
		if err := a.makeDisk(ctx, r); err != nil {
			return at(fmt.Sprintf("image %q", r.Image), err)
		}
		return nil
	}
	if !a.overlays(&options) {
		return nil
	}
	root, err := a.unpackImage(ctx, r, &image.Lease{Owner: r.Lease})
	if err != nil {
		return at(fmt.Sprintf("image %q", r.Image), err)
	}
	if root.Shared {
		r.Path = root.Path
	}
	return nil
}

// Disks is an Images that images can be had from as disks, for engines with
// Features.Disk.
type Disks interface {
	Images
	Disk(ctx context.Context, img *image.Image, lease *image.Lease) (*image.Disk, error)
}

// makeDisk has the image be a disk, which all steps share.
func (a *attendant) makeDisk(ctx context.Context, r *rooted) error {
	disks, ok := a.x.opts.Images.(Disks)
	if !ok {
		return &caisson.Error{
			Op: caisson.OpPrepare, Item: "image", Kind: caisson.ErrUnsupported, Err: errors.New("this program has no images as disks"),
		}
	}
	return a.withImage(ctx, r, func(ctx context.Context) error {
		disk, err := disks.Disk(ctx, r.found, &image.Lease{Owner: r.Lease})
		if err != nil {
			return err
		}
		r.Path, r.Disk = disk.Root, disk.Path
		return nil
	})
}

// overlays reports whether steps may share an unpacked image.
func (a *attendant) overlays(options *engine.ImageOptions) bool {
	return a.record.Sharing.Overlay && !options.NoOverlay
}

// imageOptions is what the task's options say about images.
func (a *attendant) imageOptions() (engine.ImageOptions, error) {
	return imageOptions(a.engine.engine, a.record.Task)
}

func imageOptions(e engine.Engine, task *caisson.Task) (engine.ImageOptions, error) {
	chooser, ok := e.(engine.ImageChooser)
	if !ok || len(task.Options) == 0 {
		return engine.ImageOptions{}, nil
	}
	return chooser.ImageOptions(json.RawMessage(task.Options))
}

// request says which image the task wants, and how it may be had.
func (a *attendant) request(ref string, options *engine.ImageOptions) *image.Request {
	req := &image.Request{
		Ref: ref, Dir: a.record.BaseDir, Trusted: a.record.Trusted,
		TrustPrefix: options.TrustPrefix, InsecureOptions: options.InsecureOptions,
	}
	if tell := a.x.opts.Pulled; tell != nil {
		req.Progress = func(p image.Progress) { tell(a.task.ID, ref, p) }
	}
	if reg := a.record.Task.Registry; reg != nil {
		req.Pull = image.Pull(reg.Pull)
		req.Username, req.Password = reg.Username, string(a.secrets[reg.Password])
	}
	return req
}

// unpackImage has the image unpacked and leased.
func (a *attendant) unpackImage(ctx context.Context, r *rooted, lease *image.Lease) (root *image.RootFS, err error) {
	err = a.withImage(ctx, r, func(ctx context.Context) (err error) {
		root, err = a.x.opts.Images.RootFS(ctx, r.found, lease)
		return err
	})
	return root, err
}

// withImage has use make something of the image, leased. An image that was
// collected since it was pulled is pulled again.
func (a *attendant) withImage(ctx context.Context, r *rooted, use func(ctx context.Context) error) error {
	// Who looks for what nobody owns must not find a lease before its attempt.
	lock, err := lockfile.AcquireShared(ctx, a.x.folder.SweepLock())
	if err != nil {
		return safefs.Sorted(caisson.OpPrepare, a.x.folder.SweepLock(), err)
	}
	defer lock.Release()
	for try := 0; ; try++ {
		if r.found == nil {
			options, err := a.imageOptions()
			if err != nil {
				return err
			}
			req := a.request(r.Image, &options)
			if r.Digest != "" {
				// Steps run what the first of them ran, whatever the name means now.
				req.Pull = image.PullMissing
			}
			if r.found, err = a.x.opts.Images.Get(ctx, req); err != nil {
				return err
			}
		}
		crash.Point(crash.RootBefore)
		err = use(ctx)
		crash.Point(crash.RootAfter)
		if !errors.Is(err, caisson.ErrNotFound) || try > 0 {
			return err
		}
		r.found = nil
	}
}

// giveRoot gives a step's spec its root file system, and what the image says
// about how it wants to be run.
func (a *attendant) giveRoot(ctx context.Context, st *step, folder string, s *engine.Spec) error {
	if s.RootFS == nil {
		return nil
	}
	r := a.places.rootOf(st.program.Image)
	if r == nil || r.Config == nil {
		return &caisson.Error{
			Op: caisson.OpCreate, Item: fmt.Sprintf("image %q", st.program.Image), Kind: caisson.ErrNotFound,
			Err: errors.New("it was not pulled"),
		}
	}
	options, err := a.imageOptions()
	if err != nil {
		return err
	}
	if err := merge(s, st, a.record.Task, r.Config, &options); err != nil {
		return at(fmt.Sprintf("image %q", st.program.Image), err)
	}
	s.RootFS = &engine.RootFS{Path: r.Path, Disk: r.Disk, Image: st.program.Image}
	if r.Path == "" {
		err = a.copyRoot(ctx, r, folder, s)
	} else {
		s.RootFS.Changes, err = a.changes(folder)
	}
	if err == nil {
		err = a.imageVolumes(ctx, r, s)
	}
	return err
}

// changes makes the folder that a sandbox's changes go to.
func (a *attendant) changes(folder string) (string, error) {
	dir := a.attempt().Changes(folder)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", safefs.Sorted(caisson.OpCreate, dir, err)
	}
	return filepath.EvalSymlinks(dir)
}

// copyRoot gives a step a copy of its own on the attempt's limited storage.
func (a *attendant) copyRoot(ctx context.Context, r *rooted, folder string, s *engine.Spec) error {
	dir := a.attempt().RootFS(folder)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return safefs.Sorted(caisson.OpCreate, dir, err)
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	lease := &image.Lease{Owner: a.lease(folder), Dir: dir, Mode: image.ModeCopy}
	a.places.Leases = append(a.places.Leases, lease.Owner)
	if err := a.places.write(a.attempt()); err != nil {
		return err
	}
	root, err := a.unpackImage(ctx, r, lease)
	if err != nil {
		return err
	}
	s.RootFS.Path = root.Path
	return nil
}

// imageVolumes gives a sandbox the volumes that its image names: folders of the
// attempt that all steps with the image share, with what the image has there.
// Where the task mounts something itself that counts.
func (a *attendant) imageVolumes(ctx context.Context, r *rooted, s *engine.Spec) error {
	if s.Work == "" {
		return nil // what is written there is the sandbox's own
	}
	for i, name := range r.Config.Volumes {
		target := path.Clean("/" + name)
		taken := func(m engine.Mount) bool { return m.Target == target }
		if reserved(target) || slices.ContainsFunc(s.Mounts, taken) {
			continue
		}
		dir := a.attempt().Volume(path.Base(r.Lease), i)
		if err := a.makeVolume(ctx, dir, s.RootFS.Path, target); err != nil {
			return at(fmt.Sprintf("image %q: volume %q", r.Image, name), err)
		}
		s.Mounts = append(s.Mounts, engine.Mount{Type: engine.MountBind, Source: dir, Target: target, Owned: true})
	}
	return nil
}

// reserved reports whether a place is one that sandboxes have of their own.
func reserved(target string) bool {
	for _, own := range []string{"/proc", "/sys", "/dev", "/tmp", "/run", caisson.WorkDir} {
		if target == "/" || target == own || strings.HasPrefix(target, own+"/") {
			return true
		}
	}
	return false
}

// makeVolume makes a volume unless an earlier step has, with what the image has
// there.
func (a *attendant) makeVolume(ctx context.Context, dir, root, target string) error {
	if there, err := exists(dir); there || err != nil {
		return err
	}
	temp := dir + "-new"
	if err := a.removeAll(ctx, temp); err != nil {
		return err
	}
	if err := makeOwned(temp, 0o755, a.record.Owner); err != nil {
		return err
	}
	if err := fill(ctx, temp, root, target, a.record.Owner); err != nil {
		return err
	}
	return safefs.Sorted(caisson.OpMount, dir, os.Rename(temp, dir))
}

// fill copies a folder of an image, if it has it and no part of its path is a
// link.
func fill(ctx context.Context, dir, root, name string, owner engine.Owner) error {
	all, err := safefs.Open(root, nil)
	if err != nil {
		return err
	}
	defer all.Close()
	from, err := all.Sub(strings.TrimPrefix(name, "/"))
	if err != nil {
		return nil //nolint:nilerr // an image need not have the folder
	}
	defer from.Close()
	to, err := safefs.Open(dir, nil)
	if err != nil {
		return err
	}
	defer to.Close()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := from.Tar(ctx, ".", w)
		w.CloseWithError(err)
		done <- err
	}()
	err = to.Untar(ctx, ".", r, &safefs.UntarOptions{Owner: safeOwner(owner)})
	r.CloseWithError(err)
	return errors.Join(err, <-done)
}

// merge puts in a spec what the image says and the task does not, by Docker's
// rules.
func merge(s *engine.Spec, st *step, task *caisson.Task, c *image.Config, options *engine.ImageOptions) error {
	p := st.program
	if st.kind == kindMain {
		if len(options.Entrypoint)+len(options.Cmd) > 0 && (p.Run != "" || len(p.Cmd)+len(p.Entrypoint) > 0) {
			return invalid("options", errors.New("command and args: the task says itself what to run"))
		}
		p.Entrypoint, p.Cmd = append(p.Entrypoint, options.Entrypoint...), append(p.Cmd, options.Cmd...)
	}
	if p.Run == "" {
		s.Args = imageArgs(&p, c)
	}
	for _, kv := range c.Env {
		name, value, _ := strings.Cut(kv, "=")
		if err := engine.CheckEnv(name, value); err != nil {
			return invalid(fmt.Sprintf("env %q", name), err)
		}
		if _, set := s.Env[name]; !set {
			s.Env[name] = value
		}
	}
	if s.Workdir == "" && c.Workdir != "" {
		s.Workdir = path.Join("/", c.Workdir)
	}
	if s.User == "" {
		s.User = c.User
	}
	if task.StopSignal == "" && c.StopSignal != "" {
		signal, err := caisson.ParseSignal(c.StopSignal)
		if err != nil {
			return invalid("stop signal", err)
		}
		s.StopSignal = signal
	}
	return nil
}

// imageArgs is what a program without a script runs: an entrypoint of its own
// drops the image's arguments too.
func imageArgs(p *caisson.Program, c *image.Config) []string {
	switch {
	case len(p.Entrypoint) > 0:
		return slices.Concat(p.Entrypoint, p.Cmd)
	case len(p.Cmd) > 0:
		return slices.Concat(c.Entrypoint, p.Cmd)
	}
	return slices.Concat(c.Entrypoint, c.Cmd)
}

// releaseImages gives up what the attempt has leased.
func (a *attendant) releaseImages(ctx context.Context) error {
	p := a.places
	owners := slices.Clone(p.Leases)
	for _, r := range p.Images {
		owners = append(owners, r.Lease)
	}
	if p.Machine != nil {
		owners = append(owners, p.Machine.Lease)
	}
	if len(owners) == 0 {
		return nil
	}
	if a.x.opts.Images == nil {
		return &caisson.Error{Op: caisson.OpDestroy, Item: "images", Kind: caisson.ErrUnavailable, Err: errors.New("this program has no store of images")}
	}
	for _, owner := range owners {
		limited, cancel := context.WithTimeout(ctx, a.x.limits.destroy)
		err := a.x.guard(caisson.OpDestroy, func() error { return a.x.opts.Images.Unlease(limited, owner) })
		cancel()
		if err != nil {
			return fmt.Errorf("image: %w", err)
		}
	}
	p.Images, p.Leases, p.Machine = nil, nil, nil
	return nil
}

// checkImage refuses images where none can be had, and options that are wrong.
func (x *Executor) checkImage(r *record, e engine.Engine) error {
	if _, err := imageOptions(e, r.Task); err != nil {
		return err
	}
	imaged := func(st step) bool { return st.program.Image != "" }
	if r.Sharing.RootFS && x.opts.Images == nil && slices.ContainsFunc(stepsOf(r.Task).all(), imaged) {
		return &caisson.Error{
			Op: caisson.OpValidate, Item: "image", Kind: caisson.ErrUnsupported, Err: errors.New("this program has no store of images"),
		}
	}
	return nil
}
