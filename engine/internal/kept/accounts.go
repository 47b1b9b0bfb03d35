package kept

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

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/safefs"
)

const (
	// MaxAccount is the largest id of a user or group that a sandbox has: images
	// expect every id that a small system has.
	MaxAccount = 65535
	// maxAccounts bounds a passwd or group file, in bytes; an image may hold one
	// of any size (CVE-2026-47262).
	maxAccounts = 1 << 20
	// maxLine bounds one of its lines, and maxGroups the groups of one user.
	maxLine   = 64 << 10
	maxGroups = 64
)

// A Person is who a program runs as.
type Person struct {
	isolate.User
	Name, Home string // as the image has them; empty: it does not know the user
}

// UserName is the user's name in the image, or else its id.
func (p *Person) UserName() string {
	if p.Name != "" {
		return p.Name
	}
	return strconv.Itoa(p.UID)
}

// HomeDir is the user's home folder as the image has it, or else standard: where
// the image does not know the user, or gives it none of its own.
func (p *Person) HomeDir(standard string) string {
	if !path.IsAbs(p.Home) || p.Home == "/" && p.UID != 0 || strings.ContainsRune(p.Home, 0) {
		return standard
	}
	return path.Clean(p.Home)
}

// Accounts are the users and groups that an image knows.
type Accounts struct{ passwd, group []byte }

// ReadAccounts reads the image's files of users and groups. One that it has not
// is empty.
func ReadAccounts(root string) (*Accounts, error) {
	dir, err := safefs.Open(root, nil)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var a Accounts
	for name, data := range map[string]*[]byte{"etc/passwd": &a.passwd, "etc/group": &a.group} {
		if *data, err = readAccount(dir.FS(), name); err != nil {
			return nil, Invalid("image", fmt.Errorf("/%s: %w", name, err))
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
		return 0, Invalid(field, fmt.Errorf("%q: not a number of 0 to %d, and the image has no such name", text, MaxAccount))
	}
	if id > MaxAccount {
		return 0, Invalid(field, fmt.Errorf("%q: a sandbox has the ids 0 to %d", text, MaxAccount))
	}
	return id, nil
}

// numeric reports whether text is meant as an id, whatever its size: such text
// is never a name.
func numeric(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }

// user looks a user up by name or id.
func (a *Accounts) user(text string) (p Person, known bool, err error) {
	wanted := -1
	if numeric(text) {
		if wanted, err = inside("user", text); err != nil {
			return p, false, err
		}
	}
	lines(a.passwd, 6, func(f []string) bool {
		uid, uidErr := parseID(f[2])
		gid, gidErr := parseID(f[3])
		if uidErr != nil || gidErr != nil || uid > MaxAccount || gid > MaxAccount || f[0] == "" {
			return true
		}
		if wanted < 0 && f[0] == text || wanted >= 0 && uid == wanted {
			p, known = Person{User: isolate.User{UID: uid, GID: gid}, Name: f[0], Home: f[5]}, true
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
func (a *Accounts) groupID(field, text string) (int, error) {
	if numeric(text) {
		return inside(field, text)
	}
	gid, found := 0, text == "root"
	lines(a.group, 3, func(f []string) bool {
		n, err := parseID(f[2])
		if err == nil && n <= MaxAccount && f[0] == text {
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
func (a *Accounts) groupsOf(name string) []int {
	var list []int
	lines(a.group, 4, func(f []string) bool {
		gid, err := parseID(f[2])
		if err == nil && gid <= MaxAccount && slices.Contains(strings.Split(f[3], ","), name) {
			list = append(list, gid)
		}
		return len(list) < maxGroups
	})
	return list
}

// Who decides who a program runs as: the task's user, or the image's, which the
// executor has put in its place. Where root is not permitted, standard takes the
// place of a user that is root in any spelling, or none.
//
// Errors: ErrInvalid if the image has no such user or group.
func (a *Accounts) Who(user, group string, standard isolate.User, root bool) (Person, error) {
	name, groupName, both := strings.Cut(user, ":")
	if user != "" && (name == "" || both && groupName == "") {
		return Person{}, Invalid("user", fmt.Errorf("%q: use USER or USER:GROUP", user))
	}
	if name == "" {
		name = "0"
	}
	p, known, err := a.user(name)
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
		if p.GID, err = a.groupID("user", groupName); err != nil {
			return p, err
		}
		// As Docker does: a group that is named stands for all others.
		p.Groups = nil
	}
	if !root && p.UID == 0 {
		if p, _, err = a.user(strconv.Itoa(standard.UID)); err != nil {
			return p, err
		}
		p.User = isolate.User{UID: standard.UID, GID: standard.GID}
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
