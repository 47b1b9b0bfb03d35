//go:build unix

package landing

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/stage"
)

// Fill puts the values of secrets into a URL's user name and password where
// they are written as $NAME, so that no credential stands in a document.
//
// Errors: ErrInvalid for a secret that the task does not have.
func Fill(in *caisson.Input, u *url.URL, env *stage.Env) error {
	if u.User == nil {
		return nil
	}
	password, has := u.User.Password()
	user, err := value(in, u.User.Username(), env)
	if err != nil {
		return err
	}
	if password, err = value(in, password, env); err != nil {
		return err
	}
	u.User = url.User(user)
	if has {
		u.User = url.UserPassword(user, password)
	}
	return nil
}

func value(in *caisson.Input, text string, env *stage.Env) (string, error) {
	name, is := strings.CutPrefix(text, "$")
	if !is {
		return text, nil
	}
	value, ok := env.Secrets[name]
	if !ok {
		return "", Invalid(in, fmt.Errorf("from: the task has no secret %q", name))
	}
	return value, nil
}

// Secretless returns a URL for messages, without what may be secret in it: user,
// query and fragment.
func Secretless(u *url.URL) string {
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return shown.String()
}
