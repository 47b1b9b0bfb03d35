package oci

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/safefs"
)

const (
	// maxInside is the largest id that a sandbox has.
	maxInside = idsPerSandbox - 1
	// maxAccounts bounds a passwd or group file, in bytes; an image may hold one
	// of any size (CVE-2026-47262).
	maxAccounts = 1 << 20
	// maxLine bounds one of its lines, and maxGroups the groups of one user.
	maxLine   = 64 << 10
	maxGroups = 64
)

// A person is who a program runs as.
type person struct {
	isolate.User
	name, home string // as the image has them; empty: it does not know the user
}

// accounts are the users and groups that an image knows.
type accounts struct{ passwd, group []byte }

// readAccounts reads the image's files of users and groups. One that it has not
// is empty.
func readAccounts(root string) (*accounts, error) {
	dir, err := safefs.Open(root, nil)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var a accounts
	for name, data := range map[string]*[]byte{"etc/passwd": &a.passwd, "etc/group": &a.group} {
		if *data, err = readAccount(dir.FS(), name); err != nil {
			return nil, kept.Invalid("image", fmt.Errorf("/%s: %w", name, err))
		}
	}
	return &a, nil
}

// readAccount reads one file, through links that stay inside of the image.
func readAccount(files engine.FS, name string) ([]byte, error) {
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxAccounts+1))
	if err == nil && len(data) > maxAccounts {
		err = fmt.Errorf("larger than %d bytes", maxAccounts)
	}
	return data, err
}

// lines calls f with the fields of each line that has at least least of them,
// until f returns false.
func lines(data []byte, least int, f func(fields []string) bool) {
	scanner := bufio.NewScanner(bytes.NewReader(data))
	scanner.Buffer(nil, maxLine)
	for scanner.Scan() {
		fields := strings.Split(scanner.Text(), ":")
		if len(fields) >= least && !f(fields) {
			return
		}
	}
}

// parseID reads an id. ParseUint takes neither signs nor other bases' prefixes,
// and says so where a number is beyond what fits (CVE-2024-40635).
func parseID(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	return int(n), err
}

// inside parses an id that a sandbox must have.
func inside(field, text string) (int, error) {
	id, err := parseID(text)
	if err != nil {
		return 0, kept.Invalid(field, fmt.Errorf("%q: not a number of 0 to %d, and the image has no such name", text, maxInside))
	}
	if id > maxInside {
		return 0, kept.Invalid(field, fmt.Errorf("%q: a sandbox has the ids 0 to %d", text, maxInside))
	}
	return id, nil
}

// numeric reports whether text is meant as an id, whatever its size: such text
// is never a name.
func numeric(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }

// user looks a user up by name or id.
func (a *accounts) user(text string) (p person, known bool, err error) {
	wanted := -1
	if numeric(text) {
		if wanted, err = inside("user", text); err != nil {
			return p, false, err
		}
	}
	lines(a.passwd, 6, func(f []string) bool {
		uid, uidErr := parseID(f[2])
		gid, gidErr := parseID(f[3])
		if uidErr != nil || gidErr != nil || uid > maxInside || gid > maxInside || f[0] == "" {
			return true
		}
		if wanted < 0 && f[0] == text || wanted >= 0 && uid == wanted {
			p, known = person{User: isolate.User{UID: uid, GID: gid}, name: f[0], home: f[5]}, true
		}
		return !known
	})
	if known {
		return p, true, nil
	}
	if wanted < 0 && text == "root" {
		return p, false, nil
	}
	if wanted < 0 {
		_, err = inside("user", text)
		return p, false, err
	}
	p.UID = wanted
	return p, false, nil
}

// groupID looks a group up by name or id.
func (a *accounts) groupID(field, text string) (int, error) {
	if numeric(text) {
		return inside(field, text)
	}
	gid, found := 0, text == "root"
	lines(a.group, 3, func(f []string) bool {
		n, err := parseID(f[2])
		if err == nil && n <= maxInside && f[0] == text {
			gid, found = n, true
			return false
		}
		return true
	})
	if !found {
		return inside(field, text)
	}
	return gid, nil
}

// groupsOf lists the groups that name a user, in the file's order.
func (a *accounts) groupsOf(name string) []int {
	var list []int
	lines(a.group, 4, func(f []string) bool {
		gid, err := parseID(f[2])
		if err == nil && gid <= maxInside && slices.Contains(strings.Split(f[3], ","), name) {
			list = append(list, gid)
		}
		return len(list) < maxGroups
	})
	return list
}

// permitting returns the options with what the spec permits beside them.
func (o *Options) permitting(s *engine.Spec) *Options {
	own := *o
	own.Root = o.Root || s.Root
	return &own
}

// who decides who a program runs as: the task's user, or the image's, which the
// executor has put in its place. Unless root is permitted, a user that is root
// in any spelling, or none, becomes the standard one.
func (o *Options) who(a *accounts, user, group string) (person, error) {
	name, groupName, both := strings.Cut(user, ":")
	if user != "" && (name == "" || both && groupName == "") {
		return person{}, kept.Invalid("user", fmt.Errorf("%q: use USER or USER:GROUP", user))
	}
	setDefault(&name, "0")
	p, known, err := a.user(name)
	if err != nil {
		return p, err
	}
	switch {
	case known:
		p.Groups = a.groupsOf(p.name)
	case p.UID == o.UID:
		p.GID = o.GID
	}
	if both {
		if p.GID, err = a.groupID("user", groupName); err != nil {
			return p, err
		}
		// As Docker does: a group that is named stands for all others.
		p.Groups = nil
	}
	if !o.Root && p.UID == 0 {
		if p, _, err = a.user(strconv.Itoa(o.UID)); err != nil {
			return p, err
		}
		p.User = isolate.User{UID: o.UID, GID: o.GID}
	}
	if group != "" {
		gid, err := a.groupID("group", group)
		if err != nil {
			return p, err
		}
		if gid != p.GID && !slices.Contains(p.Groups, gid) {
			p.Groups = append(p.Groups, gid)
		}
	}
	return p, nil
}
