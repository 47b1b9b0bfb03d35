package run

import "net/url"

// StorageSecret is the name, in executor.Submission.Secrets, of the storage's
// URL where that has a password: a task's document must not.
const StorageSecret = "component.storage"

// StripURL returns a storage's URL without the password in it, also where that
// is in the URL of an endpoint, and the password.
func StripURL(text string) (plain, password string) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return text, ""
	}
	if secret, ok := u.User.Password(); ok {
		u.User, password = url.User(u.User.Username()), secret
	}
	query := u.Query()
	for key, values := range query {
		for i, value := range values {
			if stripped, secret := StripURL(value); secret != "" {
				values[i], password = stripped, secret
			}
		}
		if key == "password" {
			password = values[0]
			query.Del(key)
		}
	}
	if password == "" {
		return text, ""
	}
	u.RawQuery = query.Encode()
	return u.String(), password
}
