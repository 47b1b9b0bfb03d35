package run

import (
	"net/url"
	"slices"
)

// StorageSecret is the name, in executor.Submission.Secrets, of the storage's
// URL where that has a password: a task's document must not.
const StorageSecret = "component.storage"

// VariablesSecret is the name, in executor.Submission.Secrets, of the values of
// variables where the task's document must not have them: a JSON object, which
// takes the place of caisson.ComponentRun.Variables.
const VariablesSecret = "component.variables"

// StripURL returns a storage's URL without the passwords in it, also where one is
// in the URL of an endpoint, and the passwords.
func StripURL(text string) (plain string, passwords []string) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return text, nil
	}
	if secret, ok := u.User.Password(); ok {
		u.User, passwords = url.User(u.User.Username()), append(passwords, secret)
	}
	query := u.Query()
	for key, values := range query {
		if slices.Contains(secretKeys, key) {
			passwords = append(passwords, values...)
			query.Del(key)
			continue
		}
		for i, value := range values {
			stripped, secrets := StripURL(value)
			if len(secrets) > 0 {
				values[i], passwords = stripped, append(passwords, secrets...)
			}
		}
	}
	passwords = slices.DeleteFunc(passwords, func(s string) bool { return s == "" })
	if len(passwords) == 0 {
		return text, nil
	}
	u.RawQuery = query.Encode()
	return u.String(), passwords
}

// secretKeys are the parameters of a database's URL that are passwords: its
// user's, and that of the key of a certificate.
var secretKeys = []string{"password", "sslpassword"}
