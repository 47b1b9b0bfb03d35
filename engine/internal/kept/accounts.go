package kept

import (
	"path"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson/internal/accounts"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/safefs"
)

// MaxAccount is the largest id of a user or group that a sandbox has: images
// expect every id that a small system has.
const MaxAccount = 65535

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
type Accounts struct{ known *accounts.Accounts }

// ReadAccounts reads the image's files of users and groups, through links that stay
// inside of it. One that it has not is empty.
func ReadAccounts(root string) (*Accounts, error) {
	dir, err := safefs.Open(root, nil)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	known, err := accounts.Read(dir.FS(), MaxAccount)
	return &Accounts{known}, err
}

// Who decides who a program runs as: the task's user, or the image's, which the
// executor has put in its place. Where root is not permitted, standard takes the
// place of a user that is root in any spelling, or none.
//
// Errors: ErrInvalid if the image has no such user or group.
func (a *Accounts) Who(user, group string, standard isolate.User, root bool) (Person, error) {
	p, err := a.known.Who(user, group, accounts.ID{UID: standard.UID, GID: standard.GID}, root)
	return Person{User: isolate.User{UID: p.UID, GID: p.GID, Groups: p.Groups}, Name: p.Name, Home: p.Home}, err
}
