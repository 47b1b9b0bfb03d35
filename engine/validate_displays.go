package engine

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/caissonrun/caisson"
)

const (
	// maxDisplays is how many displays a sandbox may have.
	maxDisplays = 32
	// maxPixels is the largest width or height of one.
	maxPixels = 16384
)

// displays checks what is listed, and opened by its name.
func (v *validation) displays(s *Spec) {
	v.addIf(len(s.Displays) > maxDisplays, "displays", fmt.Sprintf("there are %d, at most %d can be", len(s.Displays), maxDisplays))
	seen := make(map[string]bool)
	screens := 0
	for i, d := range s.Displays {
		field := fmt.Sprintf("displays[%d]", i)
		v.addIf(d.Name == "", field+".name", "not set")
		v.add(field+".name", checkText(d.Name))
		v.add(field+".description", checkText(d.Description))
		v.addIf(seen[d.Name], field+".name", fmt.Sprintf("%q is the name of another one too", d.Name))
		seen[d.Name] = true
		v.addIf(d.Width < 0 || d.Width > maxPixels || d.Height < 0 || d.Height > maxPixels, field, "not a size in pixels")
		v.addIf(d.Socket != "" && d.Port != 0, field, "socket and port are both set, use one")
		v.addIf(d.Port < 0 || d.Port > 65535, field+".port", "not a port")
		v.addIf(d.Port != 0 && s.Network.Mode == caisson.NetworkHost, field+".port",
			"not with the host's network, where it could be anybody's; use socket")
		if d.Socket != "" {
			_, err := InWork(d.Socket)
			v.add(field+".socket", err)
		}
		if !d.Server() {
			screens++
		}
	}
	v.addIf(screens > 1, "displays", "a sandbox has one screen of its own; the others need socket or port")
}

// InWork returns a path of the work folder's, relative to it or absolute inside
// of the sandbox, as it is below the work folder.
func InWork(name string) (string, error) {
	if err := checkText(name); err != nil {
		return "", err
	}
	if !path.IsAbs(name) {
		name = path.Join(caisson.WorkDir, name)
	}
	rel, below := strings.CutPrefix(path.Clean(name), caisson.WorkDir+"/")
	if !below {
		return "", errors.New("not in the work folder")
	}
	return rel, nil
}
