//go:build unix

package executor

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

// secretsDir is the folder of secrets in the runtime folder.
const secretsDir = "secrets"

const secretsSuffix = ".json"

func (x *Executor) secretsPath(id string) string {
	return filepath.Join(x.runtime, secretsDir, id+secretsSuffix)
}

// writeSecrets keeps the values in a file of mode 0600. It is not made durable:
// a reboot is meant to lose it.
func (x *Executor) writeSecrets(id string, values map[string][]byte) error {
	data, err := json.Marshal(values)
	if err != nil {
		return stateError("secrets", caisson.ErrInternal, err)
	}
	path := x.secretsPath(id)
	for {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return safefs.Sorted(caisson.OpState, path, err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // whoever forgot the last secret took the folder away
		}
		if err != nil {
			return safefs.Sorted(caisson.OpState, path, err)
		}
		_, err = f.Write(data)
		return safefs.Sorted(caisson.OpState, path, errors.Join(err, f.Close()))
	}
}

// readSecrets returns the values, and has the record know what programs have
// instead of those that are brokered. Errors: ErrNotFound if they were lost.
func (x *Executor) readSecrets(r *record) (map[string][]byte, error) {
	if !r.Secrets {
		return nil, nil
	}
	values := make(map[string][]byte)
	if err := readJSON(x.secretsPath(r.ID), &values); err != nil {
		return nil, stateError("secrets", caisson.ErrNotFound,
			errors.New("their values are gone, as after a reboot of the host; submit the task again"))
	}
	var err error
	if r.brokerage, err = takeBrokerage(values); err != nil {
		return nil, stateError("secrets", caisson.ErrInvalid, err)
	}
	return values, nil
}

// forgetSecrets removes the values, and the folders that held them if nothing
// else is in there.
func (x *Executor) forgetSecrets(id string) error {
	path := x.secretsPath(id)
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && os.Remove(filepath.Dir(path)) == nil {
		_ = os.Remove(x.runtime)
	}
	return err
}

// secretsKept lists the tasks that have values in the runtime folder.
func (x *Executor) secretsKept() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(x.runtime, secretsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), secretsSuffix); ok && caisson.CheckTaskID(id) == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
