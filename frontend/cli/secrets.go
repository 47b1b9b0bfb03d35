package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
)

// maxSecret is the most bytes that a secret may have.
const maxSecret = 64 * caisson.KiB

// readSecrets reads the values of a task's secrets from where the document
// says: the caller's environment and files.
func readSecrets(task *caisson.Task, base string, lookup func(string) (string, bool)) (map[string][]byte, error) {
	values := make(map[string][]byte, len(task.Secrets))
	for name, secret := range task.Secrets {
		value, err := readSecret(secret.From, base, lookup)
		if err != nil {
			return nil, &caisson.Error{Op: caisson.OpValidate, Item: "secrets." + name, Kind: caisson.KindOf(err), Err: err}
		}
		values[name] = value
	}
	return values, nil
}

func readSecret(from, base string, lookup func(string) (string, bool)) ([]byte, error) {
	scheme, rest, _ := strings.Cut(from, ":")
	switch scheme {
	case "env":
		value, ok := lookup(rest)
		if !ok {
			return nil, &caisson.Error{Kind: caisson.ErrNotFound, Err: fmt.Errorf("you have no variable %q, set it", rest)}
		}
		return []byte(value), nil
	case "file":
		return readSecretFile(rest, base)
	}
	return nil, usagef("from %q: use env:VARIABLE or file:PATH", from)
}

// readSecretFile reads a secret without the line end that editors put behind
// its last line.
func readSecretFile(path, base string) ([]byte, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(base, path)
	}
	info, err := os.Stat(path)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > int64(maxSecret)) {
		return nil, usagef("%q: not a file of at most %s", path, maxSecret)
	}
	value, err := os.ReadFile(path)
	switch {
	case os.IsNotExist(err):
		return nil, &caisson.Error{Kind: caisson.ErrNotFound, Err: fmt.Errorf("%q: no such file", path)}
	case os.IsPermission(err):
		return nil, &caisson.Error{Kind: caisson.ErrDenied, Err: fmt.Errorf("%q: you may not read it", path)}
	case err != nil:
		return nil, err
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r")), nil
}
