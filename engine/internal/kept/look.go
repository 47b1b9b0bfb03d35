package kept

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/keeper"
)

// startedName is the file, in a sandbox's runtime folder, that says that its
// program was started. Where it is missing nothing follows: it only saves time.
const startedName = "started"

// Running is for engine.Looker.
func (b *Sandboxes) Running(dir string) (bool, error) {
	handle, err := engine.ReadHandle(dir, b.opts.Engine)
	if err != nil {
		return false, err
	}
	var rec Record
	if err := json.Unmarshal(handle.Data, &rec); err != nil {
		return false, &caisson.Error{Op: caisson.OpRecover, Item: dir, Kind: caisson.ErrInvalid, Err: err}
	}
	_, err = os.Lstat(filepath.Join(rec.Run, startedName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || !keeper.Lives(dir) {
		return false, err
	}
	// In this order: a keeper that was seen alive before there was an exit will
	// see to what follows it.
	_, err = keeper.ReadExit(dir)
	if errors.Is(err, caisson.ErrNotFound) {
		return true, nil
	}
	return false, err
}

// noteStarted makes the file. That it can't be made harms nobody.
func (r *Record) noteStarted() {
	if f, err := os.OpenFile(filepath.Join(r.Run, startedName), os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		f.Close()
	}
}
