package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

// Collect lists the files of the work folder that out.Path matches, in order,
// folders with all that is below them. The files can be opened as long as work
// is open.
//
// Nothing that the task made is followed or waited for. Links are listed where
// they lead to nothing outside of what is taken out. Devices, sockets and FIFOs
// are left out, unless the pattern names one of them literally.
//
// Both returns can be set: what can be had is listed although something else
// is refused.
//
// Errors: ErrInvalid if the pattern is bad, out.MaxSize is passed, or the
// pattern names something that is no file, folder or link; ErrNotFound if
// nothing matches and the output is not optional; ErrDenied for a link that
// leads further, or that stands in the pattern's path, and for what can't be
// read.
func Collect(ctx context.Context, work *safefs.Root, out *caisson.Output) ([]File, error) {
	pattern, err := safefs.ParsePattern(out.Path)
	if err != nil {
		return nil, &caisson.Error{Op: caisson.OpStageOut, Item: out.Path, Kind: caisson.ErrInvalid, Err: err}
	}
	c := collector{work: work, out: out, pattern: pattern}
	err = work.Glob(ctx, pattern, nil, func(e *safefs.Entry) error { return c.match(ctx, e) })
	if err != nil {
		c.refuse(out.Path, err)
	}
	return c.result()
}

// maxRefusals is how many entries that are refused are told one by one.
const maxRefusals = 8

type collector struct {
	work    *safefs.Root
	out     *caisson.Output
	pattern *safefs.Pattern
	matched string // the match that is worked on
	files   []File
	size    int64
	errs    []error
	refused int
}

// match adds an entry that the pattern matches, with all that is below it.
func (c *collector) match(ctx context.Context, e *safefs.Entry) error {
	c.matched = e.Path
	if !e.Mode.IsDir() {
		return c.add(e)
	}
	return c.work.Walk(ctx, e.Path, nil, c.add)
}

func (c *collector) add(e *safefs.Entry) error {
	f := File{Path: e.Path, Rel: c.rel(e.Path), Match: c.matched, Mode: e.Mode.Type() | e.Mode.Perm()}
	switch {
	case e.Mode.IsRegular():
		f.Size = e.Size
		f.Open = func() (*os.File, error) { return c.work.Open(f.Path) }
		c.size += e.Size
		if limit := int64(c.out.MaxSize); limit > 0 && c.size > limit {
			return fmt.Errorf("%w: the limit of the output is %d bytes", safefs.ErrTooMany, limit)
		}
	case e.Mode.IsDir():
	case e.Mode.Type() == fs.ModeSymlink:
		target, err := e.ReadLink()
		if err != nil {
			return err
		}
		f.Link = target
	default:
		if c.pattern.Literal() && e.Path == c.matched {
			c.refuse(e.Path, safefs.ErrType)
		}
		return nil
	}
	c.files = append(c.files, f)
	return nil
}

// checkLinks refuses links that lead to what is not taken out as well.
func (c *collector) checkLinks() {
	taken := map[string]bool{}
	for i := range c.files {
		taken[c.files[i].Path] = true
	}
	c.files = slices.DeleteFunc(c.files, func(f File) bool {
		if f.Mode.Type() != fs.ModeSymlink || c.keepsLink(&f, taken) {
			return false
		}
		c.refuse(f.Path, &caisson.Error{
			Kind: caisson.ErrDenied,
			Err:  fmt.Errorf("it is a symbolic link to %q, which is not part of the output: copy the file instead", f.Link),
		})
		return true
	})
}

// keepsLink reports whether a link leads to nothing outside of the folder that
// matched, or to something else that goes to the same folder.
func (c *collector) keepsLink(f *File, taken map[string]bool) bool {
	if f.Path != f.Match && safefs.LinkInside(f.Path[len(f.Match)+1:], f.Link) {
		return true
	}
	return strings.HasSuffix(c.out.To, "/") && safefs.LinkInside(f.Rel, f.Link) &&
		taken[path.Join(path.Dir(f.Path), f.Link)]
}

// rel returns where a path is below the destination folder.
func (c *collector) rel(name string) string {
	if base := c.pattern.Base(); base != "." {
		return strings.TrimPrefix(name, base+"/")
	}
	return name
}

func (c *collector) refuse(item string, err error) {
	if c.refused++; c.refused <= maxRefusals {
		c.errs = append(c.errs, safefs.Sorted(caisson.OpStageOut, fmt.Sprintf("%q", item), err))
	}
}

func (c *collector) result() ([]File, error) {
	c.checkLinks()
	if more := c.refused - len(c.errs); more > 0 {
		c.errs = append(c.errs, fmt.Errorf("and %d more", more))
	}
	if len(c.files) == 0 && len(c.errs) == 0 && !c.out.Optional {
		return nil, &caisson.Error{
			Op: caisson.OpStageOut, Item: fmt.Sprintf("%q", c.out.Path), Kind: caisson.ErrNotFound,
			Err: errors.New("the task made no such file: mend the path, or say optional: true"),
		}
	}
	return c.files, errors.Join(c.errs...)
}

// Overlaps reports whether the output glob pattern may match to, a path that an
// input is staged to, or something below or above it. Such an input must be a
// copy, because what is bound over to is not in the work folder afterwards.
func Overlaps(pattern, to string) bool {
	p, err := safefs.ParsePattern(pattern)
	if err != nil {
		return true
	}
	to = strings.TrimSuffix(to, "/")
	if p.Literal() {
		literal := strings.TrimSuffix(strings.TrimPrefix(pattern, "./"), "/")
		return within(to, literal) || within(literal, to)
	}
	if base := p.Base(); !within(to, base) {
		return within(base, to)
	}
	// What matches a folder above takes to along; what can match deeper may find
	// something in a folder that is bound there.
	for above := to; above != "."; above = path.Dir(above) {
		if p.Match(above) {
			return true
		}
	}
	return strings.Contains(pattern, "**") || strings.Contains(pattern, "{") ||
		strings.Count(pattern, "/") > strings.Count(to, "/")
}

// within reports whether name is folder or is below it.
func within(name, folder string) bool {
	return folder == "." || name == folder || strings.HasPrefix(name, folder+"/")
}
