//go:build unix

package folder

import (
	"context"
	"crypto/rand"
	"os"
	"path"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/filecopy"
	"github.com/caissonrun/caisson/internal/safefs"
)

// inMode is of files in in/: a step may be any user.
const inMode = 0o644

// pinsName is where files to be mounted have another name, in W.
const pinsName = "pins"

// Create begins a file in in/PART, such as a table with its header. It appears
// with Commit(false), in place of a former one; the caller calls Close in any
// case. Errors: as CheckName.
func (f *Folder) Create(part Part, name string) (*safefs.Temp, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	return f.create(path.Join("in", string(part), name))
}

// CreateSlice begins a slice of a sliced table or file: name is a folder then.
func (f *Folder) CreateSlice(part Part, name, slice string) (*safefs.Temp, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if why := badName(slice); why != "" {
		return nil, invalid(caisson.OpStageIn, name, "slice %s %s", quoted(slice), why)
	}
	target := path.Join("in", string(part), name)
	if err := f.mkdir(path.Join("data", target)); err != nil {
		return nil, safefs.Sorted(caisson.OpStageIn, target, err)
	}
	return f.create(path.Join(target, slice))
}

// create begins the file target in data/.
func (f *Folder) create(target string) (*safefs.Temp, error) {
	if err := f.unbind(target); err != nil {
		return nil, safefs.Sorted(caisson.OpStageIn, target, err)
	}
	t, err := f.root.CreateTemp(path.Join("data", target), inMode, f.opts.Owner)
	return t, safefs.Sorted(caisson.OpStageIn, target, err)
}

// Ways says how a host's file may get into in/. A clone that shares its blocks
// comes first always, and a copy last.
type Ways struct {
	// Link permits a hard link. It is only made where the file belongs to somebody
	// else than the folder's files and nobody may write to it; the caller says
	// that the step has no rights of the host's root.
	Link bool
	// Bind permits that only a place is made for it: whoever starts the step
	// mounts what Binds returns. The step can read the file, and neither move nor
	// remove it. It is done where the file is on the same file system: until the
	// swap the folder has another name of it.
	Bind bool
}

// How is the way a file got into the folder.
type How string

// The ways, cheapest first.
const (
	Cloned How = "clone"
	Linked How = "link"
	Bound  How = "bind"
	Copied How = "copy"
)

// PutFile puts the host's file at source, which nobody will change, into in/PART
// as name and says how. The path is the caller's own, never a component's.
func (f *Folder) PutFile(ctx context.Context, part Part, name, source string, ways Ways) (How, error) {
	t, err := f.Create(part, name)
	if err != nil {
		return "", err
	}
	defer t.Close()
	p := putting{f: f, target: path.Join("in", string(part), name), source: source, temp: t}
	how, err := p.put(ctx, ways)
	return how, safefs.Sorted(caisson.OpStageIn, p.target, err)
}

// A putting is a file of the host on its way into in/.
type putting struct {
	f      *Folder
	target string // in data/
	source string // on the host
	temp   *safefs.Temp
}

func (p *putting) put(ctx context.Context, ways Ways) (How, error) {
	src, err := os.Open(p.source)
	if err != nil {
		return "", err
	}
	defer src.Close()
	if filecopy.Clone(p.temp.File, src) == nil {
		return Cloned, p.temp.Commit(false)
	}
	if ways.Link && p.link() {
		return Linked, nil
	}
	if ways.Bind && p.bind() {
		return Bound, nil
	}
	if _, err := filecopy.Copy(ctx, p.temp.File, src, nil); err != nil {
		return "", err
	}
	return Copied, p.temp.Commit(false)
}

// link makes the file another name of the source, if nobody who is not the
// host's root can change it by that name.
func (p *putting) link() bool {
	dir, base := filepath.Split(p.source)
	from, err := safefs.Open(dir, nil)
	if err != nil {
		return false
	}
	defer from.Close()
	info, err := from.Stat(base)
	owner := os.Geteuid()
	if p.f.opts.Owner != nil {
		owner = p.f.opts.Owner.UID
	}
	if err != nil || info.UID == owner || info.Mode.Perm()&0o222 != 0 || info.Mode.Perm()&0o004 == 0 {
		return false
	}
	to := path.Join("data", p.target)
	if p.f.root.Remove(to) != nil {
		return false
	}
	return safefs.Link(from, base, p.f.root, to) == nil
}

// bind leaves an empty file where the source is to be mounted. The source is
// pinned by a name in W that no step sees: whoever removes its own name meanwhile
// does no harm. It is noted first: an empty file that nobody knows to be a place
// would be taken for data.
func (p *putting) bind() bool {
	dir, base := filepath.Split(p.source)
	from, err := safefs.Open(dir, nil)
	if err != nil {
		return false
	}
	defer from.Close()
	pin := path.Join(pinsName, rand.Text())
	if safefs.Link(from, base, p.f.root, pin) != nil {
		return false
	}
	if p.f.bind(Bind{Source: filepath.Join(p.f.path, pin), Target: p.target}) == nil && p.temp.Commit(false) == nil {
		return true
	}
	return false
}
