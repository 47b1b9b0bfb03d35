// Package accounts finds users and groups by what a root file system says of them:
// nothing in it is trusted, and nothing is taken from it but numbers and words.
package accounts

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
)

const (
	// MaxFile bounds a passwd or group file, in bytes; an image may hold one of any
	// size (CVE-2026-47262).
	MaxFile = 1 << 20
	// MaxLine bounds one of its lines.
	MaxLine = 64 << 10
	// MaxGroups bounds the groups of one user.
	MaxGroups = 64
)

// Accounts are the users and groups that a root knows.
type Accounts struct {
	passwd, group []byte
	most          int
}

// A Person is who a program runs as.
type Person struct {
	UID, GID   int
	Groups     []int
	Name, Home string // as the root has them; empty: it does not know the user
}

// An ID is a user and a group.
type ID struct{ UID, GID int }

// Read reads the root's files of users and groups, through links that stay inside
// of it. One that it has not is empty. Most is the largest id that there can be.
//
// Errors: ErrInvalid for what is no file, or too large.
func Read(files fs.FS, most int) (*Accounts, error) {
	a := Accounts{most: most}
	for name, data := range map[string]*[]byte{"etc/passwd": &a.passwd, "etc/group": &a.group} {
		var err error
		if *data, err = read(files, name); err != nil {
			return nil, invalid("image", fmt.Errorf("/%s: %w", name, err))
		}
	}
	return &a, nil
}

// read reads one file.
func read(files fs.FS, name string) ([]byte, error) {
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
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(data) > MaxFile {
		err = fmt.Errorf("larger than %d bytes", MaxFile)
	}
	return data, err
}

func invalid(item string, err error) error {
	return &caisson.Error{Op: caisson.OpCreate, Item: item, Kind: caisson.ErrInvalid, Err: err}
}

// lines calls f with the fields of each line that has at least least of them,
// until f returns false.
func lines(data []byte, least int, f func(fields []string) bool) {
	scanner := bufio.NewScanner(bytes.NewReader(data))
	scanner.Buffer(nil, MaxLine)
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

// inside parses an id that there can be.
func (a *Accounts) inside(field, text string) (int, error) {
	id, err := parseID(text)
	if err != nil {
		return 0, invalid(field, fmt.Errorf("%q: not a number of 0 to %d, and the image has no such name", text, a.most))
	}
	if id > a.most {
		return 0, invalid(field, fmt.Errorf("%q: a sandbox has the ids 0 to %d", text, a.most))
	}
	return id, nil
}

// numeric reports whether text is meant as an id, whatever its size: such text
// is never a name.
func numeric(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }

// User looks a user up by name or id, without groups but the first, and reports
// whether the root knows it.
func (a *Accounts) User(text string) (p Person, known bool, err error) {
	wanted := -1
	if numeric(text) {
		if wanted, err = a.inside("user", text); err != nil {
			return p, false, err
		}
	}
	lines(a.passwd, 6, func(f []string) bool {
		uid, uidErr := parseID(f[2])
		gid, gidErr := parseID(f[3])
		if uidErr != nil || gidErr != nil || uid > a.most || gid > a.most || f[0] == "" {
			return true
		}
		if wanted < 0 && f[0] == text || wanted >= 0 && uid == wanted {
			p, known = Person{UID: uid, GID: gid, Name: f[0], Home: f[5]}, true
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
		_, err = a.inside("user", text)
		return p, false, err
	}
	p.UID = wanted
	return p, false, nil
}

// GroupID looks a group up by name or id. Field is what it is the value of.
func (a *Accounts) GroupID(field, text string) (int, error) {
	if numeric(text) {
		return a.inside(field, text)
	}
	gid, found := 0, text == "root"
	lines(a.group, 3, func(f []string) bool {
		n, err := parseID(f[2])
		if err == nil && n <= a.most && f[0] == text {
			gid, found = n, true
			return false
		}
		return true
	})
	if !found {
		return a.inside(field, text)
	}
	return gid, nil
}

// groupsOf lists the groups that name a user, in the file's order.
func (a *Accounts) groupsOf(name string) []int {
	var list []int
	lines(a.group, 4, func(f []string) bool {
		gid, err := parseID(f[2])
		if err == nil && gid <= a.most && slices.Contains(strings.Split(f[3], ","), name) {
			list = append(list, gid)
		}
		return len(list) < MaxGroups
	})
	return list
}

// Who says who a program runs as: user is USER or USER:GROUP, each a name or an id,
// and empty means 0; group is one more. Standard takes the place of root in any
// spelling, unless that is permitted, and gives an unknown user of its id its group.
//
// Errors: ErrInvalid if there is no such user or group.
func (a *Accounts) Who(user, group string, standard ID, root bool) (Person, error) {
	name, groupName, both := strings.Cut(user, ":")
	if user != "" && (name == "" || both && groupName == "") {
		return Person{}, invalid("user", fmt.Errorf("%q: use USER or USER:GROUP", user))
	}
	if name == "" {
		name = "0"
	}
	p, known, err := a.User(name)
	if err != nil {
		return p, err
	}
	switch {
	case known:
		p.Groups = a.groupsOf(p.Name)
	case p.UID == standard.UID:
		p.GID = standard.GID
	}
	if both {
		if p.GID, err = a.GroupID("user", groupName); err != nil {
			return p, err
		}
		// As Docker does: a group that is named stands for all others.
		p.Groups = nil
	}
	if !root && p.UID == 0 {
		if p, _, err = a.User(strconv.Itoa(standard.UID)); err != nil {
			return p, err
		}
		p.UID, p.GID, p.Groups = standard.UID, standard.GID, nil
	}
	if group != "" {
		gid, err := a.GroupID("group", group)
		if err != nil {
			return p, err
		}
		if gid != p.GID && !slices.Contains(p.Groups, gid) {
			p.Groups = append(p.Groups, gid)
		}
	}
	return p, nil
}

// HomeOr returns the user's home, or other where that is no clean, absolute path.
func (p *Person) HomeOr(other string) string {
	if path.IsAbs(p.Home) && path.Clean(p.Home) == p.Home {
		return p.Home
	}
	return other
}
