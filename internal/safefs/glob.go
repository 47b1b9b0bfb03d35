//go:build unix

package safefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"golang.org/x/sys/unix"
)

// A Pattern is a glob as in doublestar: * and ? stand for no slash, ** as an
// element for any number of elements, [a-z] and {a,b} as in a shell.
type Pattern struct {
	text string
	base string // the folder that everything it matches is in or below
	deep bool   // it has **
}

// ParsePattern reads a pattern. It must be relative and clean and have no "..";
// a slash at its end is ignored. Errors: fs.ErrInvalid.
func ParsePattern(text string) (*Pattern, error) {
	clean := strings.TrimPrefix(strings.TrimSuffix(text, "/"), "./")
	if err := check("glob", clean); err != nil {
		return nil, fmt.Errorf("pattern %q: %w: use a relative path without %q", text, fs.ErrInvalid, "..")
	}
	if !doublestar.ValidatePattern(clean) {
		return nil, fmt.Errorf("pattern %q: %w: unfinished [ ] or { }", text, fs.ErrInvalid)
	}
	p := &Pattern{text: clean, base: clean, deep: strings.Contains(clean, "**")}
	if !p.Literal() {
		p.base, _ = doublestar.SplitPattern(clean)
	} else if p.base = "."; strings.Contains(clean, "/") {
		p.base = clean[:strings.LastIndexByte(clean, '/')]
	}
	return p, nil
}

// Base returns the folder that everything the pattern matches is in or below,
// "." for the root.
func (p *Pattern) Base() string { return p.base }

// Literal reports whether the pattern has no special characters, and so names
// one file or folder.
func (p *Pattern) Literal() bool { return !strings.ContainsAny(p.text, `*?[{\`) }

// Match reports whether the pattern matches name.
func (p *Pattern) Match(name string) bool {
	ok, err := doublestar.Match(p.text, name)
	return ok && err == nil
}

// levels returns how many levels of folders below Base are to be entered, 0
// for all.
func (p *Pattern) levels() int {
	if p.deep || strings.Contains(p.text, "{") {
		return 0
	}
	elements := strings.Count(p.text, "/") + 1
	if p.base != "." {
		elements -= strings.Count(p.base, "/") + 1
	}
	return max(elements, 1)
}

// Glob calls f for everything below the root that the pattern matches, in the
// order of Walk, but for what is below a matching folder: f can Walk that. A
// pattern with special characters does not match its own base. A base that is
// not there matches nothing. Limits and errors are Walk's, for all that is
// looked at.
func (r *Root) Glob(ctx context.Context, p *Pattern, opts *WalkOptions, f func(*Entry) error) error {
	bounded := WalkOptions{}
	if opts != nil {
		bounded = *opts
	}
	if bounded.MaxDepth == 0 {
		bounded.MaxDepth = p.levels()
	}
	start := p.base
	if p.Literal() {
		start = p.text
	}
	err := r.Walk(ctx, start, &bounded, func(e *Entry) error {
		if e.Path == start && !p.Literal() {
			if e.Mode&fs.ModeSymlink != 0 {
				return pathErr("glob", e.Path, ErrLink)
			}
			return nil
		}
		if !p.Match(e.Path) {
			return nil
		}
		if err := f(e); err != nil || !isDir(e.Mode) {
			return err
		}
		return fs.SkipDir
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}
