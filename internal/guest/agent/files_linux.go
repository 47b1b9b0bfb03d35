package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
	"github.com/caissonrun/caisson/internal/safefs"
)

// clean makes a name below the root of what the host gives.
func clean(name wire.Name) string {
	if s := strings.Trim(string(name), "/"); s != "" {
		return s
	}
	return "."
}

// look serves wire.OpStat, wire.OpLstat and wire.OpReadLink.
func (s *session) look(c *wire.Call) (any, error) {
	p, err := params[wire.Path](c)
	if err != nil {
		return nil, err
	}
	root, err := s.openRoot()
	if err != nil {
		return nil, err
	}
	files, name := root.FS(), clean(p.Path)
	defer files.Close()
	var result any
	switch c.Request.Op {
	case wire.OpReadLink:
		var target string
		target, err = files.ReadLink(name)
		result = wire.Name(target)
	case wire.OpLstat:
		var info fs.FileInfo
		if info, err = files.Lstat(name); err == nil {
			result = describe(info)
		}
	default:
		var info fs.FileInfo
		if info, err = files.Stat(name); err == nil {
			result = describe(info)
		}
	}
	return result, sorted(name, err)
}

// sorted gives an error about a file its kind.
func sorted(name string, err error) error { return safefs.Sorted("", fmt.Sprintf("%q", name), err) }

func describe(info fs.FileInfo) *wire.FileInfo {
	f := &wire.FileInfo{
		Name: wire.Name(info.Name()), Mode: uint32(info.Mode()), Size: info.Size(), ModTime: info.ModTime().UnixNano(),
	}
	if sys, ok := info.Sys().(safefs.Info); ok {
		f.UID, f.GID = sys.UID, sys.GID
	}
	return f
}

// transfer serves calls about files that have streams.
func (s *session) transfer(c *wire.Call) {
	root, err := s.openRoot()
	if err == nil {
		switch c.Request.Op {
		case wire.OpGet:
			err = get(c, root)
		case wire.OpPut:
			err = put(c, root)
		case wire.OpList:
			err = list(c, root)
		default:
			err = open(c, root)
		}
		root.Close()
	}
	if out := c.Out[1]; out != nil && err == nil {
		_ = out.Close()
		out.Drained(c)
	}
	_ = c.End(nil, err)
}

// get serves wire.OpGet.
func get(c *wire.Call, root *safefs.Root) error {
	p, err := params[wire.Path](c)
	if err != nil {
		return err
	}
	ctx, cancel := c.Context()
	defer cancel()
	name, err := root.FS().Resolve(clean(p.Path))
	if err == nil {
		err = root.Tar(ctx, name, c.Out[1])
	}
	return sorted(clean(p.Path), err)
}

// put serves wire.OpPut.
func put(c *wire.Call, root *safefs.Root) error {
	p, err := params[wire.Put](c)
	if err != nil {
		return err
	}
	ctx, cancel := c.Context()
	defer cancel()
	name, err := root.FS().Resolve(clean(p.Path))
	if err == nil {
		err = asOwner(p.Owner, func() error { return root.Untar(ctx, name, c.In[0], nil) })
	}
	return sorted(clean(p.Path), err)
}

// list serves wire.OpList.
func list(c *wire.Call, root *safefs.Root) error {
	p, err := params[wire.Path](c)
	if err != nil {
		return err
	}
	entries, err := root.FS().ReadDir(clean(p.Path))
	if err != nil {
		return sorted(clean(p.Path), err)
	}
	enc := json.NewEncoder(c.Out[1])
	for _, e := range entries {
		info, err := e.Info()
		if err == nil {
			err = enc.Encode(describe(info))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// open serves wire.OpOpen.
func open(c *wire.Call, root *safefs.Root) error {
	p, err := params[wire.Path](c)
	if err != nil {
		return err
	}
	name := clean(p.Path)
	f, err := root.FS().Open(name)
	if err != nil {
		return sorted(name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return sorted(name, err)
	}
	if err := c.Note(describe(info)); err != nil || info.IsDir() {
		return err
	}
	if seeker, ok := f.(io.Seeker); ok && p.Offset > 0 {
		if _, err := seeker.Seek(p.Offset, io.SeekStart); err != nil {
			return sorted(name, err)
		}
	}
	_, err = io.Copy(c.Out[1], struct{ io.Reader }{f})
	if errors.Is(err, wire.ErrStopped) {
		return nil
	}
	return sorted(name, err)
}

// asOwner calls f with the rights of a user on files, whose files are then those
// that it makes.
func asOwner(o *wire.Owner, f func() error) error {
	if o == nil || o.UID == os.Geteuid() && o.GID == os.Getegid() {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// The thread ends with this goroutine: nobody else meets what becomes of it.
		runtime.LockOSThread()
		done <- func() error {
			// These never fail by a return value: what they return is the former id.
			_ = unix.Setfsgid(o.GID)
			_ = unix.Setfsuid(o.UID)
			if now, _ := unix.SetfsuidRetUid(-1); now != o.UID {
				return &caisson.Error{Kind: caisson.ErrDenied, Err: fmt.Errorf("become user %d: not permitted", o.UID)}
			}
			return f()
		}()
	}()
	return <-done
}
