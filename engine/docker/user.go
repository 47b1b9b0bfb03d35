package docker

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
)

// maxID is the largest user or group id: larger ones are negative numbers to
// some programs.
const maxID = 1<<31 - 2

// A user is who the program runs as.
type user struct {
	uid, gid   int
	groups     []string // more groups, by number
	name, home string
}

// nonRoot is who runs what would be root's.
var nonRoot = user{uid: DefaultUID, gid: DefaultGID, name: "caisson", home: "/tmp"}

// user decides who the program of a spec runs as.
func (e *Engine) user(ctx context.Context, s *engine.Spec, img *image) (user, error) {
	text, field := s.User, "user"
	if text == "" {
		text, field = img.user, "image's user"
	}
	var lists accounts
	if needsAccounts(text) || needsAccounts(s.Group) {
		var err error
		if lists, err = e.images.accounts(ctx, img); err != nil {
			return user{}, err
		}
	}
	return decide(text, s.Group, field, &lists, e.opts.Root || s.Root)
}

// needsAccounts reports whether a user must be looked up in the image.
func needsAccounts(text string) bool {
	name, group, both := strings.Cut(text, ":")
	_, err := strconv.ParseUint(name, 10, 31)
	_, groupErr := strconv.ParseUint(group, 10, 31)
	return text != "" && name != "root" && (err != nil || !both || groupErr != nil)
}

// decide turns "user[:group]" and a further group into ids. Without root, a
// user that is root in any spelling, or none, is nonRoot.
func decide(text, group, field string, lists *accounts, root bool) (user, error) {
	who := user{name: "root", home: "/root"}
	if text != "" {
		var err error
		if who, err = parseUser(text, field, lists); err != nil {
			return who, err
		}
	}
	if who.uid == 0 && !root {
		who = nonRoot
	}
	if group != "" {
		gid, err := parseID("group", group, lists.groups)
		if err != nil {
			return who, err
		}
		if gid != who.gid {
			who.groups = append(who.groups, strconv.Itoa(gid))
		}
	}
	return who, nil
}

// parseUser reads "user[:group]", each a number or a name.
func parseUser(text, field string, lists *accounts) (user, error) {
	name, groupName, both := strings.Cut(text, ":")
	uid, err := parseID(field, name, lists.users)
	if err != nil {
		return user{}, err
	}
	who := user{uid: uid, gid: uid, name: strconv.Itoa(uid), home: "/tmp"}
	if a, ok := lists.by(name, uid); ok {
		who.gid, who.name, who.home = a.gid, a.name, a.home
		who.groups = slices.Clone(a.groups)
	}
	if both {
		if who.gid, err = parseID(field, groupName, lists.groups); err != nil {
			return user{}, err
		}
	}
	return who, nil
}

// parseID reads one number or name.
func parseID(field, text string, names map[string]int) (int, error) {
	if text == "root" {
		return 0, nil
	}
	if id, ok := names[text]; ok && text != "" {
		return id, nil
	}
	// ParseUint takes neither signs nor other bases' prefixes.
	id, err := strconv.ParseUint(text, 10, 64)
	switch {
	case err != nil && text != "" && strings.Trim(text, "0123456789") != "":
		return 0, kept.Invalid(field, fmt.Errorf("%q is neither a number nor a name that the image has", text))
	case err != nil || id > maxID:
		return 0, kept.Invalid(field, fmt.Errorf("%q is not an id from 0 to %d", text, maxID))
	}
	return int(id), nil
}

// accounts are those that an image's passwd and group files have. They are the
// image's: nothing is taken from them but numbers and words.
type accounts struct {
	users, groups map[string]int
	list          []account
}

type account struct {
	uid, gid   int
	name, home string
	groups     []string
}

// by finds an account by its name or its number.
func (a *accounts) by(name string, uid int) (account, bool) {
	for _, x := range a.list {
		if x.name == name {
			return x, true
		}
	}
	for _, x := range a.list {
		if x.uid == uid {
			return x, true
		}
	}
	return account{}, false
}

const (
	// maxAccounts bounds each of the two files, in bytes.
	maxAccounts = 1 << 20
	// maxGroups bounds the groups of one account.
	maxGroups = 32
)

// readAccounts reads the two files.
func readAccounts(passwd, group []byte) accounts {
	a := accounts{users: map[string]int{}, groups: map[string]int{}}
	for f := range colons(passwd, 6) {
		uid, uidErr := strconv.ParseUint(f[2], 10, 31)
		gid, gidErr := strconv.ParseUint(f[3], 10, 31)
		if uidErr != nil || gidErr != nil || f[0] == "" {
			continue
		}
		home := f[5]
		if !strings.HasPrefix(home, "/") {
			home = "/"
		}
		if _, there := a.users[f[0]]; !there {
			a.users[f[0]] = int(uid)
			a.list = append(a.list, account{uid: int(uid), gid: int(gid), name: f[0], home: home})
		}
	}
	for f := range colons(group, 4) {
		gid, err := strconv.ParseUint(f[2], 10, 31)
		if err != nil || f[0] == "" {
			continue
		}
		if _, there := a.groups[f[0]]; !there {
			a.groups[f[0]] = int(gid)
		}
		for member := range strings.SplitSeq(f[3], ",") {
			for i := range a.list {
				x := &a.list[i]
				if x.name == member && int(gid) != x.gid && len(x.groups) < maxGroups {
					x.groups = append(x.groups, strconv.FormatUint(gid, 10))
				}
			}
		}
	}
	return a
}

// colons yields the fields of each line that has enough of them.
func colons(data []byte, least int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		lines := bufio.NewScanner(bytes.NewReader(data))
		lines.Buffer(nil, maxAccounts)
		for lines.Scan() {
			if f := strings.Split(lines.Text(), ":"); len(f) >= least && !yield(f) {
				return
			}
		}
	}
}

// accounts reads the accounts of an image, by a container that is never started.
func (m *images) accounts(ctx context.Context, img *image) (accounts, error) {
	m.mu.Lock()
	known, ok := m.people[img.id]
	m.mu.Unlock()
	if ok {
		return known, nil
	}
	name, err := m.look(ctx, img.id)
	if err != nil {
		return accounts{}, err
	}
	passwd, err := m.file(ctx, name, "/etc/passwd")
	var group []byte
	if err == nil {
		group, err = m.file(ctx, name, "/etc/group")
	}
	err = errors.Join(err, m.daemon.remove(context.WithoutCancel(ctx), name))
	if err != nil {
		return accounts{}, err
	}
	a := readAccounts(passwd, group)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.people) > 1000 {
		clear(m.people)
	}
	m.people[img.id] = a
	return a, nil
}

// look makes a container of an image that never runs, and returns its name.
func (m *images) look(ctx context.Context, id string) (string, error) {
	name := "caisson-" + m.opts.Installation + "-look-" + newMark()
	_, err := call(ctx, "image", func(ctx context.Context) (client.ContainerCreateResult, error) {
		return m.daemon.ContainerCreate(ctx, client.ContainerCreateOptions{
			Name: name,
			Config: &container.Config{
				Image: id, Cmd: []string{"/"}, Labels: map[string]string{labelInstallation: m.opts.Installation, labelSandbox: lookLabel},
			},
			HostConfig: &container.HostConfig{NetworkMode: "none"},
		})
	})
	return name, err
}

// lookLabel is the sandbox's label of a container that never runs.
const lookLabel = "look"

// file reads a small file of a container. One that is not there, or is none, is
// empty.
func (m *images) file(ctx context.Context, name, path string) ([]byte, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	r, err := m.daemon.CopyFromContainer(ctx, name, client.CopyFromContainerOptions{SourcePath: path})
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, sorted(ctx, "image", err)
	}
	defer r.Content.Close()
	archive := tar.NewReader(r.Content)
	head, err := archive.Next()
	if err != nil || head.Typeflag != tar.TypeReg {
		return nil, nil
	}
	data, err := io.ReadAll(io.LimitReader(archive, maxAccounts))
	if err != nil {
		return nil, &caisson.Error{Item: "image", Kind: caisson.ErrUnavailable, Err: err}
	}
	return data, nil
}
