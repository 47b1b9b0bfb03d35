package server

import (
	"fmt"
	"path"

	"github.com/caissonrun/caisson/internal/once"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// onceFiles are those of one sandbox that can be read once. A nil one has none.
type onceFiles struct{ files once.Files }

// serveOnce makes the files and begins to watch them. Nothing runs in the
// sandbox yet, so its paths can be trusted.
func serveOnce(box Box, list []wire.Once) (*onceFiles, error) {
	if len(list) == 0 {
		return nil, nil
	}
	root, err := box.Root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	o := &onceFiles{}
	for i := range list {
		f := &list[i]
		err := o.files.Add(int(root.Fd()), &once.File{Path: f.Path, Value: f.Value, UID: f.UID, GID: f.GID})
		if err != nil {
			o.close()
			return nil, fmt.Errorf("secret %s: %w", path.Base(f.Path), err)
		}
	}
	return o, nil
}

// close ends the serving. It can be called again.
func (o *onceFiles) close() {
	if o != nil {
		o.files.Close()
	}
}
