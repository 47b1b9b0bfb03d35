//go:build unix

package qemu

import (
	"encoding/json"
	"os"

	"github.com/caissonrun/caisson/engine/internal/kept"
)

// An op answers a request of the engine's to its box, as server.Doer has it.
type op func(b *box, params json.RawMessage) (result json.RawMessage, files []*os.File, err error)

// ops are those that there are. It is never changed.
var ops = map[string]op{
	kept.FilesOp:    doFiles,
	kept.OpOrigin:   doOrigin,
	kept.OpSnapshot: doSnapshot,
	kept.OpDisplay:  doDisplay,
}

// Do implements server.Doer.
func (b *box) Do(name string, params json.RawMessage) (json.RawMessage, []*os.File, error) {
	do := ops[name]
	if do == nil {
		return nil, nil, unsupported("this keeper does not know the request " + name)
	}
	if err := b.gone(); err != nil {
		return nil, nil, err
	}
	return do(b, params)
}
